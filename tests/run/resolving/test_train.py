"""Training the dense model, the note next to its checkpoint, and how a search reads it."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from autoprune.config import load_config
from autoprune.errors import AutopruneError, CheckpointError, ConfigError, DataError
from autoprune.execution import Setting
from autoprune.flow import schedule_of
from autoprune.run import EpochDone, Event, Stage, search, settle, train
from autoprune.run._checks.checks import check_paths
from autoprune.run._resolving.dense import load_dense
from autoprune.run._resolving.problem import trace_dense
from autoprune.run._resolving.seen_validation import (
    history_path,
    read_history,
    require_unseen_validation,
    save_dense,
)
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._resolving.train import clear_finished, train_dense
from autoprune.support.threads import cpu_threads
from autoprune.training import Task

SERVER = "postgresql://user:secret@host/db"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunSpec, list[Event]]:
    folder = tmp_path_factory.mktemp("trained")
    overrides = [f"model.checkpoint={folder}/dense.safetensors", "train.epochs=2", f"search.storage={SERVER}"]
    overrides.append("report.trackers=['mlflow']")
    config = settle(load_config("digits", overrides))
    events: list[Event] = []
    train(config, watch=events.append)
    return config, events


def test_training_reports_its_epochs_and_leaves_weights_that_load(
    trained: tuple[RunSpec, list[Event]],
) -> None:
    config, events = trained
    epochs = [event for event in events if isinstance(event, EpochDone)]
    assert [event.epoch for event in epochs] == [1, 2]
    assert epochs[1].loss < epochs[0].loss
    assert Stage("report.trackers is set, but only searches and finetunes log to trackers") in events
    load_dense(config)
    folder = Path(config.model.checkpoint or "").parent
    assert sorted(path.name for path in folder.iterdir()) == ["dense.json", "dense.safetensors"]


def test_its_own_checkpoint_passes_without_a_question(trained: tuple[RunSpec, list[Event]]) -> None:
    config, _ = trained
    dense = load_dense(config)
    note = read_history(config.model.checkpoint or "")
    assert note is not None
    assert note["data"]["fingerprint"] == dense.data.fingerprint
    require_unseen_validation(config, dense.data)


def test_the_note_holds_the_config_without_the_password_of_its_storage(
    trained: tuple[RunSpec, list[Event]],
) -> None:
    config, _ = trained
    assert config.search.storage == SERVER
    note = read_history(config.model.checkpoint or "")
    assert note is not None
    assert note["config"]["search"]["storage"] == "postgresql://user:***@host/db"
    assert "secret" not in json.dumps(note)


def test_another_split_of_the_same_data_is_refused(trained: tuple[RunSpec, list[Event]]) -> None:
    config, _ = trained
    other = settle(load_config("digits", [f"model.checkpoint={config.model.checkpoint}", "data.seed=1"]))
    with pytest.raises(
        DataError,
        match=r"\(seed 0 there, 1 here, fingerprint \w{12}\.\.\. there, \w{12}\.\.\. here\)",
    ):
        require_unseen_validation(other, load_dense(other).data)


def test_a_checkpoint_without_a_note_needs_consent(
    trained: tuple[RunSpec, list[Event]], tmp_path: Path
) -> None:
    config, _ = trained
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(Path(config.model.checkpoint or "").read_bytes())
    asked = settle(load_config("digits", [f"model.checkpoint={copy}"]))
    dense = load_dense(asked)
    with pytest.raises(DataError, match=r"may have been trained on the validation part .*consent with"):
        require_unseen_validation(asked, dense.data)
    granted = settle(
        load_config("digits", [f"model.checkpoint={copy}", "data.checkpoint_saw_validation=true"])
    )
    require_unseen_validation(granted, dense.data)


def test_a_note_of_other_weights_vouches_for_nothing(
    trained: tuple[RunSpec, list[Event]], tmp_path: Path
) -> None:
    config, _ = trained
    checkpoint = Path(config.model.checkpoint or "")
    copy = tmp_path / "dense.safetensors"
    copy.write_bytes(checkpoint.read_bytes())
    note = json.loads(history_path(checkpoint).read_text("utf-8"))
    history_path(copy).write_text(json.dumps({**note, "sha256": "0" * 64}), "utf-8")
    assert read_history(copy) is None


def test_what_is_written_has_the_mode_that_the_umask_gives(trained: tuple[RunSpec, list[Event]]) -> None:
    folder = Path(trained[0].model.checkpoint or "").parent
    (folder / "plain").touch()
    modes = {path.name: path.stat().st_mode for path in folder.iterdir()}
    (folder / "plain").unlink()
    assert modes["dense.safetensors"] == modes["dense.json"] == modes["plain"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.schedule=cosin", r'train\.schedule: unknown name "cosin"\. Did you mean "cosine"'),
        ("train.optimizer=sdg", r'train\.optimizer: unknown name "sdg"\. Did you mean "sgd"'),
        ("search.device=gpu", r'search\.device: "gpu" is no device'),
        ("data.val_fraction=0.0001", r"val_fraction"),
    ],
)
def test_a_training_that_is_refused_leaves_nothing(tmp_path: Path, override: str, message: str) -> None:
    where = f"model.checkpoint={tmp_path}/new/dense.safetensors"
    with pytest.raises(AutopruneError, match=message):
        train(load_config("digits", [where, override]))
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_schedule_of_the_finetune_is_named_by_its_section() -> None:
    with pytest.raises(ConfigError, match=r'finetune\.schedule: unknown name "cosin"'):
        schedule_of(load_config("digits", ["finetune.schedule=cosin"]).finetune)


def test_a_module_to_freeze_that_there_is_not_is_named_by_its_key() -> None:
    config = settle(load_config("digits", ["model.frozen=['layer1.0.conv']"]))
    with pytest.raises(
        ConfigError, match=r'model\.frozen: "layer1.0.conv" is no module .* Did you mean "layer1'
    ):
        trace_dense(load_dense(config, trained=False), config)


def test_a_checkpoint_is_never_overwritten(trained: tuple[RunSpec, list[Event]]) -> None:
    config, _ = trained
    with pytest.raises(ConfigError, match="exists already"):
        train(config)


def test_a_setting_that_is_half_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "dense.setting.json").write_text("{")
    config = load_config("digits", [f"model.checkpoint={tmp_path}/dense.safetensors"])
    with pytest.raises(CheckpointError, match=r"setting\.json: cannot be read as the setting .*\. Remove it"):
        train(config)


def test_only_safetensors_are_written(tmp_path: Path) -> None:
    config = load_config("digits", [f"model.checkpoint={tmp_path}/dense.pt"])
    with pytest.raises(ConfigError, match=r"expected a name that ends in \.safetensors"):
        train(config)


def test_a_search_that_would_train_another_format_is_refused_before_it_does(tmp_path: Path) -> None:
    path = tmp_path / "dense.pt"
    config = load_config("digits", [f"model.checkpoint={path}", f"search.storage={tmp_path}/a.db"])
    with pytest.raises(ConfigError, match=r"dense\.pt, expected a name that ends in \.safetensors"):
        search(config=config)
    assert list(tmp_path.iterdir()) == []
    path.touch()  # one that is there is read, whatever its format
    check_paths(settle(config))


def test_a_training_goes_on_with_the_threads_it_began_with_and_gives_them_back(tmp_path: Path) -> None:
    begun = dataclasses.asdict(Setting("cpu", threads=1))
    (tmp_path / "dense.setting.json").write_text(json.dumps(begun), "utf-8")
    config = load_config("digits", [f"model.checkpoint={tmp_path}/dense.safetensors", "train.epochs=1"])
    seen: list[int] = []

    def note(event: Event) -> None:
        if isinstance(event, EpochDone):
            seen.append(torch.get_num_threads())

    with cpu_threads(3):
        train(config, watch=note)
        assert (seen, torch.get_num_threads()) == ([1], 3)


def test_a_training_that_began_on_another_device_is_not_gone_on_with(tmp_path: Path) -> None:
    begun = dataclasses.asdict(Setting("cuda:77"))
    (tmp_path / "dense.setting.json").write_text(json.dumps(begun), "utf-8")
    config = load_config("digits", [f"model.checkpoint={tmp_path}/dense.safetensors", "search.device=cpu"])
    refused = r"began on cuda:77, but search.device is cpu here\. Resume it on that device, or remove this"
    with pytest.raises(CheckpointError, match=refused):
        train(config)


def test_an_existing_checkpoint_may_lie_in_a_read_only_folder(tmp_path: Path) -> None:
    there = settle(load_config("digits", ["model.checkpoint=/proc/version", f"output.folder={tmp_path}"]))
    assert there.train.when_missing
    check_paths(there)
    missing = settle(
        load_config("digits", ["model.checkpoint=/proc/a.safetensors", f"output.folder={tmp_path}"])
    )
    with pytest.raises(ConfigError, match=r"model\.checkpoint: /proc cannot be written"):
        check_paths(missing)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "null", '{"threads": "many"}', '{"threads": 0}', '{"dtype": "int8"}', "[" * 100_000, "\x00"],
)
def test_a_damaged_setting_of_a_training_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "dense.setting.json").write_text(text, "utf-8")
    config = load_config("digits", [f"model.checkpoint={tmp_path}/dense.safetensors", "search.device=cpu"])
    with pytest.raises(CheckpointError, match=r"setting\.json: cannot be read as the setting .*\. Remove it"):
        train(config)


def test_what_a_training_left_that_was_killed_at_its_end_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "dense.safetensors"
    left = [path.with_suffix(".training"), path.with_suffix(".setting.json")]
    config = load_config("digits", [f"model.checkpoint={path}"])
    for file in left:
        file.touch()
    path.write_bytes(b"weights of another's")
    with pytest.raises(ConfigError, match="exists already"):
        train(config)
    assert all(file.exists() for file in left)  # nothing shows that they belong to these weights
    path.unlink()
    save_dense(nn.Linear(2, 2), path, {})
    with pytest.raises(ConfigError, match="exists already"):
        train(config)
    assert not any(file.exists() for file in left)


@pytest.mark.parametrize("path", ["/", ".", "nothing.safetensors"])
def test_nothing_is_cleared_if_there_are_no_weights(path: str, tmp_path: Path) -> None:
    state = tmp_path / "nothing.training"
    state.touch()
    clear_finished(tmp_path / path)
    assert state.exists()


def test_a_metric_that_is_no_number_is_warned_of_once_and_the_weights_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "dense.safetensors"
    config = settle(load_config("digits", [f"model.checkpoint={path}", "train.epochs=2"]))
    dense = load_dense(config, trained=False)
    odd = dataclasses.replace(dense, task=Task(metric=lambda outputs, targets: math.nan))
    events: list[Event] = []
    assert math.isnan(train_dense(odd, config, path, watch=events.append).val_score)
    warnings = [
        event.text for event in events if isinstance(event, Stage) and event.text.startswith("warning")
    ]
    assert warnings == [
        "warning: task.metric is nan on the validation part after epoch 1, and a search needs a finite score "
        "of the trained model"
    ]
    note = read_history(path)
    assert note is not None
    assert note["val_score"] is None
