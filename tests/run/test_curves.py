"""Error curves and sensitivity of the digits model, as numbers, files and through the command line."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from autoprune.cli import main
from autoprune.config import load_config
from autoprune.config.settings import RunConfig
from autoprune.criteria import plan_from_importance
from autoprune.data import first_batches, spread_samples
from autoprune.errors import ConfigError
from autoprune.execution import Setting
from autoprune.rebuilding import rebuild
from autoprune.reporting import Curves
from autoprune.run import Counted, Event, Stage, error_curves, sensitivity_curves
from autoprune.run._resolving.dense import load_dense
from autoprune.run._resolving.paths import settle
from autoprune.run._resolving.ranking import rank_channels
from autoprune.run._resolving.resolve import trace_run
from autoprune.training import evaluate, recalibrate
from autoprune.zoo import make_model

QUICK = (
    "data.checkpoint_saw_validation=true",
    "search.divisor=8",
    "search.sensitivity_images=60",
    "search.sensitivity_batches=1",
    "score.moment_images=40",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights of the digits model, as `autoprune train digits` would leave them."""
    folder = tmp_path_factory.mktemp("digits")
    checkpoint = folder / "runs" / "digits" / "dense.safetensors"
    checkpoint.parent.mkdir(parents=True)
    torch.manual_seed(0)
    save_file(make_model("digits_resnet", 10, 1).state_dict(), checkpoint)
    return folder


@pytest.fixture
def config(folder: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.chdir(folder)
    return load_config("digits", [*QUICK, "score=calibrate"])


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_error_curves_are_monotone_and_the_files_hold_them(config: RunConfig, tmp_path: Path) -> None:
    outputs = [tmp_path / "new" / name for name in ("errors.csv", "errors.svg")]
    found = error_curves(config, outputs)
    assert found.files == tuple(outputs)
    assert outputs[1].read_bytes().startswith(b"<?xml")
    rows = read(outputs[0])
    assert len(rows) == sum(len(curve.widths) for curve in found.curves)
    for curve in found.curves:
        assert curve.widths == tuple(range(1, len(curve.widths) + 1))
        assert list(curve.values) == sorted(curve.values, reverse=True)
        assert curve.values[-1] == 0
        mine = [row for row in rows if row["group"] == curve.name]
        np.testing.assert_allclose([float(row["error"]) for row in mine], curve.values, rtol=1e-5)
        assert [int(row["width"]) for row in mine] == list(curve.widths)
        assert float(mine[-1]["keep_ratio"]) == 1
    assert found.notes == {}


def test_sensitivity_is_the_score_of_the_cut_and_recalibrated_model(config: RunConfig) -> None:
    found = sensitivity_curves(config)
    spec = settle(config)
    dense = load_dense(spec)
    traced = trace_run(dense, spec, Setting())
    ranked = rank_channels(traced, "l1")
    images = spread_samples(dense.data.val, 60)
    calibration = first_batches(dense.data.train, 1, seed=0)

    def score(cut: dict[str, int]) -> float:
        model = rebuild(traced.prunable, plan_from_importance(traced.prunable, cut, ranked))
        recalibrate(model, calibration, 1, Setting())
        return evaluate(model, images, dense.task, Setting())

    assert found.baseline == score({})
    (curve,) = (each for each in found.curves if each.name == "layer2.0.conv1")
    assert curve.widths == (8, 16, 24, 32)
    assert curve.values[-1] == found.baseline
    assert curve.ratios == (0.25, 0.5, 0.75, 1.0)
    assert curve.values[0] == score({"layer2.0.conv1": 8})
    assert curve.values[1] == score({"layer2.0.conv1": 16})


def test_time_that_runs_out_leaves_the_first_ratios(config: RunConfig) -> None:
    said: list[Event] = []
    found = sensitivity_curves(config, limit_seconds=1e-9, watch=said.append)
    assert any(isinstance(each, Stage) and "stopped after 1e-09 s, 1 of" in each.text for each in said)
    assert [each.done for each in said if isinstance(each, Counted) and each.what == "sensitivity"] == [1]
    assert all(curve.ratios == (1.0,) and curve.values == (found.baseline,) for curve in found.curves)


def test_tied_groups_are_cut_together(config: RunConfig, tmp_path: Path) -> None:
    space = tmp_path / "space.toml"
    space.write_text('divisor = 8\n[[tie]]\nname = "all"\ngroups = ["*"]\n')
    found = sensitivity_curves(load_config("digits", [*QUICK, f"search.space={space}"]), limit_seconds=60)
    assert [curve.name for curve in found.curves] == ["all"]
    assert all(width % 8 == 0 for width in found.curves[0].widths)


@pytest.mark.parametrize("run", [error_curves, sensitivity_curves])
def test_outputs_that_would_be_lost_or_cannot_be_are_refused_before_anything_is_measured(
    run: Callable[..., Curves], config: RunConfig, tmp_path: Path
) -> None:
    said: list[Event] = []
    with pytest.raises(ConfigError, match=r"expected a name that ends in \.png, \.svg, \.pdf, \.csv\."):
        run(config, ["a.toml"], watch=said.append)
    space = tmp_path / "space.csv"
    space.write_text("divisor = 4\n")
    named = load_config("digits", [*QUICK, f"search.space={space}"])
    with pytest.raises(ConfigError, match=r"--output: .*space\.csv is the file of search\.space"):
        run(named, [space], watch=said.append)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ConfigError, match=r"--output: .*folder\.csv cannot be written \(it is a folder"):
        run(config, [tmp_path / "folder.csv"], watch=said.append)
    assert said == []


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan, 86_401])
def test_a_limit_that_is_none_is_refused(seconds: float, config: RunConfig) -> None:
    with pytest.raises(ConfigError, match=r"--limit: got .*, expected more than 0 seconds"):
        sensitivity_curves(config, limit_seconds=seconds)


@pytest.mark.parametrize(
    ("option", "heading"),
    [("--errors", "Output error by channels kept"), ("--sensitivity", "Sensitivity: accuracy")],
)
def test_the_command_line_shows_a_table_and_writes_the_files(
    option: str,
    heading: str,
    config: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    picture, table = tmp_path / "a.png", tmp_path / "a.csv"
    sets = [word for override in QUICK for word in ("--set", override)]
    words = ["inspect", "digits", *sets, option, "-o", str(picture), "-o", str(table), "--limit", "5"]
    monkeypatch.setattr(sys, "argv", ["autoprune", *words])
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as left:
        main()
    out = capsys.readouterr().out
    assert left.value.code in (None, 0), out
    assert heading in out
    assert all(f"{ratio}%" in out for ratio in (75, 50, 25, 12))
    assert f"Wrote {picture}, {table}." in out
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert {row["group"] for row in read(table)} == {
        line.split()[0] for line in out.splitlines() if line.strip().startswith(("conv1", "layer"))
    }
