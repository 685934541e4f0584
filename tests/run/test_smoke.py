"""Trial runs: they end in an export, leave nothing behind, and find what a long run would fail on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from autoprune.config import load_config
from autoprune.errors import ConfigError
from autoprune.run import search, smoke, train
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._smoke import _inside
from autoprune.support.toml import write_toml
from tests.test_cli import run_here

CONFIG: dict[str, Any] = {
    "model": {"factory": f"{__name__}:tiny", "checkpoint": "dense.safetensors"},
    "data": {"name": "digits"},
    "budget": {"flops": "50%"},
    "search": {"trials": 300, "setting": "float32 contiguous"},
    "train": {"when_missing": True},
}


def tiny(classes: int) -> nn.Module:
    first = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU()]
    second = [nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU()]
    return nn.Sequential(*first, *second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


def left_over(folder: Path) -> list[str]:
    return [each.name for each in folder.rglob("*") if "autoprune-smoke" in str(each) or each.suffix == ".db"]


@pytest.mark.slow
def test_it_runs_to_the_export_and_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(write_toml(CONFIG), "utf-8")
    words = ("search", "run.toml", "--profile", "smoke", "--set", "search.sampler=random")
    code, out, err = run_here(*words, "--if-exists", "overwrite", cwd=tmp_path)
    assert code == 0, err
    assert "training the dense model: 1 epochs" in out
    assert "race of 2 trials" in out
    assert "--if-exists is given, but a trial run keeps no study" in out
    assert "a trial run, whose figures mean nothing" in out
    *_, sentence, following = out.splitlines()
    assert "Its figures mean nothing: it tried 2 sub-models on about 256 images of each part" in sentence
    assert following == "Next: autoprune search run.toml --set search.sampler=random"
    assert not left_over(tmp_path)
    assert not (tmp_path / "dense.safetensors").exists()


def test_a_fault_ends_it_and_leaves_nothing(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / "dense.safetensors")
    with pytest.raises(ConfigError, match=r"task\.metric"):
        smoke(load_config({**CONFIG, "task": {"metric": "acuracy"}}, profile="smoke"))
    assert not left_over(tmp_path)


def test_it_logs_to_no_tracker(tmp_path: Path) -> None:
    spec = RunSpec.of(load_config({**CONFIG, "report": {"trackers": ["mlflow"]}}, profile="smoke"))
    assert _inside(spec, tmp_path).report.trackers == ()


@pytest.mark.parametrize(
    ("verb", "new_head"),
    [
        (train, False),
        (train, True),
        (partial(search, watch=None), False),
        pytest.param(partial(search, watch=None), True, marks=pytest.mark.slow),
    ],
)
def test_a_real_run_under_its_profile_trains_no_checkpoint(
    verb: Callable[..., Any], new_head: bool, tmp_path: Path
) -> None:
    model: dict[str, Any] = {"factory": f"{__name__}:tiny", "checkpoint": "dense.safetensors"}
    if new_head:
        save_file(tiny(5).state_dict(), tmp_path / "dense.safetensors")
        model |= {"new_head": True}
    config = {**CONFIG, "model": model, "search": {"profile": "smoke", "setting": "float32 contiguous"}}
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConfigError, match=r'search.profile: "smoke" is a trial run, which trains no check'):
        verb(config=config)
    assert sorted(tmp_path.iterdir()) == before


def test_a_search_from_a_study_takes_no_profile(tmp_path: Path) -> None:
    code, _, err = run_here("search", "--from", "s", "--profile", "smoke", cwd=tmp_path)
    assert code == 2
    assert "has the settings of that one. Use --set" in err
