"""Own the capture: a model traced by `torch.export` to ATen operators, in eval and in train mode.

First stage of tracing; `propagate` walks what it returns. The model itself is left as it was.

    captured = capture(model, (torch.zeros(1, 3, 32, 32),), training=False)
    captured.program.graph.nodes
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node

from autoprune.errors import TraceError

ExampleInputs = tuple[object, ...] | dict[str, object]


@dataclass(frozen=True, eq=False)
class Captured:
    """A traced graph and what its placeholders stand for.

    Attributes:
        program: the exported program.
        states: {placeholder name: name of the parameter or buffer}, shared tensors under their first name.
        constants: {placeholder name: tensor} of tensors that are neither parameter nor buffer.
    """

    program: ExportedProgram
    states: Mapping[str, str]
    constants: Mapping[str, Tensor]

    @property
    def nodes(self) -> list[Node]:
        """The nodes of the graph in order of execution."""
        return list(self.program.graph.nodes)


def normalise_inputs(example_inputs: object) -> ExampleInputs:
    """Return the inputs as a tuple or a dict of keywords, at batch 1 where they share a batch."""
    if isinstance(example_inputs, Mapping):
        return {str(name): value for name, value in _first_sample(dict(example_inputs)).items()}
    values = example_inputs if isinstance(example_inputs, tuple | list) else (example_inputs,)
    return tuple(_first_sample(dict(enumerate(values))).values())


def _first_sample(values: dict[object, object]) -> dict[object, object]:
    sizes = {value.shape[0] for value in values.values() if isinstance(value, Tensor) and value.ndim}
    if len(sizes) != 1 or sizes == {1}:
        return values
    return {k: v[:1].contiguous() if isinstance(v, Tensor) and v.ndim else v for k, v in values.items()}


def repeat_batch(inputs: ExampleInputs, times: int) -> ExampleInputs:
    """Return the inputs with each tensor repeated along axis 0: BatchNorm cannot train on one sample."""

    def repeat(value: object) -> object:
        return torch.cat([value] * times) if isinstance(value, Tensor) and value.ndim else value

    if isinstance(inputs, dict):
        return {name: repeat(value) for name, value in inputs.items()}
    return tuple(repeat(value) for value in inputs)


def call(model: nn.Module, inputs: ExampleInputs) -> object:
    """Run the model on the inputs, by position or by keyword."""
    return model(**inputs) if isinstance(inputs, dict) else model(*inputs)


def capture(model: nn.Module, inputs: ExampleInputs, *, training: bool) -> Captured:
    """Trace `model` in one mode.

    Raises:
        TraceError: the model cannot be traced; the message names the line of the model.
    """
    args, kwargs = ((), inputs) if isinstance(inputs, dict) else (inputs, None)
    with unchanged(model), torch.random.fork_rng():
        _set_training(model, training)
        try:
            program = torch.export.export(model, args, kwargs, strict=False)
        except Exception as error:
            raise TraceError(_explain(model, error)) from error
    names = first_names(model)
    signature = program.graph_signature
    states = {
        placeholder: names.get(name, name)
        for placeholder, name in {**signature.inputs_to_parameters, **signature.inputs_to_buffers}.items()
    }
    lifted = signature.inputs_to_lifted_tensor_constants
    constants = {
        p: value for p, name in lifted.items() if isinstance(value := program.constants[name], Tensor)
    }
    return Captured(program, states, constants)


def first_names(model: nn.Module) -> dict[str, str]:
    """Map every name of a parameter or buffer to the first name of the same tensor."""
    first: dict[int, str] = {}
    names = {}
    for name, tensor in named_tensors(model, shared=True):
        names[name] = first.setdefault(id(tensor), name)
    return names


def named_tensors(model: nn.Module, *, shared: bool = False) -> Iterator[tuple[str, Tensor]]:
    """Iterate over parameters, then buffers; a shared tensor comes under each of its names if `shared`."""
    yield from model.named_parameters(remove_duplicate=not shared)
    yield from model.named_buffers(remove_duplicate=not shared)


@contextlib.contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Give every module its training flag back, whatever happens inside."""
    modes = [(module, module.training) for module in model.modules()]
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
        for module, training in modes:
            module.training = training


def _set_training(model: nn.Module, training: bool) -> None:
    # Flags are set one by one: a model may override train() with something that does more.
    for module in model.modules():
        module.training = training


def _explain(model: nn.Module, error: Exception) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/torch/" not in frame.filename]
    where = next((f"{f.filename}:{f.lineno} ({f.line})" for f in reversed(frames) if f.name == "forward"), "")
    cause = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    place = f" at {where}" if where else ""
    return (
        f"{type(model).__name__} cannot be traced{place}: {cause.strip()}. torch.export must be able "
        "to follow the forward pass: replace branches on tensor values there, or check the example inputs."
    )
