"""Received files run no code and write nothing outside the current folder, unless their receiver says so.

Each promise of the guide's page "trust": an attack leaves a marker file if its code runs.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import autoprune
from autoprune import run
from autoprune.cli import main
from autoprune.config import load_config, set_key
from autoprune.errors import AutopruneError, CheckpointError, ConfigError, LatencyError, StudyError
from autoprune.exporting import save_pruned
from autoprune.graph.plan import Plan
from autoprune.guide import read_page
from autoprune.run import Consent, settle, stored_spec
from autoprune.run._checks import trust
from autoprune.run._checks.trust import code_of, sign_derived, sign_names, trusted, written_paths
from autoprune.run._resolving.paths import absolute_storage
from autoprune.run._resolving.spec import RunSpec
from autoprune.study import SearchStudy, create_study
from autoprune.support.userfunction import current_imports
from autoprune.training._training_state import load_state
from autoprune.zoo import make_model
from autoprune.zoo._checkpoint import read_state
from tests.engines.toy import FACTS

STORAGE = "journal:///study.log"

CODE = {
    "model.name": "evil:make",
    "model.factory": "evil:make",
    "data.name": "evil:make",
    "data.loaders": "evil:make",
    "data.validation": "evil:make",
    "task.loss": "evil:make",
    "task.metric": "evil:make",
    "latency.probe": "evil:make",
    "search.sampler": "evil:make",
    "search.pruner": "evil:make",
    "search.engine": "evil:make",
    "search.criterion": "evil:make",
    "search.warm_starts": "evil:make",
    "latency.command": "touch marker",
    "search.ray.address": "10.0.0.1:6379",
}
"""All that a study can name and that is code, by its key."""

IMPORTED = [key for key, text in CODE.items() if ":make" in text]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a received file and a module `evil`."""
    folder = tmp_path / "received"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))  # whatever is imported puts its folder there
    monkeypatch.delitem(sys.modules, "evil", raising=False)
    (folder / "evil.py").write_text(source_of(folder))
    return folder


def source_of(folder: Path) -> str:
    """Return a module that leaves a marker as it is imported."""
    return f"open({str(folder / 'marker')!r}, 'w').close()\ndef make(*_, **__): raise ValueError('made')\n"


@pytest.fixture
def installed(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module `evil` among the installed packages, and not in the current folder."""
    (tmp_path / "site").mkdir()
    (place / "evil.py").rename(tmp_path / "site" / "evil.py")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])


def config_naming(key: str, text: str) -> RunSpec:
    """Return the config of a search in which one key names code."""
    section, _, name = key.partition(".")
    values: dict[str, Any] = {
        "model": {"name": "digits_resnet", "checkpoint": "dense.safetensors"},
        "data": {"name": "digits"},
        "budget": {"flops": "50%"},
    }
    if key in ("model.factory", "data.loaders"):
        values[section].pop("name")
    if section == "latency":
        values["budget"] = {"latency": "50%"}
        values["latency"] = {"probe": "command"} if name == "command" else {}
        values["search"] = {"divisor": 4}
    if key == "search.ray.address":
        values["search"] = {"engine": "ray"}
    set_key(values, key, [text] if name == "warm_starts" else text)
    return settle(load_config(values), named=False)


def received(config: RunSpec, name: str = "fm") -> SearchStudy:
    """Make a study as another user's machine would: nothing in it is signed here."""
    stored = json.loads(json.dumps(dataclasses.asdict(config)))
    return create_study(absolute_storage(STORAGE), name, config=stored, identity={}, facts=FACTS)


def resume(consent: Consent) -> object:
    return run.resume("fm", STORAGE, trust=consent.trust, config=consent.own)


def finetune(consent: Consent) -> object:
    return run.finetune("fm", STORAGE, trust=consent.trust, config=consent.own)


def export_dense(consent: Consent) -> object:
    return run.export_saved(
        "fm", "onnx", storage=STORAGE, dense=True, trust=consent.trust, config=consent.own
    )


def search_from(consent: Consent) -> object:
    changes = ["search.seed=1"]
    return run.search(from_study="fm", from_storage=STORAGE, overrides=changes, trust=consent.trust)


@pytest.mark.parametrize("verb", [resume, finetune, export_dense, search_from])
@pytest.mark.parametrize("key", CODE)
def test_code_that_a_received_study_names_does_not_run(
    place: Path, key: str, verb: Callable[[Consent], object]
) -> None:
    received(config_naming(key, CODE[key]))
    with pytest.raises(StudyError) as caught:
        verb(Consent())
    assert f'fm: the study names code: {key} = "{CODE[key]}". Give --trust to run it, or --config' in str(
        caught.value
    )
    assert not (place / "marker").exists()


@pytest.mark.parametrize("key", IMPORTED)
def test_with_trust_it_runs_from_installed_packages(place: Path, installed: None, key: str) -> None:
    received(config_naming(key, CODE[key]))
    with pytest.raises(AutopruneError):
        resume(Consent(trust=True))
    assert (place / "marker").exists()


@pytest.mark.parametrize("key", IMPORTED)
def test_with_trust_the_current_folder_is_no_import_path(place: Path, key: str) -> None:
    received(config_naming(key, CODE[key]))
    with pytest.raises(ConfigError, match=r'no module "evil" .*the current folder is not searched'):
        resume(Consent(trust=True))
    assert not (place / "marker").exists()


@pytest.mark.parametrize("key", IMPORTED)
def test_the_users_own_config_is_imported_from_the_current_folder(place: Path, key: str) -> None:
    own = config_naming(key, CODE[key])
    received(own)
    with pytest.raises(AutopruneError):
        resume(Consent(own=own))
    assert (place / "marker").exists()


def test_a_config_that_names_other_code_does_not_help(place: Path) -> None:
    received(config_naming("task.loss", "evil:make"))
    with pytest.raises(StudyError, match=r"names code: task\.loss"):
        resume(Consent(own=config_naming("task.loss", "mine:loss")))
    assert not (place / "marker").exists()


def test_what_this_users_search_named_needs_no_flag(place: Path) -> None:
    config = config_naming("task.loss", "evil:make")
    sign_names(received(config), config)
    with pytest.raises(AutopruneError, match=r"dense\.safetensors: there is no such file"):
        resume(Consent())
    assert (place / "marker").exists()


def test_it_is_imported_from_the_folder_of_the_search(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study that comes back to its author may come with another module of that name."""
    config = config_naming("task.loss", "evil:make")
    study = received(config)
    home = tmp_path / "home"
    home.mkdir()
    (home / "evil.py").write_text("def make(*_): raise ValueError('at home')\n")
    monkeypatch.chdir(home)
    sign_names(study, config)
    monkeypatch.chdir(place)
    with pytest.raises(AutopruneError):
        resume(Consent())
    assert sys.modules["evil"].__file__ == str(home / "evil.py")
    assert not (place / "marker").exists()


def test_a_study_made_from_an_own_one_is_signed_with_its_folder(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_naming("task.loss", "evil:make")
    earlier, study = received(config), received(config, "new")
    monkeypatch.chdir(tmp_path)
    sign_names(earlier, config)
    monkeypatch.chdir(place)
    with trusted(earlier, config, Consent()):
        sign_derived(study, config, Consent())
    with trusted(study, config, Consent()):
        assert current_imports().folder == str(tmp_path)


def test_a_study_made_from_a_received_one_is_not_signed(place: Path) -> None:
    config = config_naming("task.loss", "evil:make")
    earlier, study = received(config), received(config, "new")
    with trusted(earlier, config, Consent(trust=True)):
        sign_derived(study, config, Consent(trust=True))
    with (
        pytest.raises(StudyError, match=r"new: the study names code: task\.loss"),
        trusted(study, config, Consent()),
    ):
        pass


def forged(study: SearchStudy, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a signed note in a study."""
    (key,) = [key for key in study.optuna.user_attrs if key.startswith("autoprune:own:")]
    noted = study.note(key)
    change(noted)
    study.store_note(key, noted)


@pytest.mark.parametrize(
    "change",
    [
        lambda noted: noted.update(signature="0" * 64),
        lambda noted: noted.update(signature=None),
        lambda noted: noted.update(signature="ä"),
        lambda noted: noted.pop("signature"),
        lambda noted: noted.update(values=[]),
        lambda noted: noted["values"].update(folder="/"),
        lambda noted: noted["values"].update(study="other"),
        lambda noted: noted["values"].update(purpose="recipe"),
        lambda noted: noted["values"]["code"].update({"task.metric": "evil:make"}),
        lambda noted: noted["values"]["places"].append("/"),
    ],
)
def test_a_forged_note_counts_as_none(place: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = config_naming("task.loss", "evil:make")
    study = received(config)
    sign_names(study, config)
    forged(study, change)
    with pytest.raises(StudyError, match=r"names code: task\.loss"):
        resume(Consent())
    assert not (place / "marker").exists()


def test_a_note_of_another_study_counts_as_none(place: Path) -> None:
    config = config_naming("task.loss", "evil:make")
    study, other = received(config), received(config, "other")
    sign_names(other, config)
    for key, value in other.optuna.user_attrs.items():
        if key.startswith("autoprune:own:"):
            study.store_note(key, value)
    with pytest.raises(StudyError, match=r"names code: task\.loss"):
        resume(Consent())


def test_names_that_were_changed_after_the_search_are_not_covered(place: Path) -> None:
    own = config_naming("task.loss", "mine:loss")
    study = received(own)
    sign_names(study, own)
    study.store_config(dataclasses.asdict(config_naming("task.loss", "evil:make")))
    with pytest.raises(StudyError, match=r'names code: task\.loss = "evil:make"'):
        resume(Consent())


def test_another_users_key_signs_nothing_for_this_one(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_naming("task.loss", "evil:make")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "theirs"))
    sign_names(received(config), config)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "mine"))
    with pytest.raises(StudyError, match=r"names code: task\.loss"):
        resume(Consent())


@pytest.mark.parametrize("damage", ["others can read it", "it is short"])
def test_a_key_that_cannot_be_used_is_named(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    config = config_naming("task.loss", "evil:make")
    sign_names(received(config), config)
    key = tmp_path / "autoprune" / "key"
    if damage == "it is short":
        key.write_bytes(b"short")
    else:
        key.chmod(0o644)
    for _ in range(2):
        with pytest.raises(StudyError, match=r"names code: task\.loss"):
            resume(Consent())
    assert caplog.text.count(f"{key}: it is damaged, or other users own it") == 1


def test_the_message_is_one_short_line(place: Path) -> None:
    received(config_naming("latency.command", "echo " + "ä" * 400))
    with pytest.raises(StudyError) as caught:
        resume(Consent())
    assert str(caught.value).isascii()
    assert len(str(caught.value)) < 800


def test_the_api_asks_as_the_command_line_does(place: Path) -> None:
    """A caller's own model and data do not let the study's loss run."""
    received(config_naming("task.loss", "evil:make"))
    model = make_model("digits_resnet", 10, 1)
    loader = [(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]))]
    for verb in (autoprune.resume, autoprune.finetune):
        for overrides in ([], ["task.loss=cross_entropy"]):
            with pytest.raises(AutopruneError, match=r"names code: task\.loss|this key cannot change"):
                verb("fm", STORAGE, model=model, data=(loader, loader), overrides=overrides)
    assert not (place / "marker").exists()


# Places.


def test_a_received_study_writes_below_the_current_folder_alone(place: Path, tmp_path: Path) -> None:
    values = {"output": {"folder": str(tmp_path / "outside")}}
    config = dataclasses.replace(
        config_naming("data.folder", "images"), output=settle(load_config(values), named=False).output
    )
    received(config)
    wants = r"fm: the study wants to write to .*outside.*, outside the current folder\. Choose a path with"
    for consent in (Consent(), Consent(trust=True)):
        with pytest.raises(StudyError, match=wants + " --set output.folder=PATH"):
            resume(consent)
        with pytest.raises(StudyError, match=wants + " -o PATH"):
            export_dense(consent)
    assert not (tmp_path / "outside").exists()


def escaping(place: Path, kind: str) -> str:
    if kind == "link":
        (place / "out").symlink_to(place.parent)
    return {"absolute": "/nowhere/at/all", "parent": "../up", "link": "out/there"}[kind]


@pytest.mark.parametrize("kind", ["absolute", "parent", "link"])
@pytest.mark.parametrize("key", ["output.folder", "latency.table", "data.folder"])
def test_no_place_escapes(place: Path, key: str, kind: str) -> None:
    config = config_naming(key, escaping(place, kind))
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, name="cifar10"))
    received(config)
    with pytest.raises(StudyError, match=rf"the current folder\. Choose a path with --set {key}=PATH"):
        resume(Consent(trust=True))


def test_a_folder_of_results_that_is_a_link_is_no_way_out(place: Path, tmp_path: Path) -> None:
    received(config_naming("output.folder", "out"))
    (tmp_path / "outside").mkdir()
    (place / "out").mkdir()
    (place / "out" / "best").symlink_to(tmp_path / "outside")
    with pytest.raises(StudyError, match=r"the study wants to write to .*out/best.*, outside the current"):
        finetune(Consent(trust=True))


def test_places_that_this_user_named_are_kept(place: Path, tmp_path: Path) -> None:
    config = config_naming("output.folder", str(tmp_path / "mine"))
    sign_names(received(config), config)
    with pytest.raises(AutopruneError, match=r"dense\.safetensors"):  # beyond the question of places
        resume(Consent())


def test_trust_on_the_command_line_is_remembered(place: Path, tmp_path: Path) -> None:
    config = config_naming("output.folder", "/nowhere/at/all")
    study = received(config)
    trust.store_consent(study, config, Consent(given=("search.trials",)))
    with pytest.raises(StudyError, match="outside the current folder"):
        resume(Consent())
    trust.store_consent(study, config, Consent(given=("output.folder",)))
    trust.require_own_paths(study, stored_spec(study), Consent())


def test_code_and_places_of_plain_configs_are_none() -> None:
    config = RunSpec.of("digits")
    assert code_of(config) == {}
    assert code_of(RunSpec.of(load_config("digits", ["search.engine=ray", "search.ray.address=auto"]))) == {}
    assert "data.folder" not in written_paths(settle(config))


# Saved models and exported files.


def saved(folder: Path, architecture: str, **extra: object) -> Path:
    model = make_model("digits_resnet", 10, 1).eval()
    noted = {"name": architecture, "classes": 10, "input_shape": [1, 8, 8]}
    save_pruned(model, Plan({}), folder / "best", extra={"architecture": noted, **extra})
    return folder / "best"


def bench_of(target: Path, consent: Consent) -> object:
    return run.bench([target], tolerance=0.9, limit_seconds=1, trust=consent.trust)


def export_of(target: Path, consent: Consent) -> object:
    return run.export_saved(target, "pt2", trust=consent.trust, config=consent.own)


def copy_of(target: Path, consent: Consent) -> object:
    return run.export_saved(target, "safetensors", output="copy", trust=consent.trust, config=consent.own)


@pytest.mark.parametrize("verb", [bench_of, export_of, copy_of])
def test_a_recipe_runs_no_code(
    place: Path, verb: Callable[[Path, Consent], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(place, "evil:make")
    message = r'best: the recipe names code: architecture = "evil:make"\. Give --trust to run it, or load'
    with pytest.raises(CheckpointError, match=message):
        verb(folder, Consent())
    with pytest.raises(CheckpointError, match="the current folder is not searched"):
        verb(folder, Consent(trust=True))
    assert not (place / "marker").exists()
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (place / "evil.py").rename(tmp_path / "evil.py")
    with pytest.raises(CheckpointError, match="made"):
        verb(folder, Consent(trust=True))
    assert (place / "marker").exists()


def test_a_recipe_of_this_users_finetune_needs_no_flag(place: Path, tmp_path: Path) -> None:
    (place / "home_net.py").write_text(
        "from autoprune.zoo import make_model\ndef make(): return make_model('digits_resnet', 10, 1)\n"
    )
    config = config_naming("model.factory", "home_net:make")
    study = received(config)
    sign_names(study, config)
    signed = trust.signed_architecture(study, config, Consent())
    run.load_saved(saved(place, "home_net:make", **signed))
    changed = json.loads(json.dumps(signed).replace("home_net", "evil"))
    forged: list[dict[str, Any]] = [
        changed,
        {"own": []},
        {"own": {"values": 1}},
        {"own": {"values": {"folder": 1}}},
    ]
    for note in forged:
        with pytest.raises(CheckpointError, match="the recipe names code"):
            run.load_saved(saved(place, "evil:make", **note))
    assert not (place / "marker").exists()


class Pickled:
    """Leaves a marker as it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_a_pt2_file_runs_nothing_without_trust(place: Path) -> None:
    program = torch.export.export(torch.nn.ReLU(), (torch.zeros(1, 3),))
    torch.export.save(program, "plain.pt2")
    pickled = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    with zipfile.ZipFile("plain.pt2") as plain, zipfile.ZipFile("net.pt2", "w") as evil:
        for name in plain.namelist():
            content = plain.read(name)
            if name.endswith("model_constants_config.json"):
                content = json.dumps({"config": {"constant": pickled}}).encode()
            evil.writestr(name, content)
        evil.writestr("plain/data/constants/opaque_obj_0", pickle.dumps(Pickled(place / "marker")))
    with pytest.raises(ConfigError, match=r"net\.pt2: loading a \.pt2 file runs any code .* Give --trust"):
        bench_of(Path("net.pt2"), Consent())
    assert not (place / "marker").exists()
    with pytest.raises(LatencyError, match=r"net\.pt2: torch\.export cannot load it"):
        bench_of(Path("net.pt2"), Consent(trust=True))
    assert (place / "marker").exists()


@pytest.mark.parametrize("read", [lambda path: load_state(path, {}), read_state])
def test_states_and_checkpoints_unpickle_nothing(
    place: Path, recwarn: pytest.WarningsRecorder, read: Callable[[Path], object]
) -> None:
    (place / "state").write_bytes(pickle.dumps(Pickled(place / "marker")))
    with pytest.raises(CheckpointError, match=r"state: it is corrupt"):
        read(place / "state")
    assert not (place / "marker").exists()
    assert not recwarn.list  # torch's own advice has several lines


# The page.


def test_the_page_names_all_code_and_all_options(place: Path) -> None:
    page = " ".join(read_page("trust").split())
    functions = [key for key in CODE if not key.endswith(".name")]  # those are refused in a config
    assert [key for key in functions if f"`{key}`" not in page] == []
    received(config_naming("model.factory", "mypkg.nets:make"), "fm-50")
    with pytest.raises(StudyError) as caught:
        run.resume("fm-50", STORAGE)
    assert str(caught.value) in page.replace(" # ", " ")


@pytest.mark.parametrize("verb", ["resume", "finetune", "export"])
def test_the_commands_take_the_options_of_the_page(
    place: Path, verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    received(config_naming("task.loss", "evil:make"))
    (place / "own.toml").write_text('[task]\nloss = "evil:make"\n[budget]\nflops = "50%"\n')
    dense = ["--dense"] if verb == "export" else []
    printed = {}
    for option in ((), ("--trust",), ("--config", "own.toml")):
        monkeypatch.setattr(sys, "argv", ["autoprune", verb, "fm", "--storage", STORAGE, *dense, *option])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 2
        printed[option[:1]] = capsys.readouterr().err
    assert "Give --trust to run it" in printed[()]
    assert "names code" not in printed[("--trust",)]
    assert "names code" not in printed[("--config",)]
