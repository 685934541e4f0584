"""Export models for runtimes, run the file there, and compare its outputs with the model's.

Example:
    report = export(small, "small.onnx", example_inputs=torch.zeros(1, 3, 32, 32))
    report.max_difference      # 2.4e-07
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.errors import ExportError, a_kind, reason_of, summary_of
from autoprune.exporting._onnx import Runner, call_with_free_batch, export_onnx, read_signature
from autoprune.exporting._saved_model import save_pruned
from autoprune.graph.attached import example_of, plan_of, target_of
from autoprune.graph.capture import (
    ExampleInputs,
    call,
    missing_values,
    normalise_inputs,
    repeat_batch,
    unchanged,
)
from autoprune.support.atomic import replacing
from autoprune.support.modes import set_training
from autoprune.support.rows import Row, find_row
from autoprune.support.usercode import entry, guarded

FOLDER = "safetensors"
"""Name of the format that is a folder with weights and a recipe instead of a file."""

Exporter: TypeAlias = Callable[[nn.Module, ExampleInputs, Path], Runner]
"""(model in eval mode, inputs at batch 2, path) -> Runner of the written file, which takes any batch size."""


@dataclass(frozen=True)
class ExporterSpec(Row):
    """A row of EXPORTERS.

    Attributes:
        write: writes the file, and returns a function that runs it.
        suffix: suffix of the file with its dot. By default it is the name of the row or of the function.
        has_opset: whether `write` takes a version of ONNX's operators, as `opset`.
    """

    write: Exporter
    suffix: str = ""
    has_opset: bool = False


CHECKED_BATCHES = (1, 3)
"""Batch sizes at which the outputs are compared, both other than that of the export."""

TOLERANCES: Mapping[torch.dtype, float] = {torch.float64: 1e-6, torch.float16: 1e-2, torch.bfloat16: 1e-1}
"""Largest difference over max(1, largest output): 1e-4 for float32, since runtimes add in another order."""


@dataclass(frozen=True)
class ExportReport:
    """The result of an export.

    Attributes:
        path: the written file.
        format: a name in EXPORTERS.
        max_difference: largest absolute difference between the file's outputs and the model's.
        part: path of the submodule that the file holds, or "" for the whole model.
        opset: version of ONNX's operators in the file, or None for other formats.
    """

    path: Path
    format: str
    max_difference: float
    opset: int | None = None
    part: str = ""


@entry(ExportError, small=nn.Module, path=(str, PathLike), format=str)
def export(
    small: nn.Module,
    path: str | os.PathLike[str],
    format: str = "onnx",
    example_inputs: object = None,
    *,
    tolerance: float | None = None,
    opset: int | None = None,
) -> ExportReport:
    """Write a model for a runtime, with a free batch size, and compare the file's outputs with the model's.

    Args:
        small: the model, which is exported in eval mode. It is not changed.
        path: the file to write. It appears, or replaces an older one, only after the comparison has passed.
            An older file is replaced only if it has the suffix of the format.
        format: a row of EXPORTERS, an exporter of your own as "package.module:function", or "safetensors", a
            folder like that of `save_pruned`, for models from `rebuild` or `load_pruned`.
        example_inputs: a Tensor, a tuple of inputs or a dict of keyword inputs, with the batch on axis 0.
            Models from `rebuild` or `load_pruned` do not need them. If such a model was traced in a part
            (`target`), that part is exported. Give inputs of the whole model to export the whole.
        tolerance: largest difference over max(1, largest output): 1e-4 by default in float32.
        opset: version of ONNX's operators for the format "onnx", by default that of torch's exporter.

    Raises:
        ExportError: the format is unknown or has no such opset, there are no example inputs, the path is a
            file of another kind, the model cannot be exported, the file cannot be written, or outputs differ
            by more than the tolerance.
    """
    path = Path(path)
    if format == FOLDER:
        return _export_folder(small, path)
    spec = find_exporter(format)
    if opset is not None:
        spec = with_opset(spec, opset, format)
    _check_path(path, spec.suffix)
    missing = missing_values(small)
    if missing:
        raise ExportError(f"{path}: {missing}")
    with guarded(f"{path}: the example inputs cannot be moved to the model's device", ExportError):
        inputs = _on_device(_example(small, example_inputs), small)
    whole, part = small, "" if example_inputs is not None else target_of(small)
    small = whole.get_submodule(part)
    try:
        with (
            _advising(whole, part),
            replacing(path, suffix=spec.suffix) as partial,
            unchanged(whole),
            torch.random.fork_rng(devices=[]),
            torch.no_grad(),
        ):
            set_training(small, False)
            with guarded(f"{path}: the model's forward pass failed on the example inputs", ExportError):
                call(small, inputs)
            run = _write(small, repeat_batch(inputs, 2), partial, path, spec)
            difference = _compare(small, run, inputs, path, tolerance)
    except OSError as error:
        raise ExportError(f"{path}: cannot be written ({reason_of(error)}). Choose another path.") from error
    written = read_signature(path).opset if spec.has_opset else None
    return ExportReport(path, format, difference, written, part)


def _check_path(path: Path, suffix: str) -> None:
    """Refuse a folder, and a file of another kind that the export would replace."""
    if not path.name or path.is_dir():
        raise ExportError(f"{path}: is a folder. Name a file in it.")
    if path.suffix != suffix and path.is_file():
        raise ExportError(f"{path}: exists already and is not a {suffix} file. Name another file.")


@contextlib.contextmanager
def _advising(model: nn.Module, part: str) -> Iterator[None]:
    """Add to the error of a whole model that a part of it can be exported."""
    try:
        yield
    except ExportError as error:
        target = target_of(model)
        if not target or part:
            raise
        advice = f"Leave example_inputs out to export its part {target}, which was made smaller."
        raise ExportError(f"{str(error).rstrip('.')}. {advice}") from error


def _export_folder(small: nn.Module, path: Path) -> ExportReport:
    """Write a model from `rebuild` or `load_pruned` as a folder, with its plan.

    Raises:
        ExportError: the model has no plan, or the folder cannot be written.
    """
    plan = plan_of(small)
    if plan is None:
        raise ExportError(
            f"{path}: a folder of safetensors needs the plan, and this model has none from rebuild or "
            "load_pruned. Write it with autoprune.save_pruned(small, plan, folder)."
        )
    save_pruned(small, plan, path)
    return ExportReport(path, FOLDER, 0.0)


def export_pt2(model: nn.Module, inputs: ExampleInputs, path: Path) -> Runner:
    """Write an archive of `torch.export` and load it back.

    It is made in memory first, because torch's own file writer ends the process if the disk is full.
    """
    args, kwargs, shapes = call_with_free_batch(inputs)
    program = torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=False)
    archive = io.BytesIO()
    torch.export.save(program, archive)
    path.write_bytes(archive.getbuffer())
    loaded = torch.export.load(path).module()
    return lambda inputs: _tensors(call(loaded, inputs))


EXPORTERS: dict[str, ExporterSpec] = {
    "onnx": ExporterSpec(
        export_onnx, has_opset=True, about="one ONNX file, which runs in onnxruntime and elsewhere"
    ),
    "pt2": ExporterSpec(export_pt2, about="torch.export's archive, for torch.export.load"),
}
"""{name: exporter}."""


def find_exporter(format: str, where: str = "format") -> ExporterSpec:
    """Return a row of EXPORTERS, or the user's own from "package.module:function", with its suffix.

    Raises:
        ExportError: there is no such row. The message suggests the nearest name.
        ConfigError: there is no such function.
    """
    spec = find_row(format, EXPORTERS, where, ExporterSpec, ExportError)
    return replace(spec, suffix=spec.suffix or f".{format.rpartition(':')[2].rpartition('.')[2]}")


def with_opset(spec: ExporterSpec, opset: int, format: str) -> ExporterSpec:
    """Return an exporter that writes a version of ONNX's operators.

    Raises:
        ExportError: its files have no such version.
    """
    if not spec.has_opset:
        raise ExportError(f'opset: got {opset}, but the format "{format}" has none. Use the format "onnx".')
    return replace(spec, write=partial(cast(Callable[..., Runner], spec.write), opset=opset))


def _example(model: nn.Module, given: object) -> ExampleInputs:
    if given is not None:
        return normalise_inputs(given)
    noted = example_of(model)
    if noted is None:
        raise ExportError(
            f"{type(model).__name__}: export needs example_inputs, such as torch.zeros(1, 3, 224, 224). "
            "Only models from rebuild and load_pruned know theirs."
        )
    return noted


def _on_device(inputs: ExampleInputs, model: nn.Module) -> ExampleInputs:
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    moved: ExampleInputs = pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), inputs)
    return moved


def _write(model: nn.Module, inputs: ExampleInputs, part: Path, path: Path, spec: ExporterSpec) -> Runner:
    try:
        run: object = spec.write(model, inputs, part)
        if not callable(run):
            raise TypeError(f"it gave {a_kind(run)}, expected a function that runs the file")
        return run
    except (OSError, ExportError, KeyboardInterrupt):
        raise
    except BaseException as error:  # exporters and the model's code may raise anything, even SystemExit
        raise ExportError(
            f"{path}: {type(model).__name__} cannot be exported to {spec.suffix}: {summary_of(error)}"
        ) from error


def _compare(
    model: nn.Module, run: Runner, inputs: ExampleInputs, path: Path, tolerance: float | None
) -> float:
    """Run file and model on random inputs of two batch sizes, and return the largest absolute difference."""
    largest = 0.0
    generator = torch.Generator().manual_seed(0)
    for size in CHECKED_BATCHES:
        with guarded(f"{path}: the model's forward pass failed at batch {size}", ExportError):
            batch: ExampleInputs = pytree.tree_map_only(
                Tensor, lambda tensor: _randomised(tensor, generator), repeat_batch(inputs, size)
            )
            expected = _tensors(call(model, batch))
        try:
            got = run(batch)
        except Exception as error:  # runtimes may raise anything
            raise ExportError(f"{path}: does not run at batch {size}: {reason_of(error)}") from error
        if [tensor.shape for tensor in got] != [tensor.shape for tensor in expected]:
            shapes = [[list(tensor.shape) for tensor in tensors] for tensors in (got, expected)]
            raise ExportError(
                f"{path}: got outputs of shapes {shapes[0]} at batch {size}, expected the model's "
                f"{shapes[1]}. The file was not written."
            )
        for one, other in zip(got, expected, strict=True):
            largest = max(largest, _difference(one, other, path, tolerance))
    return largest


def _difference(got: Tensor, expected: Tensor, path: Path, tolerance: float | None) -> float:
    allowed = TOLERANCES.get(expected.dtype, 1e-4) if tolerance is None else tolerance
    got, expected = got.double().cpu(), expected.double().cpu()
    if expected.numel() == 0:
        return 0.0
    difference = float((got - expected).abs().max())
    limit = allowed * max(1.0, float(expected.abs().max()))
    if not difference <= limit:  # also if it is NaN
        raise ExportError(
            f"{path}: its outputs differ from the model's by {difference:.3g}, more than {limit:.3g}. "
            "The file was not written."
        )
    return difference


def _randomised(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Return random values for a floating tensor. Integers, such as indices and masks, are kept."""
    if not tensor.is_floating_point():
        return tensor
    return torch.randn(tensor.shape, generator=generator).to(tensor)


def _tensors(outputs: object) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]
