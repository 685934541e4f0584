"""Exported files, opened and timed side by side."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import autoprune
from autoprune.errors import LatencyError
from autoprune.latency import FILES, FileInput, LatencySetting, time_interleaved


def written(folder: Path, width: int, suffix: str) -> Path:
    model = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, 4, 3)).eval()
    path = folder / f"{width}.{suffix}"
    autoprune.export(model, path, format=suffix, example_inputs=torch.zeros(2, 3, 32, 32))
    return path


@pytest.mark.parametrize(("suffix", "probe"), [("onnx", "onnx"), ("pt2", "eager")])
def test_two_files_interleaved(tmp_path: Path, suffix: str, probe: str) -> None:
    setting = LatencySetting(probe, batch=4)
    timed = {}
    for width in (2, 200):
        opened = FILES[f".{suffix}"](written(tmp_path, width, suffix), setting)
        (taken,) = opened.inputs
        assert taken == FileInput(taken.name, (None, 3, 32, 32), torch.float32)
        timed[width] = opened.timed([torch.zeros(4, 3, 32, 32)])
    timings = time_interleaved(timed, baseline=200, tolerance=0.1, limit_seconds=2)
    assert timings.ratios[2].interval[1] < 0.8


@pytest.mark.gpu
def test_two_files_on_the_gpu_whose_inputs_nobody_else_holds(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    setting = LatencySetting(device="cuda", batch=4)
    timed = {
        width: FILES[".pt2"](written(tmp_path, width, "pt2"), setting).timed([torch.zeros(4, 3, 32, 32)])
        for width in (8, 512)
    }
    overwritten = [torch.full((4, 3, 32, 32), torch.nan, device="cuda") for _ in range(100)]
    timings = time_interleaved(timed, baseline=512, tolerance=0.1, limit_seconds=2)
    assert timings.ratios[8].interval[1] < 1
    assert all(tensor.isnan().all() for tensor in overwritten)


@pytest.mark.parametrize(("suffix", "probe"), [("onnx", "onnx"), ("pt2", "eager")])
def test_inputs_that_do_not_fit_are_refused_in_one_line(tmp_path: Path, suffix: str, probe: str) -> None:
    path = written(tmp_path, 2, suffix)
    opened = FILES[f".{suffix}"](path, LatencySetting(probe))
    with pytest.raises(LatencyError, match=f"{path.name}.* does not run"):
        opened.timed([torch.zeros(1, 5, 32, 32)])


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_files_that_are_none_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"broken.{suffix}"
    path.write_text("no model")
    with pytest.raises(LatencyError, match=f"{path.name}"):
        FILES[f".{suffix}"](path, LatencySetting())
