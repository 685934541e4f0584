from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import CheckpointError, ConfigError, LatencyError
from autoprune.exporting import export, save_pruned
from autoprune.graph.plan import Plan
from autoprune.latency import FILES, LatencySetting
from autoprune.run._bench import _RUNTIMES
from autoprune.run._bench import bench as bench_files
from autoprune.support.events import Event, Stage
from autoprune.support.threads import usable_cores
from autoprune.zoo import make_model
from tests.latency.nets import TWO_INPUTS, TwoInputs

IMAGES = torch.zeros(1, 3, 16, 16)

bench = functools.partial(bench_files, trust=True)
"""The .pt2 files here are the tests' own."""


class Resizable(nn.Module):
    """Takes images of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).mean((2, 3))  # type: ignore[no-any-return]  # nn.Module calls give Any


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hold a net of 4 channels and one of 256, as both kinds of files, and files that are special."""
    folder = tmp_path_factory.mktemp("models")
    for name, width in (("small", 4), ("dense", 256)):
        for format in FILES:
            net = nn.Sequential(nn.Conv2d(3, width, 3), nn.Conv2d(width, 3, 3)).eval()
            export(net, folder / f"{name}{format}", format[1:], IMAGES)
    export(TwoInputs(), folder / "two.onnx", "onnx", TWO_INPUTS)
    export(TwoInputs(), folder / "two.pt2", "pt2", {**TWO_INPUTS, "doubled": True})
    for name, batch in (("four", 4), ("eight", 8)):
        program = torch.export.export(nn.Conv2d(3, 4, 3), (torch.zeros(batch, 3, 16, 16),))
        torch.export.save(program, folder / f"{name}.pt2")
    sizes = {
        0: torch.export.Dim("batch"),
        2: torch.export.Dim("rows", min=4),
        3: torch.export.Dim("columns", min=4),
    }
    program = torch.export.export(Resizable(), (torch.zeros(2, 3, 16, 16),), dynamic_shapes=(sizes,))
    torch.export.save(program, folder / "sizes.pt2")
    return folder


@pytest.mark.parametrize("suffix", FILES)
def test_the_smaller_model_is_faster_than_the_first(folder: Path, suffix: str) -> None:
    found = bench(
        [folder / f"dense{suffix}", folder / f"small{suffix}"], batch=8, tolerance=0.2, limit_seconds=2
    )
    dense, small = found.rows
    assert (dense.path, dense.ratio) == (folder / f"dense{suffix}", None)
    assert small.ratio is not None
    # A sixtieth of the MACs: not even a noisy machine makes it as slow.
    assert small.ratio.interval[0] <= small.ratio.ratio < 0.9
    assert small.measurement.median_ms < dense.measurement.median_ms
    assert (found.batch, found.threads, found.device) == (8, 1, "cpu")


def test_files_of_two_runtimes_with_several_inputs_side_by_side(folder: Path) -> None:
    threads = torch.get_num_threads()
    models = [folder / "two.onnx", folder / "two.pt2"]
    with pytest.raises(
        ConfigError, match=r'two\.onnx: input images is \?x3x8x8\. Give its sizes with --shape "i'
    ):
        bench(models)
    shapes = ["images=1x3x8x8", "kinds=1"]
    found = bench(models, shapes=shapes, threads=usable_cores(), tolerance=0.9, limit_seconds=1)
    assert [row.measurement.median_ms > 0 for row in found.rows] == [True, True]
    assert found.batch == 1
    assert torch.get_num_threads() == threads


def test_one_model_alone_has_no_ratio(folder: Path) -> None:
    events: list[Event] = []
    model = folder / "small.onnx"
    (row,) = bench([model], tolerance=0.9, limit_seconds=1, watch=events.append).rows
    assert row.ratio is None
    assert events == [Stage(f"opening {model}"), Stage("timing them for about 1 s at most")]


def test_a_batch_that_a_file_fixes_is_taken_by_all(folder: Path) -> None:
    found = bench([folder / "small.onnx", folder / "four.pt2"], tolerance=0.9, limit_seconds=1)
    assert found.batch == 4


def test_files_that_fix_other_batches_than_one_another_are_refused(folder: Path) -> None:
    message = r"four\.pt2: its batch is 4, expected 8\. All models run at the batch of"
    with pytest.raises(ConfigError, match=message):
        bench([folder / "eight.pt2", folder / "small.onnx", folder / "four.pt2"])


def test_the_batch_of_a_shape_is_that_of_every_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[int, ...]] = []

    def noted(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        drawn.append(shape)
        return torch.zeros(shape, dtype=dtype)

    monkeypatch.setattr(sys.modules[bench_files.__module__], "_random", noted)
    models = [folder / "sizes.pt2", folder / "small.onnx"]
    assert bench_input(models[0]) == "images" != bench_input(models[1])
    found = bench(models, shapes=["images=8x3x20x24"], tolerance=0.9, limit_seconds=1)
    assert (found.batch, drawn) == (8, [(8, 3, 20, 24), (8, 3, 16, 16)])
    with pytest.raises(ConfigError, match=r"small\.onnx: its batch is 8, expected 2"):
        bench(models[1:], batch=2, shapes=["8x3x16x16"])
    with pytest.raises(ConfigError, match=r"four\.pt2: input \w+ is 4x3x16x16, which --shape 8x3x16x16 does"):
        bench([folder / "four.pt2", models[1]], shapes=["8x3x16x16"])


def bench_input(path: Path) -> str:
    """Return the name of a file's one input."""
    (taken,) = FILES[path.suffix](path, LatencySetting()).inputs
    return taken.name


def test_each_model_names_the_runtime_that_ran_it(folder: Path) -> None:
    assert _RUNTIMES.keys() == FILES.keys()
    found = bench([folder / "small.onnx", folder / "small.pt2"], tolerance=0.9, limit_seconds=1)
    assert [row.runtime for row in found.rows] == ["ONNX Runtime", "PyTorch"]


def test_sizes_that_a_file_leaves_free_are_requested(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"sizes\.pt2: input images is \?x3x\?x\?\. Give its sizes with"):
        bench([folder / "sizes.pt2"])
    for shape in ("2x3x20x24", "images=2x3x20x24"):
        assert len(bench([folder / "sizes.pt2"], shapes=[shape], tolerance=0.9, limit_seconds=1).rows) == 1


def test_a_saved_folder_is_timed_as_it_is(tmp_path: Path) -> None:
    model = make_model("digits_resnet", 10, 1).eval()
    extra = {"architecture": {"name": "digits_resnet", "classes": 10, "input_shape": [1, 8, 8]}}
    save_pruned(model, Plan({}), tmp_path / "best", extra=extra)
    found = bench([tmp_path / "best"], batch=3, tolerance=0.9, limit_seconds=1)
    assert found.rows[0].measurement.median_ms > 0


def test_a_folder_without_a_known_architecture_is_named(tmp_path: Path) -> None:
    save_pruned(nn.Conv2d(3, 4, 3), Plan({"conv": np.array([0])}), tmp_path)
    with pytest.raises(CheckpointError, match="its recipe does not name the dense architecture"):
        bench([tmp_path])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("missing.onnx", {}, r"missing\.onnx: no such file"),
        ("net.pth", {}, r"net\.pth: cannot be timed\. Expected a file ending in \.onnx or \.pt2, or a f"),
        ("four.pt2", {"batch": 8}, r"four\.pt2: its batch is 4, expected 8\. .* Export it again"),
        ("small.onnx", {"shapes": ["1xx3"]}, r'--shape: got "1xx3", expected sizes such as "1x3x224x224"'),
        ("small.onnx", {"shapes": ["1x4x16x16"]}, r"is \?x3x16x16, which --shape 1x4x16x16 does not fit"),
        ("small.pt2", {"shapes": ["3x16x16"]}, r"is \?x3x16x16, which --shape 3x16x16 does not fit"),
        ("small.pt2", {"tolerance": 2.0}, r"--tolerance: got 2\.0, expected a share between 0 and 1"),
        ("small.onnx", {"shapes": ["imges=1x3x16x16"]}, r"--shape imges=1x3x16x16: no model has an input"),
        ("two.onnx", {"shapes": ["1x4"]}, r"--shape 1x4: every model has several inputs\. Name one of \w+, "),
        ("small.onnx", {"shapes": ["1x3", "1x4"]}, r"--shape 1x4: sizes of that input are given twice"),
        ("small.pt2", {"device": "cuda:77"}, r'^--device: got "cuda:77"'),
        ("small.pt2", {"device": "tpu"}, r'^--device: "tpu" is no device'),
        ("small.pt2", {"threads": 0}, r"^--threads: got 0, expected an integer >= 1"),
        ("small.pt2", {"threads": usable_cores() + 1}, r"^--threads: got \d+, expected at most \d+, the CPU"),
        ("small.pt2", {"limit_seconds": 0.0}, r"^--limit: got 0\.0, expected more than 0 seconds"),
        ("small.pt2", {"limit_seconds": math.nan}, r"^--limit: got nan, expected more than 0 seconds"),
    ],
)
def test_mistakes_are_named(folder: Path, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        bench([folder / name], **options)


@pytest.mark.parametrize(
    ("suffix", "message"),
    [
        (".onnx", r"bad\.onnx: ONNX Runtime cannot open it"),
        (".pt2", r"bad\.pt2: torch\.export cannot load it"),
    ],
)
def test_files_that_are_broken_are_named(tmp_path: Path, suffix: str, message: str) -> None:
    (tmp_path / f"bad{suffix}").write_text("no model")
    with pytest.raises(LatencyError, match=message):
        bench([tmp_path / f"bad{suffix}"])


def test_nothing_to_time() -> None:
    with pytest.raises(ConfigError, match="no model is given"):
        bench([])


@pytest.mark.gpu
@pytest.mark.parametrize("open_file", FILES.values())
def test_files_run_on_cuda(folder: Path, open_file: Callable[..., object]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    suffix = next(name for name, opener in FILES.items() if opener is open_file)
    (row,) = bench([folder / f"small{suffix}"], device="cuda", tolerance=0.9, limit_seconds=1).rows
    assert row.measurement.median_ms > 0


@pytest.mark.parametrize("suffix", sorted(FILES))
def test_what_is_no_regular_file_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"net{suffix}"
    path.symlink_to("/dev/zero")
    with pytest.raises(
        ConfigError, match=rf"net{suffix}: cannot be timed \(.*it is a device, expected a regular"
    ):
        bench([path])
