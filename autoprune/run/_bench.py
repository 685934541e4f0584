"""Times exported models side by side.

Example:
    bench(["dense.onnx", "small.onnx"], threads=2).rows[1].ratio
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from rich.table import Table
from torch import Tensor

from autoprune.config.settings import MOST, MOST_SECONDS
from autoprune.errors import ConfigError, LatencyError, reason_of, shortened, shown_value, suggest
from autoprune.graph.attached import example_of, target_of
from autoprune.latency import (
    FILES,
    FileInput,
    LatencySetting,
    Measurement,
    OpenedFile,
    Ratio,
    Timed,
    open_model,
    time_interleaved,
)
from autoprune.latency.timing import check_threads
from autoprune.progress import GIVEN_WATCH, Watch, watching
from autoprune.run._checks.trust import require_trusted_file
from autoprune.run._results.saved_model import load_saved, noted_architecture
from autoprune.run._results.tables import bench_table
from autoprune.support.events import Stage
from autoprune.support.files import require_regular
from autoprune.support.notebook import Shown
from autoprune.support.structures import tensors_in
from autoprune.support.threads import cpu_threads
from autoprune.support.usercode import entry

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""{name of an input: its sizes}. The name is "" if an option does not give one."""

_MOST_VALUES = 2**40
_OF_FOLDERS = "PyTorch"
_RUNTIMES = {".onnx": "ONNX Runtime", ".pt2": "PyTorch"}
"""{suffix of a file: its runtime}, for each of FILES."""


@dataclass(frozen=True)
class BenchRow:
    """The time of one model.

    Attributes:
        path: the file or folder.
        runtime: the runtime, "ONNX Runtime" or "PyTorch".
        measurement: the time of a forward pass.
        ratio: the time relative to the first model, or None for the first model.
    """

    path: Path
    runtime: str
    measurement: Measurement
    ratio: Ratio | None


@dataclass(frozen=True, repr=False)
class Bench(Shown):
    """The times of models in the given order, with the batch, threads and device they were measured at."""

    rows: tuple[BenchRow, ...]
    batch: int
    threads: int
    device: str

    def _headline(self) -> str:
        times = ", ".join(f"{row.path} {row.measurement.median_ms:.3g} ms" for row in self.rows)
        return f"batch {self.batch} on {self.device}, {self.threads} threads: {times}"

    def _tables(self) -> list[Table]:
        return [bench_table(self)]


@entry(watch=GIVEN_WATCH)
def bench(
    models: Sequence[str | os.PathLike[str]],
    *,
    batch: int | None = None,
    threads: int = 1,
    device: str = "cpu",
    shapes: Iterable[str] = (),
    tolerance: float = 0.02,
    limit_seconds: float = 10.0,
    trust: bool = False,
    watch: Watch = True,
) -> Bench:
    """Time exported models side by side, on random inputs.

    The forward passes of the models are interleaved, so that changes in the load of the machine affect all of
    them alike.

    Args:
        models: .onnx files, which run in ONNX Runtime, and .pt2 files or folders that `finetune` saved, which
            run in PyTorch. Ratios refer to the first one.
        batch: samples per forward pass, the same for all models. By default the batch of `shapes` or of the
            files, or else 1.
        threads: CPU threads, at most as many as this process has cores.
        device: "cpu", "cuda" or "cuda:1".
        shapes: the shapes of inputs that have free sizes besides the batch, as "1x3x224x224", or as
            "name=1x3x224x224" for each such input if a file has several inputs.
        tolerance: relative half-width of the intervals of the ratios at which the timing stops. For a single
            model it refers to the interval of its time.
        limit_seconds: time limit of the timing, in seconds.
        trust: whether code in these files may run: pickled objects in .pt2 files, and architectures of saved
            folders that no config of yours named here.
        watch: called with events that report the progress. True shows them if there is a terminal or a
            notebook, and None or False shows nothing.

    Returns:
        One row per model.

    Raises:
        ConfigError: an argument or a shape cannot be used, or a .pt2 file is not trusted.
        CheckpointError: the model of a folder cannot be rebuilt.
        LatencyError: a file cannot be opened or run.

    Example:
        found = autoprune.bench(["dense.onnx", "small.onnx"], threads=1)
        found.rows[1].ratio.ratio  # below 1 if the second model is faster
    """
    if not models:
        raise ConfigError("bench: no model is given. Name .onnx or .pt2 files, or saved folders.")
    _check_numbers(batch, tolerance, limit_seconds)
    given, paths = _read_shapes(shapes), [Path(model) for model in models]
    with _in_options():
        setting = LatencySetting(device=device, threads=threads, batch=1 if batch is None else batch)
        check_threads(setting)
    with watching(watch) as show, cpu_threads(threads), _in_options():
        show(Stage(f"opening {', '.join(map(str, paths))}"))
        opened = [_open(path, setting, trust=trust) for path in paths]
        _check_names(opened, given)
        size = _settle_batch(opened, batch, given)
        timed = [
            model.timed([_random(*sizes) for sizes in _sizes(path, model, size, given)])
            for path, model in zip(paths, opened, strict=True)
        ]
        # Without a bar, which would be drawn again and again while the models are timed.
        show(Stage(f"timing them for about {limit_seconds:g} s at most"))
        rows = _rows(paths, timed, tolerance, limit_seconds)
    return Bench(rows, size, threads, device)


def _rows(
    paths: Sequence[Path], timed: Sequence[Timed], tolerance: float, limit_seconds: float
) -> tuple[BenchRow, ...]:
    """Time models side by side."""
    timings = time_interleaved(
        dict(enumerate(timed)),
        baseline=0 if len(timed) > 1 else None,
        tolerance=tolerance,
        limit_seconds=limit_seconds,
    )
    return tuple(
        BenchRow(path, _runtime(path), timings.measurements[number], timings.ratios.get(number))
        for number, path in enumerate(paths)
    )


def _check_numbers(batch: int | None, tolerance: float, limit_seconds: float) -> None:
    if not 0 < tolerance < 1:
        raise ConfigError(f"--tolerance: got {tolerance}, expected a share between 0 and 1, such as 0.02.")
    if not 0 < limit_seconds <= MOST_SECONDS:
        raise ConfigError(
            f"--limit: got {limit_seconds}, expected more than 0 seconds and at most {MOST_SECONDS:,}, such "
            "as 10."
        )
    if batch is not None and not 1 <= batch <= MOST:
        raise ConfigError(f"--batch: got {shown_value(batch)}, expected an integer >= 1 and <= {MOST:,}.")


def _open(path: Path, setting: LatencySetting, *, trust: bool) -> OpenedFile:
    if path.is_dir():
        small, shape = load_saved(path, trust=trust), noted_architecture(path).input_shape
        part = small.get_submodule(target_of(small))
        knows = part is not small or not shape
        images = next(tensors_in(example_of(small)), None) if knows else torch.zeros(1, *shape)
        if images is None:
            raise ConfigError(
                f"{path}: its recipe has no example inputs. Export the model and time the file."
            )
        return open_model(part, images, setting, str(path))
    if path.suffix not in FILES:
        raise ConfigError(
            f"{path}: cannot be timed. Expected a file ending in {' or '.join(FILES)}, or a folder that "
            "`autoprune finetune` saved."
        )
    try:
        require_regular(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file.") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be timed ({reason_of(error)}).") from None
    require_trusted_file(path, trust=trust)
    return FILES[path.suffix](path, setting)


def _runtime(path: Path) -> str:
    return _RUNTIMES.get(path.suffix, _OF_FOLDERS)


@contextlib.contextmanager
def _in_options() -> Iterator[None]:
    """Replace the config's keys in the errors of a runtime by the options of the command line."""
    try:
        yield
    except (ConfigError, LatencyError) as error:
        text = re.sub(r"\blatency\.(device|threads|batch)\b", r"--\1", str(error))
        raise type(error)(text.replace('device = "cpu"', "--device cpu")) from error


def _read_shapes(texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Parse texts such as "name=1x3x224x224" or "1x3x224x224"."""
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, written = text.rpartition("=")
        shown = shortened(text, 100)
        if not re.fullmatch(r"[1-9][0-9]{0,6}(x[1-9][0-9]{0,6}){0,9}", written):
            raise ConfigError(
                f'--shape: got "{shown}", expected sizes such as "1x3x224x224", or "name=1x3x224x224".'
            )
        sizes = tuple(int(size) for size in written.split("x"))
        if math.prod(sizes) > _MOST_VALUES:
            raise ConfigError(f"--shape {shown}: {math.prod(sizes):,} values are more than memory holds.")
        if name in shapes:
            raise ConfigError(f"--shape {shown}: sizes of that input are given twice. Leave one out.")
        shapes[name] = sizes
    return shapes


def _check_names(opened: Iterable[OpenedFile], given: Shapes) -> None:
    """Check that each given shape belongs to an input of a model."""
    models = list(opened)
    names = list(dict.fromkeys(taken.name for model in models for taken in model.inputs))
    for name, sizes in given.items():
        if not name and all(len(model.inputs) > 1 for model in models):
            raise ConfigError(
                f"--shape {_x(sizes)}: every model has several inputs. Name one of {', '.join(names)}, as in "
                f'--shape "{names[0]}={_x(sizes)}".'
            )
        if name and name not in names:
            hint = suggest(name, names) or f" Inputs: {', '.join(names)}."
            raise ConfigError(f'--shape {name}={_x(sizes)}: no model has an input "{name}".{hint}')


def _settle_batch(opened: Iterable[OpenedFile], batch: int | None, given: Shapes) -> int:
    """Return the batch of --batch, of the first --shape, or of the first file with a fixed one, or else 1."""
    shaped = [sizes[0] for sizes in given.values()]
    fixed = [size for model in opened for taken in model.inputs[:1] for size in taken.shape[:1]]
    return next((size for size in (batch, *shaped, *fixed) if size is not None), 1)


def _sizes(
    path: Path, model: OpenedFile, batch: int, given: Shapes
) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """Return the sizes and the type of each input of a file.

    Raises:
        ConfigError: a size is missing or does not fit, or the batch differs from that of the other models.
    """
    found = []
    for taken in model.inputs:
        asked = given.get(taken.name)
        if len(model.inputs) > 1:  # their first axis need not be the batch
            sizes = _size(path, taken, asked, None)
        else:
            sizes = _size(path, taken, asked or given.get(""), batch)
        found.append((sizes, taken.dtype))
    first = found[0][0]
    if first and first[0] != batch:
        raise ConfigError(
            f"{path}: its batch is {first[0]}, expected {batch}. All models run at the batch of --batch, of "
            "--shape or of the first file that fixes one. Export it again, or leave it out."
        )
    return found


def _size(path: Path, taken: FileInput, asked: tuple[int, ...] | None, batch: int | None) -> tuple[int, ...]:
    """Return the sizes of an input: the given ones, or its own with the batch filled in if that is free."""
    shown = "x".join("?" if size is None else str(size) for size in taken.shape)
    if asked is None:
        sizes = tuple(batch if size is None and axis == 0 else size for axis, size in enumerate(taken.shape))
        known = tuple(size for size in sizes if size is not None)
        if len(known) < len(sizes):
            raise ConfigError(
                f'{path}: input {taken.name} is {shown}. Give its sizes with --shape "{taken.name}=...".'
            )
        return known
    fits = len(asked) == len(taken.shape) and all(
        size in (None, wanted) for size, wanted in zip(taken.shape, asked, strict=True)
    )
    if not fits:
        raise ConfigError(f"{path}: input {taken.name} is {shown}, which --shape {_x(asked)} does not fit.")
    return asked


def _x(sizes: Sequence[int]) -> str:
    """Format sizes as the option accepts them: "1x3x224x224"."""
    return "x".join(map(str, sizes))


def _random(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return random floats, or else zeros for integers and ones for booleans.

    Zeros are valid indices into anything, and a mask of ones hides nothing.
    """
    if dtype.is_floating_point:
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    return torch.ones(shape, dtype=dtype) if dtype == torch.bool else torch.zeros(shape, dtype=dtype)
