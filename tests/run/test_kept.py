"""A verb never overwrites a file that a study needs, nor anything but a regular file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from autoprune.config import load_config
from autoprune.errors import CheckpointError, ConfigError, ExportError
from autoprune.exporting import export as export_model
from autoprune.exporting import read_recipe, save_pruned
from autoprune.graph.plan import Plan
from autoprune.run import export_saved, settle
from autoprune.run._resolving.paths import protected_files, require_unprotected
from autoprune.run._resolving.spec import RunSpec
from autoprune.support.atomic import replacing
from autoprune.zoo import make_model


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunSpec:
    """Of a study whose files lie in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("study.db", "study.db-wal", "dense.safetensors", "space.toml", "table.json"):
        Path(name).write_text(name)
    files = ("search.storage=study.db", "search.space=space.toml", "latency.table=table.json")
    return settle(load_config("digits", [*files, "model.checkpoint=dense.safetensors"]))


KEPT = ("study.db", "study.db-wal", "study.db-journal", "dense.safetensors", "space.toml", "table.json")


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("spell", [str, lambda name: f"./x/../{name}", os.path.abspath])
def test_files_of_a_study_are_kept(config: RunSpec, name: str, spell: Callable[[str], str]) -> None:
    Path("x").mkdir()
    with pytest.raises(ConfigError, match=r"^--output: .* is the .*\. Name another file\.$"):
        require_unprotected(spell(name), "--output", protected_files("study.db", config))


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_to_them_are_known(config: RunSpec, link: Callable[[str, str], None]) -> None:
    link("study.db", "picture.png")
    with pytest.raises(ConfigError, match=r"picture\.png is the storage of the study"):
        require_unprotected("picture.png", "--output", protected_files("study.db", config))


def test_other_files_are_free(config: RunSpec) -> None:
    Path("old.png").touch()
    for name in ("new.png", "old.png", "folder/new.png"):
        require_unprotected(name, "--output", protected_files("study.db", config))
    assert protected_files("postgresql://host/db", RunSpec()) == {}


def special(kind: str, path: Path) -> None:
    if kind == "a folder":
        path.mkdir()
    elif kind == "a named pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/null")


@pytest.mark.parametrize("kind", ["a folder", "a named pipe", "a device"])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "out.onnx"
    special(kind, path)
    before = os.lstat(path)
    with pytest.raises(ConfigError, match=rf"^--output: .*it is {kind}, expected a regular file"):
        require_unprotected(path, "--output", {})
    with pytest.raises(OSError, match=f"it is {kind}, expected a regular file"), replacing(path):
        pass
    with pytest.raises(ExportError, match=f"it is {kind}, expected|is a folder. Name a file"):
        export_model(nn.ReLU(), path, "pt2", torch.zeros(1, 2))
    after = os.lstat(path)
    assert (after.st_mode, after.st_ino) == (before.st_mode, before.st_ino)
    assert os.listdir(tmp_path) == ["out.onnx"]


@pytest.mark.parametrize("name", ["model.safetensors", "recipe.json"])
def test_an_export_keeps_the_model_that_it_is_of(tmp_path: Path, name: str) -> None:
    noted = {"name": "digits_resnet", "classes": 10, "input_shape": [1, 8, 8]}
    save_pruned(make_model("digits_resnet", 10, 1).eval(), Plan({}), tmp_path, extra={"architecture": noted})
    before = (tmp_path / name).read_bytes()
    with pytest.raises(ConfigError, match=r"is the model to export\. Name another file"):
        export_saved(tmp_path, "pt2", output=tmp_path / name)
    assert (tmp_path / name).read_bytes() == before


def test_a_folder_of_pipes_is_no_saved_model(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    os.mkfifo(tmp_path / "recipe.json")
    with pytest.raises(CheckpointError, match="it is a named pipe, expected a regular file"):
        export_saved(tmp_path, "pt2", output=tmp_path / "net.pt2")


@pytest.mark.parametrize("name", ["run.toml", "study.db", "dense.safetensors", "notes", "small.pt2"])
def test_an_export_replaces_files_of_its_own_format_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(ExportError, match=rf"{name}: exists already and is not a \.onnx file\. Name another"):
        export_model(nn.ReLU(), tmp_path / name, "onnx", torch.zeros(1, 2))
    assert (tmp_path / name).read_text() == "mine"
    assert os.listdir(tmp_path) == [name]


def test_a_pruned_model_takes_the_place_of_no_dense_one(tmp_path: Path) -> None:
    model = make_model("digits_resnet", 10, 1)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(ExportError, match=r"model\.safetensors: exists already and is not a pruned model"):
        save_pruned(model, Plan({}), tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_weights_that_a_killed_save_left_are_replaced(tmp_path: Path) -> None:
    save_pruned(nn.ReLU(), Plan({}), tmp_path)
    (tmp_path / "recipe.json").unlink()
    save_pruned(nn.Linear(2, 2), Plan({}), tmp_path)
    assert read_recipe(tmp_path).tensors["weight"].shape == (2, 2)
