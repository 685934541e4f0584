"""Open exported models in the runtime that reads them, ready to be timed.

FILES has one row for each kind of file.

Example:
    opened = FILES[".onnx"](Path("small.onnx"), LatencySetting("onnx"))
    opened.inputs                                # (FileInput("images", (None, 3, 32, 32), torch.float32),)
    opened.timed([torch.zeros(1, 3, 32, 32)])()  # milliseconds of one forward pass
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass
from torch.utils import _pytree as pytree

from autoprune.errors import LatencyError, reason_of
from autoprune.graph.capture import quiet_export
from autoprune.latency.probes.eager import eager_timed, first_run
from autoprune.latency.probes.onnx_runtime import open_session, session_timed
from autoprune.latency.setting import LatencySetting
from autoprune.latency.timing import Timed, check_device, placed_copy

_ONNX_TYPES: Mapping[str, torch.dtype] = {
    "tensor(float)": torch.float32,
    "tensor(float16)": torch.float16,
    "tensor(double)": torch.float64,
    "tensor(int64)": torch.int64,
    "tensor(int32)": torch.int32,
    "tensor(int8)": torch.int8,
    "tensor(uint8)": torch.uint8,
    "tensor(bool)": torch.bool,
}


@dataclass(frozen=True)
class FileInput:
    """An input that a file takes.

    Attributes:
        name: its name in the file.
        shape: its sizes, with None for a size that is free.
        dtype: its type.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class OpenedFile:
    """A model from disk, ready for inputs.

    Attributes:
        inputs: the tensors that it takes.
        timed: takes these tensors and returns a function that times one forward pass.
    """

    inputs: tuple[FileInput, ...]
    timed: Callable[[Sequence[Tensor]], Timed]


Opener: TypeAlias = Callable[[Path, LatencySetting], OpenedFile]
"""(path, setting) -> the opened model on the setting's device and threads. It raises LatencyError."""


def open_onnx(path: Path, setting: LatencySetting) -> OpenedFile:
    """Open an ONNX file in ONNX Runtime.

    Raises:
        LatencyError: ONNX Runtime cannot open it, or an input is not a tensor of numbers.
    """
    session = open_session(path, setting)
    inputs = []
    for taken in session.get_inputs():
        if taken.type not in _ONNX_TYPES:
            raise LatencyError(f"{path}: input {taken.name}: got {taken.type}, expected a tensor of numbers.")
        shape = tuple(size if isinstance(size, int) else None for size in taken.shape)
        inputs.append(FileInput(taken.name, shape, _ONNX_TYPES[taken.type]))
    return OpenedFile(
        tuple(inputs),
        lambda tensors: session_timed(session, tuple(tensors), setting, str(path)),
    )


def open_pt2(path: Path, setting: LatencySetting) -> OpenedFile:
    """Open an archive of `torch.export`.

    Raises:
        LatencyError: the archive cannot be loaded.
        ConfigError: torch does not see the setting's device.
    """
    check_device(setting)
    try:
        with quiet_export():
            program = torch.export.load(path)
            if setting.on_cuda:
                program = move_to_device_pass(program, setting.device)
            module = program.module()
            inputs, arguments = _signature(program)
    except Exception as error:  # the loader may raise anything for a broken archive
        raise LatencyError(f"{path}: torch.export cannot load it: {reason_of(error)}") from error
    return OpenedFile(
        inputs,
        lambda tensors: _module_timed(module, *arguments(tensors), setting, str(path)),
    )


def open_model(model: nn.Module, images: Tensor, setting: LatencySetting, label: str) -> OpenedFile:
    """Make a copy of a model with one input ready to be timed as a file would be, with a free batch size.

    Raises:
        ConfigError: torch does not see the setting's device.
    """
    placed = placed_copy(model, setting)
    taken = FileInput("images", (None, *images.shape[1:]), images.dtype)
    return OpenedFile((taken,), lambda tensors: _module_timed(placed, tuple(tensors), {}, setting, label))


FILES: dict[str, Opener] = {".onnx": open_onnx, ".pt2": open_pt2}
"""{suffix: function that opens such files}."""


def _signature(
    program: ExportedProgram,
) -> tuple[tuple[FileInput, ...], Callable[[Sequence[Tensor]], tuple[tuple[object, ...], dict[str, object]]]]:
    """Return the tensors that a program takes, and a function from them to its arguments."""
    values = {node.name: node.meta.get("val") for node in program.graph.find_nodes(op="placeholder")}
    names = program.graph_signature.user_inputs
    leaves = [values.get(name) if isinstance(name, str) else name for name in names]
    inputs = tuple(
        FileInput(
            str(name), tuple(size if isinstance(size, int) else None for size in leaf.shape), leaf.dtype
        )
        for name, leaf in zip(names, leaves, strict=True)
        if isinstance(leaf, Tensor)
    )
    spec = program.call_spec.in_spec
    if spec is None:
        raise ValueError("the archive has no input structure. Export the model again.")

    def arguments(tensors: Sequence[Tensor]) -> tuple[tuple[object, ...], dict[str, object]]:
        given = iter(tensors)
        filled = [next(given) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        args, kwargs = pytree.tree_unflatten(filled, spec)
        return tuple(args), dict(kwargs)

    return inputs, arguments


def _module_timed(
    module: nn.Module,
    args: tuple[object, ...],
    kwargs: dict[str, object],
    setting: LatencySetting,
    label: str,
) -> Timed:
    args, kwargs = pytree.tree_map_only(Tensor, lambda tensor: tensor.to(setting.device), (args, kwargs))

    def run() -> object:
        return module(*args, **kwargs)

    first_run(run, label, setting)
    return eager_timed(run, setting)
