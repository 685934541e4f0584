"""Own repairs: what may make a module narrowable whose code computes sizes from numbers of its own.

The probe names a module that a narrowed model fails in. `tracing` tries what is proposed here on every module
of that class and keeps the repair with which the narrowed model gets furthest; nothing is believed untried.

    for repair in repairs(prunable, "blocks.0.attn"): ...

Two kinds of code are met. `x.reshape(b, n, heads, self.head_dim)` needs its attribute to follow the width;
`x.reshape(b, n, c)`, with c taken from the input's shape, needs the inner width to equal the input's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

from torch import nn
from torch.fx import Node

from autoprune.graph import Prunable
from autoprune.graph.context import Value
from autoprune.graph.followers import Follower
from autoprune.graph.labels import LabelVector
from autoprune.graph.propagate import layer_of, operator_name

_RESHAPES = {"view", "reshape", "_unsafe_view", "flatten", "unflatten", "expand", "repeat", "split", "chunk"}
_MOST_ATTRIBUTES = 4
"""More attributes of equal value than these are no longer told apart by trying."""


@dataclass(frozen=True, eq=False)
class Repair:
    """Ties and followers to be tried together.

    Attributes:
        ties: pairs of label vectors of one length, to be tied position by position.
        followers: numbers of modules that are to follow an axis.
    """

    ties: tuple[tuple[LabelVector, LabelVector], ...] = ()
    followers: tuple[Follower, ...] = ()


@dataclass(frozen=True, eq=False)
class _Instance:
    """A module with the axes that its own code reshapes.

    Attributes:
        path: of the module.
        reshaped: labels of every axis that enters or leaves a reshape.
        left: labels of every axis that leaves one and can be narrowed, by size.
        entering: labels of every axis that enters the module.
    """

    path: str
    module: nn.Module
    reshaped: tuple[LabelVector, ...]
    left: Mapping[int, LabelVector]
    entering: tuple[LabelVector, ...]


def repairs(prunable: Prunable, path: str) -> Iterator[Repair]:
    """Propose repairs of all modules of the class of the module at `path`, those that tie least first."""
    model = prunable.model
    cls = type(model.get_submodule(path))
    instances = [
        _instance(prunable, name, module) for name, module in model.named_modules() if type(module) is cls
    ]
    lead = next((each for each in instances if each.path == path), None)
    if lead is None:
        return
    attributes = [_followers(instances, names) for names in _attribute_sets(lead)]
    ties = tuple(pair for each in instances for pair in _links(each))
    yield from (Repair(followers=followers) for followers in attributes)
    if ties:
        yield Repair(ties)
        yield from (Repair(ties, followers) for followers in attributes)


def _instance(prunable: Prunable, path: str, module: nn.Module) -> _Instance:
    own = path or "model"
    nodes = prunable.captured.nodes
    reshapes = [n for n in nodes if layer_of(n) == own and operator_name(n) in _RESHAPES]
    left = list(_axes(prunable, reshapes))
    narrowable = [vector for vector in left if _is_narrowable(prunable, vector)]
    inside = [n for n in nodes if n.op == "call_function" and _lies_in(layer_of(n), path)]
    before = {b for n in inside for b in n.all_input_nodes if not _lies_in(layer_of(b), path)}
    return _Instance(
        path,
        module,
        (*_axes(prunable, (b for n in reshapes for b in n.all_input_nodes)), *left),
        {len(vector): vector for vector in reversed(narrowable)},
        tuple(_axes(prunable, (b for b in before if b.op == "call_function"))),
    )


def _lies_in(layer: str, path: str) -> bool:
    return not path or layer == path or layer.startswith(f"{path}.")


def _axes(prunable: Prunable, nodes: Iterable[Node]) -> Iterator[LabelVector]:
    for node in nodes:
        value = prunable.values.get(node.name, [])
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, Value):
                yield from (vector for vector in part.labels if vector is not None)


def _is_narrowable(prunable: Prunable, vector: LabelVector) -> bool:
    return any(prunable.groups[owner].frozen is None for owner in prunable.grouping.owners(vector))


def _attribute_sets(lead: _Instance) -> Iterator[tuple[str, ...]]:
    """Iterate over sets of integer attributes that hold sizes of reshaped axes, the smallest set first."""
    named = [
        name
        for name, value in vars(lead.module).items()
        if type(value) is int and value > 1 and value in lead.left
    ][:_MOST_ATTRIBUTES]
    for count in range(1, len(named) + 1):
        yield from combinations(named, count)


def _followers(instances: Iterable[_Instance], names: Iterable[str]) -> tuple[Follower, ...]:
    return tuple(
        Follower(each.path, name, each.left[value])
        for each in instances
        for name in names
        if (value := vars(each.module).get(name, 0)) in each.left
    )


def _links(instance: _Instance) -> Iterator[tuple[LabelVector, LabelVector]]:
    """Iterate over reshaped axes that are as wide as an axis that enters the module."""
    for entering in instance.entering:
        for reshaped in instance.reshaped:
            if len(reshaped) == len(entering) and reshaped is not entering:
                yield entering, reshaped
