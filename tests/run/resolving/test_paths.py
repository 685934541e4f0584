"""The names and paths that a config leaves open."""

from __future__ import annotations

import os
import shlex
import sqlite3
from pathlib import Path

import optuna
import pytest

from autoprune.config import load_config
from autoprune.errors import ConfigError, StudyError
from autoprune.run import change_spec
from autoprune.run._checks.checks import check_names, check_paths, check_study_is_new
from autoprune.run._resolving.paths import (
    absolute_storage,
    check_writable,
    find_storage,
    probe_writable,
    settle,
)
from autoprune.study import create_study, file_of, study_command
from tests.engines.toy import FACTS

MINIMAL = {"model": {"name": "resnet20"}, "data": {"name": "digits"}, "budget": {"flops": "50%"}}


def test_everything_gets_a_name_under_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = settle(load_config(MINIMAL))
    assert config.search.study == "resnet20-digits-flops50"
    assert config.search.storage == f"sqlite:///{tmp_path}/runs/resnet20-digits-flops50.db"
    assert config.output.folder == f"{tmp_path}/runs/resnet20-digits-flops50"
    assert config.model.checkpoint == f"{tmp_path}/runs/resnet20-digits.safetensors"
    assert settle(config) == config


def test_another_name_for_the_study_is_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert settle(load_config("digits")).folder == tmp_path / "runs/digits"
    assert settle(load_config("digits", ["search.study=mine"])).folder == tmp_path / "runs/mine"


def test_settled_paths_do_not_depend_on_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = settle(load_config(MINIMAL, ["data.folder=images", "search.storage='sqlite:///a.db'"]))
    monkeypatch.chdir("/")
    assert settle(config) == config
    assert config.data.folder == str(tmp_path / "images")


def test_weights_of_their_own_need_no_checkpoint() -> None:
    config = settle(load_config(MINIMAL, ["model.weights=DEFAULT"]))
    assert config.model.checkpoint is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.factory=a.b:c", r'model: got name = "resnet20" and factory = "a\.b:c", expected one of'),
        ("data.loaders=a.b:c", r'data: got name = "digits" and loaders = "a\.b:c", expected one of'),
        ("model.name=m:net", r'model\.name: "m:net" names a function\. Write it as model\.factory = "m:net"'),
        ("data.name=m:make", r'data\.name: "m:make" names a function\. Write it as data\.loaders = "m:make"'),
        ("search.study=../../x", r'search\.study: got "\.\./\.\./x", expected .* Write e\.g\. "x"'),
        ("search.study=..", r'search\.study: got "\.\."'),
        ("search.study=a/b", r'search\.study: got "a/b", .* Write e\.g\. "a-b"'),
        ("search.study=''", r'search\.study: got "", expected'),
        ("search.study='" + 300 * "a" + "'", r"expected at most 200 letters"),
        ("search.storage='sqlite:///:memory:'", r"search\.storage: .* is lost when the command ends"),
        ("search.storage=':memory:'", r"search\.storage: .* is lost when the command ends"),
        ("search.storage='sqlite://'", r"search\.storage: .* is lost when the command ends"),
    ],
)
def test_names_that_cannot_be_used_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settle(load_config(MINIMAL, [override]))


def test_a_function_is_written_with_a_colon() -> None:
    for section, key, other in (("model", "factory", "data"), ("data", "loaders", "model")):
        config = {section: {key: "mymod"}, other: MINIMAL[other]}
        with pytest.raises(
            ConfigError, match=rf'{section}\.{key}: "mymod" names no .* "package\.module:func'
        ):
            settle(load_config(config))


def test_a_missing_model_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"model: got neither, expected one of model\.name or model\.factory"
    ):
        settle(load_config({"data": {"name": "digits"}}))


@pytest.mark.parametrize(
    "key", ["model.checkpoint", "data.folder", "search.space", "latency.table", "output.folder"]
)
def test_a_path_that_no_file_system_takes_is_named_by_its_key(key: str) -> None:
    with pytest.raises(ConfigError, match=f'^{key}: got "ffff.*": File name too long'):
        settle(load_config("digits", [f"{key}={300 * 'f'}"]))


@pytest.mark.parametrize("key", ["model.name", "model.factory", "data.name", "data.loaders"])
def test_an_empty_name_is_named(key: str) -> None:
    section, _, name = key.partition(".")
    config = {"model": {"name": "resnet20"}, "data": {"name": "digits"}, section: {name: ""}}
    with pytest.raises(ConfigError, match=f'^{section}.{name}: got "", expected a name'):
        settle(load_config(config))


def test_servers_are_left_as_they_are() -> None:
    assert absolute_storage("postgresql://host/db") == "postgresql://host/db"
    assert absolute_storage("sqlite:////tmp/a.db") == "sqlite:////tmp/a.db"
    assert absolute_storage("a.db") == f"sqlite:///{os.getcwd()}/a.db"


@pytest.mark.parametrize(
    ("url", "absolute", "file"),
    [
        ("sqlite:///a.db", "sqlite:///{0}/a.db", "{0}/a.db"),
        ("sqlite:///a.db?timeout=5", "sqlite:///{0}/a.db?timeout=5", "{0}/a.db"),
        ("sqlite+pysqlite:///a.db", "sqlite+pysqlite:///{0}/a.db", "{0}/a.db"),
        ("sqlite+pysqlite:///./b/../a.db", "sqlite+pysqlite:///{0}/a.db", "{0}/a.db"),
        ("journal:///a.log", "journal:///{0}/a.log", "{0}/a.log"),
        ("sqlite:///file:x?mode=memory&uri=true", "sqlite:///file:x?mode=memory&uri=true", None),
        ("sqlite:///:memory:", "sqlite:///:memory:", None),
        (":memory:", "sqlite:///:memory:", None),
        ("sqlite://", "sqlite://", None),
        ("postgresql://user:secret@host/db", "postgresql://user:secret@host/db", None),
    ],
)
def test_the_file_behind_a_storage(
    url: str, absolute: str, file: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_storage(url) == absolute.format(tmp_path)
    assert file_of(absolute_storage(url)) == (None if file is None else Path(file.format(tmp_path)))


@pytest.mark.parametrize(
    ("name", "url"), [("50%41 of it", "a.db"), ("plain", "sqlite:///file:a.db?mode=rwc&uri=true")]
)
def test_a_study_lies_in_the_file_that_is_looked_for(
    name: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder whose name a URL has to quote, too."""
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.chdir(folder)
    storage = absolute_storage(url)
    monkeypatch.chdir("/")
    create_study(storage, "alpha", config={}, identity={}, facts=FACTS)
    assert [path.name for path in folder.glob("*.db")] == ["a.db"]
    assert file_of(storage) == folder / "a.db"
    assert find_storage("alpha", storage) == storage


def test_the_storage_that_holds_the_study_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError, match=r'study "a": no storage in runs/\. Name a storage with'):
        find_storage("a")
    with pytest.raises(StudyError, match=r"in runs/, and no folder of that name with flows\. Name"):
        find_storage("a", or_folder_of="flows")
    other = absolute_storage("runs/other.db")
    create_study(other, "alpha", config={}, identity={}, facts=FACTS)
    assert find_storage("alpha") == other
    (tmp_path / "runs" / "empty.db").touch()
    with sqlite3.connect(tmp_path / "runs" / "foreign.db") as foreign:
        foreign.execute("CREATE TABLE mine (number INTEGER)")
    before = {path.name: path.read_bytes() for path in (tmp_path / "runs").glob("*.db")}
    with pytest.raises(StudyError, match=r'"alpa": no study of that name in runs/.* Did you mean "alpha"'):
        find_storage("alpa")
    with pytest.raises(StudyError, match=r'"x": no study of that name in runs/.* Studies there: alpha'):
        find_storage("x")
    with pytest.raises(
        StudyError, match=r"runs/\*\.db, and no folder of that name with a saved model\. Stud"
    ):
        find_storage("x", or_folder_of="a saved model")
    assert {path.name: path.read_bytes() for path in (tmp_path / "runs").glob("*.db")} == before
    (tmp_path / "runs" / "a.db").write_bytes(b"this is a text and no database " * 40)
    assert find_storage("a") == absolute_storage("runs/a.db")
    with pytest.raises(StudyError, match="no such file"):
        find_storage("a", "sqlite:///nowhere.db")
    with pytest.raises(StudyError, match="this is a folder"):
        find_storage("a", str(tmp_path))


@pytest.mark.parametrize("storage", ["runs/alpha.db", "runs/beta.db", "runs/alpha.db?timeout=5", "alpha.db"])
def test_a_command_names_the_storage_that_it_would_not_find(
    storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    url = absolute_storage(storage)
    create_study(url, "alpha", config={}, identity={}, facts=FACTS)
    words = shlex.split(study_command("resume", "alpha", url, "--take-over"))
    named = words[words.index("--storage") + 1] if "--storage" in words else None
    assert (named is None) == (storage == "runs/alpha.db")
    assert find_storage("alpha", named) == url
    assert study_command("resume", "alpha", url, anywhere=True).endswith(f" --storage {shlex.quote(url)}")
    monkeypatch.chdir("elsewhere")
    assert study_command("resume", "alpha", url).endswith(f" --storage {shlex.quote(url)}")


def test_checks_make_nothing_and_refuse_a_folder_as_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_paths(settle(load_config("digits")))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match=r"search\.storage: .* is a folder\. Name a file"):
        check_paths(settle(load_config("digits", [f"search.storage={tmp_path}"])))
    shared = load_config("digits", ["search.storage='sqlite:///:memory:'", "search.engine=processes"])
    check_paths(settle(shared, named=False))  # workers never see the storage


def test_resume_is_advised_only_for_a_study_that_it_accepts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = settle(load_config("digits", ["search.storage=a.db"]))
    url = str(config.search.storage)
    check_study_is_new(config)
    (tmp_path / "a.db").touch()
    check_study_is_new(config)
    study = optuna.create_study(storage=url, study_name="digits", direction="maximize")
    check_study_is_new(config)
    study.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(StudyError, match=r"has a study of that name that this version .* Choose another"):
        check_study_is_new(config)
    create_study(url, "mine", config={}, identity={}, facts=FACTS)
    with pytest.raises(StudyError, match=r"Resume it with `autoprune resume mine"):
        check_study_is_new(settle(load_config("digits", ["search.storage=a.db", "search.study=mine"])))


def test_an_unwritable_folder_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"output\.folder: .*file/out cannot be written"):
        check_writable(tmp_path / "file" / "out", "output.folder")
    with pytest.raises(
        ConfigError, match=r"output\.folder: .*file/out cannot be written \(Not a directory\)"
    ):
        probe_writable(tmp_path / "file" / "out", "output.folder")
    assert check_writable(tmp_path / "new" / "folder", "output.folder").is_dir()


def test_a_study_that_was_moved_is_looked_for_where_it_was_opened(tmp_path: Path) -> None:
    """The folder that the config names may be on another host."""
    config = settle(
        load_config("digits", ["search.storage=sqlite:////proc/nowhere/a.db", f"output.folder='{tmp_path}'"])
    )
    with pytest.raises(ConfigError, match=r"search\.storage: .*cannot be written"):
        check_paths(config)
    check_paths(config, f"sqlite:///{tmp_path}/a.db")


def test_on_another_host_neither_the_probe_nor_its_device_are_needed(tmp_path: Path) -> None:
    for override in ("latency.probe=nowhere:probe", "latency.device=cuda:77"):
        config = settle(load_config("digits", ["budget.latency=60%", "search.divisor=4", override]))
        with pytest.raises(ConfigError, match=r"latency\."):
            check_names(config)
        check_names(config, measured=True)


def test_the_file_of_the_space_may_move(tmp_path: Path) -> None:
    config = settle(load_config("digits", ["search.space=/proc/nowhere/space.toml"]))
    (tmp_path / "space.toml").write_text("low = 0.2")
    changed = change_spec(config, [f"search.space='{tmp_path}/space.toml'"])
    assert changed.space.low == 0.2


def test_a_probe_follows_no_link(tmp_path: Path) -> None:
    """A received folder may hold links with names that can be guessed."""
    (tmp_path / "mine").write_text("mine")
    (tmp_path / f".autoprune-{os.getpid()}").symlink_to(tmp_path / "mine")
    probe_writable(tmp_path, "output.folder")
    assert (tmp_path / "mine").read_text() == "mine"
    assert len(os.listdir(tmp_path)) == 2
