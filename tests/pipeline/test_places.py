"""The names and paths that a config leaves open."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autoprune.config import load_config
from autoprune.errors import ConfigError, StudyError
from autoprune.pipeline.places import absolute_storage, check_writable, find_storage, settle

MINIMAL = {"model": {"name": "resnet20"}, "data": {"name": "digits"}, "budget": {"flops": "50%"}}


def test_everything_gets_a_name_under_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = settle(load_config(MINIMAL))
    assert config.search.study == "resnet20-digits-flops50"
    assert config.search.storage == f"sqlite:///{tmp_path}/runs/resnet20-digits-flops50.db"
    assert config.output.folder == f"{tmp_path}/runs/resnet20-digits-flops50"
    assert config.model.checkpoint == f"{tmp_path}/runs/resnet20-digits.safetensors"
    assert settle(config) == config


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
    ],
)
def test_two_names_for_one_thing_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settle(load_config(MINIMAL, [override]))


def test_a_missing_model_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"model: got neither, expected one of model\.name or model\.factory"
    ):
        settle(load_config({"data": {"name": "digits"}}))


def test_servers_are_left_as_they_are() -> None:
    assert absolute_storage("postgresql://host/db") == "postgresql://host/db"
    assert absolute_storage("sqlite:////tmp/a.db") == "sqlite:////tmp/a.db"
    assert absolute_storage("a.db") == f"sqlite:///{os.getcwd()}/a.db"


def test_the_only_storage_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError, match=r'study "a": no storage in runs/; name one with --storage'):
        find_storage("a")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "other.db").touch()
    assert find_storage("a") == f"sqlite:///{tmp_path}/runs/other.db"
    (tmp_path / "runs" / "more.db").touch()
    with pytest.raises(StudyError, match=r"several storages in runs/ \(more\.db, other\.db\)"):
        find_storage("a")
    (tmp_path / "runs" / "a.db").touch()
    assert find_storage("a") == f"sqlite:///{tmp_path}/runs/a.db"
    with pytest.raises(StudyError, match="no such file"):
        find_storage("a", "sqlite:///nowhere.db")


def test_an_unwritable_folder_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"output\.folder: .*file/out cannot be written"):
        check_writable(tmp_path / "file" / "out", "output.folder")
    assert check_writable(tmp_path / "new" / "folder", "output.folder").is_dir()
