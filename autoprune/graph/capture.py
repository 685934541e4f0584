"""Capture a model as a graph of ATen operators with `torch.export`, in eval or in train mode.

The model is left unchanged.

    captured = capture(model, (torch.zeros(1, 3, 32, 32),), training=False)
    captured.program.graph.nodes
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.fx import GraphModule, Node
from torch.fx import config as fx_config
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from autoprune.errors import TraceError, reason_of, suggest, summary_of
from autoprune.support.modes import draws_kept, set_training
from autoprune.support.structures import call_on
from autoprune.support.usercode import guarded

ExampleInputs = tuple[object, ...] | dict[str, object]


@dataclass(frozen=True, eq=False)
class Captured:
    """A traced graph, with the tensors that its placeholders take.

    Attributes:
        program: the exported program.
        states: {placeholder name: name of the parameter or buffer}. A shared tensor has its first name.
        constants: {placeholder name: tensor} of tensors that are neither parameter nor buffer.
    """

    program: ExportedProgram
    states: Mapping[str, str]
    constants: Mapping[str, Tensor]

    @property
    def nodes(self) -> list[Node]:
        """The nodes of the graph, in execution order."""
        return list(self.program.graph.nodes)

    def arguments(
        self, inputs: object, state: Callable[[str], Tensor], constant: Callable[[Tensor], Tensor]
    ) -> list[object]:
        """Return a value for each placeholder of the graph, in order.

        Args:
            inputs: inputs of the model, in the same structure as the example inputs.
            state: maps the name of a parameter or buffer to the tensor to use.
            constant: maps a constant tensor to the tensor to use.
        """
        given = iter(pytree.tree_leaves(inputs))
        values: list[object] = []
        for node in self.nodes:
            if node.op == "placeholder":
                if node.name in self.states:
                    values.append(state(self.states[node.name]))
                elif node.name in self.constants:
                    values.append(constant(self.constants[node.name]))
                else:
                    values.append(next(given))
        return values

    def outputs(self, results: object) -> list[object]:
        """Return the tensors among `results` that the model itself returns.

        The graph returns more: the buffers that the forward pass writes to.
        """
        specs = self.program.graph_signature.output_specs
        named = zip(specs, pytree.tree_leaves(results), strict=True)
        return [value for spec, value in named if spec.kind == OutputKind.USER_OUTPUT]


def normalise_inputs(example_inputs: object) -> ExampleInputs:
    """Return the inputs as a tuple, or as a dict of keywords, cut to batch 1 if they share a batch size."""
    if isinstance(example_inputs, Mapping):
        return {str(name): value for name, value in _first_sample(dict(example_inputs)).items()}
    values = example_inputs if isinstance(example_inputs, tuple | list) else (example_inputs,)
    return tuple(_first_sample(dict(enumerate(values))).values())


def _first_sample(values: dict[object, object]) -> dict[object, object]:
    # Tensors of different first sizes have no common batch axis, so all inputs stay as they are.
    sizes = {value.shape[0] for value in pytree.tree_leaves(values) if _has_axes(value)}
    if len(sizes) != 1 or sizes == {1}:
        return values
    first: dict[object, object] = pytree.tree_map_only(_has_axes, lambda v: v[:1].contiguous(), values)
    return first


def _has_axes(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0


def repeat_batch(inputs: ExampleInputs, times: int) -> ExampleInputs:
    """Repeat each tensor along axis 0, because BatchNorm cannot train on one sample."""
    repeated: ExampleInputs = pytree.tree_map_only(_has_axes, lambda v: torch.cat([v] * times), inputs)
    return repeated


def call(model: nn.Module, inputs: ExampleInputs, target: str = "") -> object:
    """Run the model, or its submodule `target`, on inputs that are positional (a tuple) or named (a dict)."""
    part = model.get_submodule(target)
    return part(**inputs) if isinstance(inputs, dict) else part(*inputs)


def capture(model: nn.Module, inputs: ExampleInputs, *, training: bool, target: str = "") -> Captured:
    """Trace `model` in train mode if `training`, else in eval mode.

    Args:
        model: the model.
        inputs: inputs of the model, or of its submodule `target`.
        training: whether to trace in train mode.
        target: path of the submodule to trace, or "" for the model. All names are those of the model.

    Raises:
        TraceError: if the model cannot be traced. The message names the line of its forward pass.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise TraceError(
            "model: got a ScriptModule, whose code torch.export cannot follow. Pass the nn.Module that it "
            "was compiled from."
        )
    args, kwargs = ((), inputs) if isinstance(inputs, dict) else (inputs, None)
    # With gradients enabled, export turns each torch.no_grad() region of the model into a nested graph.
    with unchanged(model), draws_kept(model), torch.no_grad():
        set_training(model, training)
        try:
            program = _export(_only(model, target), args, kwargs)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a forward pass may call sys.exit
            raise TraceError(_explain(model.get_submodule(target), error)) from error
    _inline_regions(program.graph_module)
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


def _export(model: nn.Module, args: tuple[object, ...], kwargs: dict[str, object] | None) -> ExportedProgram:
    with quiet_export(), _without_stack_traces():
        try:
            return torch.export.export(model, args, kwargs, strict=False)
        except RuntimeError:
            outputs = _outputs_of(model, args, kwargs or {})
            is_instance = dataclasses.is_dataclass(outputs) and not isinstance(outputs, type)
            if not is_instance or type(outputs) in pytree.SUPPORTED_NODES:
                raise
        # torch does not look into a dataclass before it is registered.
        torch.export.register_dataclass(type(outputs))
        return torch.export.export(model, args, kwargs, strict=False)


def _outputs_of(model: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
    """Run a model, and restore its buffers: BatchNorm in train mode updates its statistics."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        outputs: object = model(*args, **kwargs)
    finally:
        for buffer, values in before:
            buffer.copy_(values)
    return outputs


class _Only(nn.Module):
    """Holds one module under a name, and passes its calls on."""

    def __init__(self, name: str, module: nn.Module) -> None:
        super().__init__()
        self.add_module(name, module)
        self.train(module.training)

    def forward(self, *args: object, **kwargs: object) -> object:
        return next(self.children())(*args, **kwargs)


def _only(model: nn.Module, target: str) -> nn.Module:
    """Return a model that calls the submodule `target` alone. The submodule has the same path in it."""
    part = model.get_submodule(target)
    for name in reversed(target.split(".") if target else ()):
        part = _Only(name, part)
    return part


def inputs_of_part(model: nn.Module, inputs: object, target: str) -> ExampleInputs:
    """Run a model in eval mode, and return the inputs of the first call of its submodule `target`.

    Args:
        model: the whole model.
        inputs: a Tensor, a tuple of inputs, or a dict of keyword inputs of the whole model.
        target: path of the submodule.

    Raises:
        TraceError: there is no such submodule, the forward pass fails or never calls it, or a module in it is
            called without it.
    """
    paths = [path for path, _ in model.named_modules()]
    if target not in paths:
        raise TraceError(
            f'target: "{target}" is no module of {type(model).__name__}.{suggest(target, paths)}'
        )
    part = model.get_submodule(target)
    found: list[ExampleInputs] = []
    # Number of open calls of the part. A module of the part that runs while it is 0 was called from outside.
    inside = 0

    def enter(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        nonlocal inside
        inside += 1
        found.append(arguments_of(module.forward, args, kwargs))

    def leave(module: nn.Module, args: object, outputs: object) -> None:
        nonlocal inside
        inside -= 1

    def watch(module: nn.Module, args: object) -> None:
        if not inside and next(module.parameters(), None) is not None:
            path = next(path for path, each in model.named_modules() if each is module)
            raise TraceError(
                f"target: {path} is called outside of {target} too, so {target} cannot be narrowed alone. "
                "Name a module around both calls."
            )

    with unchanged(model), draws_kept(model), torch.no_grad():
        set_training(model, False)
        for module in part.modules():
            if module is not part:
                module.register_forward_pre_hook(watch)
        part.register_forward_pre_hook(enter, with_kwargs=True)
        part.register_forward_hook(leave)
        with guarded(f"{type(model).__name__}: its forward pass failed on the example inputs", TraceError):
            call_on(model, inputs)
    if not found:
        raise TraceError(f"target: the forward pass never calls {target}. Name a module that it calls.")
    return found[0]


def arguments_of(
    forward: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]
) -> ExampleInputs:
    """Return the arguments of a call as a tuple, or as a dict if some are keywords."""
    return dict(inspect.signature(forward).bind(*args, **kwargs).arguments) if kwargs else args


def _inline_regions(graph_module: GraphModule) -> None:
    """Replace the nested graph of each autocast region by its operators.

    This changes the rounding of values, but not the ties between channels.
    """
    graph = graph_module.graph
    for node in list(graph.nodes):
        if getattr(node.target, "__name__", "") != "wrap_with_autocast":
            continue
        nodes = [argument for argument in node.args if isinstance(argument, Node)]
        nested, inputs = nodes[0], nodes[1:]
        region = graph_module.get_submodule(str(nested.target))
        if not isinstance(region, GraphModule):
            raise TypeError(f"{nested.name}: {type(region).__name__} is no graph")
        placeholders = [inner for inner in region.graph.nodes if inner.op == "placeholder"]
        with graph.inserting_before(node):
            outputs = graph.graph_copy(region.graph, dict(zip(placeholders, inputs, strict=True)))
        if not isinstance(outputs, tuple | list):
            raise TypeError(f"{node.name}: an autocast region gives {type(outputs).__name__}")
        for item in list(node.users):  # each is a getitem, because a region gives a tuple
            position = item.args[1]
            value = outputs[position] if isinstance(position, int) else None
            if not isinstance(value, Node):
                raise TypeError(f"{item.name}: {position} is no output of an autocast region")
            item.replace_all_uses_with(value)
            graph.erase_node(item)
        graph.erase_node(node)
    graph.eliminate_dead_code()
    graph_module.recompile()


def first_names(model: nn.Module) -> dict[str, str]:
    """Map each name of a parameter or buffer to the first name of the same tensor."""
    first: dict[int, str] = {}
    names = {}
    for name, tensor in named_tensors(model, shared=True):
        names[name] = first.setdefault(id(tensor), name)
    return names


def named_tensors(model: nn.Module, *, shared: bool = False) -> Iterator[tuple[str, Tensor]]:
    """Iterate over parameters, then buffers, each once. If `shared`, once for each of its names."""
    yield from model.named_parameters(remove_duplicate=not shared)
    yield from model.named_buffers(remove_duplicate=not shared)


def missing_values(model: nn.Module) -> str:
    """Return advice on the first parameter or buffer that has no values, "" if all have values."""
    for name, tensor in named_tensors(model):
        if is_lazy(tensor):
            return f"{name} is lazy and has no shape yet. Run the model on one batch first."
        if tensor.is_meta:
            return f"{name} is on the meta device and has no values. Make it on the CPU."
    return ""


@contextlib.contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Restore the attributes of every module on exit: flags, stored tensors, caches."""
    # A forward pass may also fill a list or dict in place, so their contents are saved too.
    attributes = [(module, dict(module.__dict__)) for module in model.modules()]
    caches = [
        (value, value.copy())
        for _, before in attributes
        for value in before.values()
        if isinstance(value, dict | list | set)
    ]
    # The fast path of nn.MultiheadAttention is a single operator, which hides the projections from the rules.
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
        for module, before in attributes:
            module.__dict__.clear()
            module.__dict__.update(before)
        for container, content in caches:
            container.clear()
            if isinstance(container, list):
                container.extend(content)
            else:
                container.update(content)


_SILENT = logging.CRITICAL + 1
"""A level above that of all messages."""


@contextlib.contextmanager
def quiet_export() -> Iterator[None]:
    """Silence the output of torch and onnxscript during an export: graph dumps, advice and tracebacks.

    Other text that the forward pass writes to standard error is printed if the block succeeds.
    """
    levels = {
        logger: logger.level
        for logger in map(logging.getLogger, ("torch", "onnxscript"))
        if logger.level != _SILENT  # else an export in another thread restores it
    }
    loggers = [
        logger
        for name, logger in list(logging.root.manager.loggerDict.items())
        if name.partition(".")[0] in ("torch", "onnxscript")
        and isinstance(logger, logging.Logger)
        and not logger.disabled
    ]
    written = io.StringIO()
    for logger in loggers:
        logger.disabled = True
    for logger in levels:
        logger.setLevel(_SILENT)  # for loggers of modules that the export imports
    try:
        with contextlib.redirect_stderr(written), warnings.catch_warnings():
            # Export warns if forward assigns a tensor to an attribute. `unchanged` restores it.
            warnings.filterwarnings("ignore", message="The tensor attribute", category=UserWarning)
            yield
        sys.stderr.write(written.getvalue())
    finally:
        for logger in loggers:
            logger.disabled = False
        for logger, level in levels.items():
            logger.setLevel(level)


@contextlib.contextmanager
def _without_stack_traces() -> Iterator[None]:
    """Keep torch from noting the stack at each node. Nothing reads it, and it takes a sixth of the time."""
    before = fx_config.do_not_emit_stack_traces
    fx_config.do_not_emit_stack_traces = True
    try:
        yield
    finally:
        fx_config.do_not_emit_stack_traces = before


def _explain(model: nn.Module, error: BaseException) -> str:
    # The user's line is the last one in a `forward` outside torch.
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/torch/" not in frame.filename]
    where = next((f"{f.filename}:{f.lineno} ({f.line})" for f in reversed(frames) if f.name == "forward"), "")
    place = f" at {where}" if where else ""
    reason = reason_of(error) if isinstance(error, Exception) else summary_of(error)
    return (
        f"{type(model).__name__} cannot be traced{place}: {reason}. torch.export must be able "
        "to follow the forward pass: replace branches on tensor values there, or check the example inputs."
    )
