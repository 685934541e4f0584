"""Traces that tests share: nets of the same structure are traced once, which takes half a second.

Two hundred tests of whole runs begin with a trace of the same few nets. Tests of tracing itself share none.

    from tests.kept_traces import kept_traces  # noqa: F401  # a fixture of all tests in the module
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator, Sequence

import pytest
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune import tracing
from autoprune.graph import Plan, Prunable
from autoprune.graph.capture import named_tensors, normalise_inputs

_ROOMS = ("torch.nn.modules", "autoprune.zoo", "tests.flow.nets")
_PARTS = ("_parameters", "_buffers", "_modules", "training")
_KEPT: dict[Hashable, Prunable] = {}


@pytest.fixture(scope="module", autouse=True)
def kept_traces() -> Iterator[None]:
    """Let runs, workers in this process and flows take the traces that are kept."""
    with pytest.MonkeyPatch.context() as patched:
        for user in ("run._resolving.problem", "flow._state"):
            patched.setattr(f"autoprune.{user}.trace", trace)
        yield


def trace(
    model: nn.Module,
    example_inputs: object,
    *,
    frozen: Sequence[str] = (),
    target: str = "",
    rebuilt_from: tuple[Prunable, Plan] | None = None,
    watch: None = None,
) -> Prunable:
    """Trace a model, or take the trace of another one of the same structure."""
    structure = structure_of(model, example_inputs) if rebuilt_from is None and not target else None
    if structure is None:
        return tracing.trace(model, example_inputs, frozen=frozen, target=target, rebuilt_from=rebuilt_from)
    key = (structure, tuple(frozen))
    if key not in _KEPT:
        _KEPT[key] = tracing.trace(model, example_inputs, frozen=frozen)
    return dataclasses.replace(_KEPT[key], model=model, example_inputs=normalise_inputs(example_inputs))


def structure_of(model: nn.Module, example_inputs: object) -> Hashable | None:
    """Return all that a trace depends on: None if that is not known, as of tests' own classes."""
    found: list[Hashable] = []
    for name, module in model.named_modules(remove_duplicate=False):
        kind = type(module)
        settings = {k: value for k, value in vars(module).items() if k not in _PARTS and value != set()}
        if not kind.__module__.startswith(_ROOMS) or not are_plain(settings):
            return None
        found.append((name, kind, repr(sorted(settings.items()))))
    first: dict[int, str] = {}
    for name, tensor in named_tensors(model, shared=True):
        found.append((name, first.setdefault(id(tensor), name), layout_of(tensor)))
    leaves, form = pytree.tree_flatten(example_inputs)
    if not all(isinstance(leaf, Tensor) for leaf in leaves):
        return None
    return (*found, str(form), *map(layout_of, leaves))


def are_plain(settings: object) -> bool:
    """Return whether a value consists of numbers, texts, lists, tuples and dicts."""
    return all(isinstance(leaf, int | float | str | None) for leaf in pytree.tree_leaves(settings))


def layout_of(tensor: Tensor) -> Hashable:
    return (tuple(tensor.shape), tensor.dtype, str(tensor.device), tensor.requires_grad)
