"""Write ONNX files, run them in ONNX Runtime on the CPU, and read their signature.

Inputs have the names of the model's arguments. A single output is called "output", those of a tuple
"output_0" and "output_1", and those of a dict have its keys. The batch axis is free and called "batch".

Example:
    write_onnx(model, (torch.zeros(2, 3, 32, 32),), Path("small.onnx"))
    read_signature(Path("small.onnx")).inputs     # (OnnxTensor("images", ("batch", 3, 32, 32), "float32"),)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.errors import ExportError
from autoprune.graph.capture import ExampleInputs, call, quiet_export

Runner: TypeAlias = Callable[[ExampleInputs], list[Tensor]]
"""inputs -> output tensors of the exported file, in the model's order."""


@dataclass(frozen=True)
class OnnxTensor:
    """An input or an output of an ONNX file.

    Attributes:
        name: its name in the file.
        shape: its sizes, with a name such as "batch" for a free size.
        dtype: numpy's name of its type.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str


@dataclass(frozen=True)
class OnnxSignature:
    """The version of ONNX's operators that a file needs, its inputs and its outputs."""

    opset: int
    inputs: tuple[OnnxTensor, ...]
    outputs: tuple[OnnxTensor, ...]


def export_onnx(model: nn.Module, inputs: ExampleInputs, path: Path, *, opset: int | None = None) -> Runner:
    """Write one ONNX file with its weights, and open it in ONNX Runtime on the CPU."""
    write_onnx(model, inputs, path, opset=opset)
    return run_onnx(path)


def write_onnx(
    model: nn.Module,
    inputs: ExampleInputs,
    path: Path,
    *,
    free_batch: bool = True,
    opset: int | None = None,
) -> None:
    """Write one ONNX file with its weights.

    Args:
        model: the model, in eval mode.
        inputs: example inputs, with at least 2 samples for a free batch size.
        path: the file to write.
        free_batch: whether the file takes any batch size, or only that of the inputs.
        opset: version of ONNX's operators, the exporter's default if it is None.

    Raises:
        ExportError: there is no such version, or the model cannot be converted to it.
    """
    import onnx

    if opset is not None and not 1 <= opset <= onnx.defs.onnx_opset_version():
        raise ExportError(f"opset: got {opset}, expected 1 to {onnx.defs.onnx_opset_version()}.")
    args, kwargs, shapes = call_with_free_batch(inputs)
    with quiet_export():
        # torch warns if two inputs share one batch axis, which is intended here.
        warnings.filterwarnings("ignore", message="# The axis name", category=UserWarning)
        torch.onnx.export(
            model,
            args,
            path,
            kwargs=kwargs,
            output_names=_output_names(model, inputs),
            opset_version=opset,
            dynamo=True,
            dynamic_shapes=shapes if free_batch else None,
            external_data=False,
            verbose=False,
        )
    written = read_signature(path).opset
    if opset not in (None, written):  # torch leaves the file as it is if it cannot be converted
        raise ExportError(
            f"opset: got {opset}, but the operators of this model cannot be converted to it. Use {written}."
        )


def run_onnx(path: Path) -> Runner:
    """Open an ONNX file in ONNX Runtime on the CPU, and return a function that runs it."""
    import onnxruntime  # type: ignore[import-untyped]  # the package ships no types

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(inputs: ExampleInputs) -> list[Tensor]:
        return [torch.from_numpy(output) for output in session.run(None, onnx_feed(session, inputs))]

    return run


def onnx_feed(session: Any, inputs: ExampleInputs) -> dict[str, NDArray[Any]]:
    """Return {name: array} of the tensors among the inputs, for a session of onnxruntime."""
    values = inputs.items() if isinstance(inputs, dict) else enumerate(inputs)
    tensors = {name: value for name, value in values if isinstance(value, Tensor)}
    names = tensors if isinstance(inputs, dict) else [taken.name for taken in session.get_inputs()]
    return {str(name): tensor.cpu().numpy() for name, tensor in zip(names, tensors.values(), strict=True)}


def read_signature(path: Path) -> OnnxSignature:
    """Read the version of the operators, the inputs and the outputs of an ONNX file.

    Raises:
        Exception: the file cannot be read. The reader may raise anything.
    """
    import onnx

    model = onnx.load_model(path, load_external_data=False)
    opset = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    return OnnxSignature(opset, _tensors(model.graph.input), _tensors(model.graph.output))


def call_with_free_batch(
    inputs: ExampleInputs,
) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any] | tuple[Any, ...]]:
    """Return positional arguments, keyword arguments, and dynamic shapes with a free batch axis."""
    batch = torch.export.Dim("batch")

    def free(value: object) -> dict[int, Any] | None:
        return {0: batch} if isinstance(value, Tensor) and value.ndim else None

    if isinstance(inputs, dict):
        return (), inputs, {name: free(value) for name, value in inputs.items()}
    return inputs, {}, tuple(free(value) for value in inputs)


def _tensors(values: Sequence[Any]) -> tuple[OnnxTensor, ...]:
    import onnx

    return tuple(
        OnnxTensor(
            value.name,
            tuple(
                axis.dim_param or "?" if axis.WhichOneof("value") != "dim_value" else axis.dim_value
                for axis in value.type.tensor_type.shape.dim
            ),
            str(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)),
        )
        for value in values
    )


def _output_names(model: nn.Module, inputs: ExampleInputs) -> list[str] | None:
    """Return the names of a model's outputs, or None if some are no tensors or have the name of an input."""
    leaves, _ = pytree.tree_flatten_with_path(call(model, inputs))
    names = [_name(path) for path, _ in leaves]
    taken = set(inputs) if isinstance(inputs, dict) else set()
    is_plain = all(isinstance(leaf, Tensor) for _, leaf in leaves) and not taken & set(names)
    return names if is_plain and len(set(names)) == len(names) else None


def _name(path: Sequence[Any]) -> str:
    """Return the name of a leaf: "output", "output_0" in a tuple, "logits" in a dict or a data class."""
    parts = [
        next(getattr(key, kind) for kind in ("idx", "key", "name") if hasattr(key, kind)) for key in path
    ]
    opening = [] if parts and isinstance(parts[0], str) else ["output"]
    return "_".join(map(str, [*opening, *parts]))
