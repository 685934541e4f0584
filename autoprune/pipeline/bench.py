"""Times exported models side by side.

Before: files of `export`, or anyone's; after: the user.

    bench(["dense.onnx", "small.onnx"], threads=2).rows[1].ratio
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from autoprune.errors import ConfigError
from autoprune.latency import LatencySetting, Measurement, Ratio, time_in_turn
from autoprune.latency.files import FILES, FileInput, Opened, open_model
from autoprune.latency.placing import cpu_threads
from autoprune.pipeline.export import load_saved, noted_architecture


@dataclass(frozen=True)
class BenchRow:
    """One model's time.

    Attributes:
        path: the file or folder.
        measurement: its own time.
        ratio: its time over that of the first; None for the first.
    """

    path: Path
    measurement: Measurement
    ratio: Ratio | None


@dataclass(frozen=True)
class Bench:
    """Models timed in turn, in the order that they were given."""

    rows: tuple[BenchRow, ...]
    batch: int
    threads: int
    device: str


def bench(
    models: Sequence[str | os.PathLike[str]],
    *,
    batch: int | None = None,
    threads: int = 1,
    device: str = "cpu",
    shapes: Iterable[str] = (),
    tolerance: float = 0.02,
    limit_seconds: float = 10.0,
) -> Bench:
    """Time exported models in turn, on random inputs.

    Args:
        models: .onnx files (run in ONNX Runtime), .pt2 files (in PyTorch) and folders that `finetune` saved;
            the first is what the others are related to.
        batch: samples a forward pass; by default what the files fix, or 1.
        threads: CPU threads.
        device: "cpu", "cuda" or "cuda:1".
        shapes: of inputs with free sizes besides the batch: "1x3x224x224", or "name=1x3x224x224" where a file
            has several inputs.
        tolerance: half-width of the ratios' intervals (of the time itself, for a single model) at which to
            stop, as a share.
        limit_seconds: when to stop otherwise.

    Raises:
        ConfigError: an argument or a shape that cannot be used.
        CheckpointError: a folder whose model cannot be made again.
        LatencyError: a file that cannot be opened or run.
    """
    if not models:
        raise ConfigError("bench: no model is given; name .onnx or .pt2 files, or saved folders.")
    if not 0 < tolerance < 1:
        raise ConfigError(f"--tolerance: got {tolerance}, expected a share between 0 and 1, such as 0.02.")
    given = _read_shapes(shapes)
    paths = [Path(model) for model in models]
    setting = LatencySetting(device=device, threads=threads, batch=1 if batch is None else batch)
    with cpu_threads(threads):
        opened = [_open(path, setting) for path in paths]
        size = batch or _fixed_batch(opened) or 1
        timed = {
            number: model.timed([_random(*sizes) for sizes in _sizes(path, model, size, given)])
            for number, (path, model) in enumerate(zip(paths, opened, strict=True))
        }
        timings = time_in_turn(
            timed,
            baseline=0 if len(models) > 1 else None,
            tolerance=tolerance,
            limit_seconds=limit_seconds,
        )
    rows = [
        BenchRow(path, timings.measurements[number], timings.ratios.get(number))
        for number, path in enumerate(paths)
    ]
    return Bench(tuple(rows), size, threads, device)


def _open(path: Path, setting: LatencySetting) -> Opened:
    if path.is_dir():
        example = torch.zeros(1, *noted_architecture(path)["input_shape"])
        return open_model(load_saved(path), (example,), setting, str(path))
    if path.suffix not in FILES:
        raise ConfigError(
            f"{path}: cannot be timed; expected a file ending in {' or '.join(FILES)}, or a folder that "
            "`autoprune finetune` saved."
        )
    if not path.is_file():
        raise ConfigError(f"{path}: no such file.")
    return FILES[path.suffix](path, setting)


def _fixed_batch(opened: Iterable[Opened]) -> int | None:
    """Return the batch of the first file that takes no other."""
    for model in opened:
        if model.inputs and model.inputs[0].shape and model.inputs[0].shape[0]:
            return model.inputs[0].shape[0]
    return None


def _read_shapes(texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Read "name=1x3x224x224"; the name is empty where none is given."""
    shapes = {}
    for text in texts:
        name, _, sizes = text.rpartition("=")
        if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", sizes):
            raise ConfigError(
                f'--shape: got "{text}", expected sizes such as "1x3x224x224", or "name=1x3x224x224".'
            )
        shapes[name] = tuple(int(size) for size in sizes.split("x"))
    return shapes


def _sizes(
    path: Path, model: Opened, batch: int, given: Mapping[str, tuple[int, ...]]
) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """Return sizes and type of each input of a file."""
    return [(_size(path, model, taken, batch, given), taken.dtype) for taken in model.inputs]


def _size(
    path: Path, model: Opened, taken: FileInput, batch: int, given: Mapping[str, tuple[int, ...]]
) -> tuple[int, ...]:
    shown = "x".join("?" if size is None else str(size) for size in taken.shape)
    asked = given.get(taken.name) or (given.get("") if len(model.inputs) == 1 else None)
    if asked is None:
        if None in taken.shape[1:]:
            raise ConfigError(
                f'{path}: input {taken.name} is {shown}; say its sizes with --shape "{taken.name}=...".'
            )
        asked = tuple(batch if size is None else size for size in taken.shape)
        if taken is model.inputs[0] and asked and asked[0] != batch:
            raise ConfigError(f"{path}: its batch is fixed at {asked[0]}, {batch} asked; export it anew.")
    fits = len(asked) == len(taken.shape) and all(
        size in (None, wanted) for size, wanted in zip(taken.shape, asked, strict=True)
    )
    if not fits:
        wanted = "x".join(map(str, asked))
        raise ConfigError(f"{path}: input {taken.name} is {shown}, which --shape {wanted} does not fit.")
    return asked


def _random(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Draw floating values; zeros are an index into anything, and ones a mask that hides nothing."""
    if dtype.is_floating_point:
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    return torch.ones(shape, dtype=dtype) if dtype == torch.bool else torch.zeros(shape, dtype=dtype)
