"""Propose ties and followers for modules whose code computes sizes from numbers of its own.

The shape check names a module in which a narrowed model fails. `trace` tries each proposal on every module of
that class and keeps the one with which the narrowed model runs furthest.

Example:
    for proposal in proposals(prunable, "blocks.0.attn"): ...

Three kinds of code need a proposal:

- `x.reshape(b, n, heads, self.head_dim)` and `x.split(self.sizes)`: the attribute must follow the width.
- `x.split([self.key, self.key, self.value])`: the parts of one size must also keep one common width.
- `x.reshape(b, n, c)` and `c // heads`, with c from the input's shape: the inner width must equal the
  width of the input, or a fixed share of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from torch import nn
from torch.fx import Node

from autoprune.graph import Prunable
from autoprune.graph.context import Value
from autoprune.graph.followers import Follower
from autoprune.graph.labels import LabelVector
from autoprune.graph.propagate import layer_of, operator_name

_CUTS = {"split", "chunk", "split_with_sizes"}
_RESHAPES = _CUTS | {
    *("view", "reshape", "_unsafe_view", "flatten", "unflatten", "expand", "repeat", "slice", "narrow")
}
_MOST_ATTRIBUTES = 5
"""Number of attributes with sizes that are tried. All subsets are tried, so each one doubles their number."""

Ties = tuple[tuple[LabelVector, LabelVector], ...]


@dataclass(frozen=True, eq=False)
class Proposal:
    """Ties and followers that are tried together.

    Attributes:
        ties: pairs of label vectors of equal length, to tie position by position.
        followers: numbers of modules that follow the width of an axis.
    """

    ties: Ties = ()
    followers: tuple[Follower, ...] = ()


@dataclass(frozen=True, eq=False)
class _Instance:
    """A module with the axes that its own code reshapes.

    Attributes:
        path: the module's first path in the model.
        module: the module.
        entered: labels of every axis of the inputs of reshapes.
        left: labels of every axis of the outputs of reshapes.
        sizes: {size: labels of an axis of that size that can be narrowed}, from the output of a reshape if
            there is one, otherwise from an input.
        cuts: labels of the parts of every split along an axis that can be narrowed.
        entering: labels of every axis of the module's inputs.
    """

    path: str
    module: nn.Module
    entered: tuple[LabelVector, ...]
    left: tuple[LabelVector, ...]
    sizes: Mapping[int, LabelVector]
    cuts: tuple[tuple[LabelVector, ...], ...]
    entering: tuple[LabelVector, ...]

    def followers(self, name: str) -> list[Follower]:
        """Return the followers that make the attribute follow widths, or none if it holds no sizes."""
        value = vars(self.module).get(name)
        if type(value) is int:
            found = value > 1 and value in self.sizes
            return [Follower(self.path, name, self.sizes[value])] if found else []
        if isinstance(value, tuple | list) and value and all(type(item) is int for item in value):
            return self._of_sequence(name, value)
        return []

    def _of_sequence(self, name: str, value: Sequence[int]) -> list[Follower]:
        axes = next(
            (parts for parts in self.cuts if [len(part) for part in parts] == list(value)),
            [self.sizes.get(item) if item > 1 else None for item in value],
        )
        return [
            Follower(self.path, name, axis, item=item) for item, axis in enumerate(axes) if axis is not None
        ]


def proposals(prunable: Prunable, path: str) -> Iterator[Proposal]:
    """Iterate over proposals for all modules of the class of the module at `path`, the fewest ties first."""
    model = prunable.model
    cls = type(model.get_submodule(path))
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if type(module) is cls:
            names.setdefault(module, []).append(name)
    instances = [_instance(prunable, module, paths) for module, paths in names.items()]
    lead = next((each for each in instances if each.path == path), None)
    if lead is None:
        return
    attributes = [name for name in vars(lead.module) if lead.followers(name)][:_MOST_ATTRIBUTES]
    yield from _combined(instances, attributes, ())
    # Arrays cannot be keys, so their ids are. The values keep the arrays alive, and with them the ids unique.
    tried: dict[tuple[tuple[int, int], ...], Ties] = {(): ()}
    for ties in _tie_sets(instances, lead):
        key = tuple((id(first), id(second)) for first, second in ties)
        if key not in tried:
            tried[key] = ties
            yield Proposal(ties)
            yield from _combined(instances, attributes, ties)


def _tie_sets(instances: Sequence[_Instance], lead: _Instance) -> Iterator[Ties]:
    """Iterate over sets of ties to try, the smallest first."""
    yield tuple(pair for each in instances for cut in each.cuts for pair in _alike(cut))
    across = tuple(pair for each in instances for pair in _alike([part for cut in each.cuts for part in cut]))
    yield across
    links = tuple(pair for each in instances for pair in _links(each))
    yield links
    yield across + links
    for size in _shared_sizes(lead):
        yield across + links + tuple(pair for each in instances for pair in _shares(each, size))


def _combined(instances: Sequence[_Instance], attributes: Sequence[str], ties: Ties) -> Iterator[Proposal]:
    """Iterate over proposals with these ties in which one attribute follows, then two, and so on."""
    for count in range(1, len(attributes) + 1):
        for names in combinations(attributes, count):
            found = (each.followers(name) for each in instances for name in names)
            yield Proposal(ties, tuple(follower for some in found for follower in some))


def _instance(prunable: Prunable, module: nn.Module, paths: Sequence[str]) -> _Instance:
    """Gather a module's axes. The graph may name a shared module by any of its paths."""
    own = {path or "model" for path in paths}
    nodes = prunable.captured.nodes
    reshapes = [n for n in nodes if layer_of(n) in own and operator_name(n) in _RESHAPES]
    left = list(_axes(prunable, reshapes))
    entered = list(_axes(prunable, (b for n in reshapes for b in n.all_input_nodes)))
    narrowable = [vector for vector in (*left, *entered) if _is_narrowable(prunable, vector)]
    inside = [n for n in nodes if n.op == "call_function" and _lies_in(layer_of(n), paths)]
    before = {b for n in inside for b in n.all_input_nodes if not _lies_in(layer_of(b), paths)}
    return _Instance(
        paths[0],
        module,
        tuple(entered),
        tuple(left),
        {len(vector): vector for vector in reversed(narrowable)},
        tuple(_cuts(prunable, (n for n in reshapes if operator_name(n) in _CUTS))),
        tuple(_axes(prunable, (b for b in before if b.op == "call_function"))),
    )


def _lies_in(layer: str, paths: Iterable[str]) -> bool:
    return any(not path or layer == path or layer.startswith(f"{path}.") for path in paths)


def _axes(prunable: Prunable, nodes: Iterable[Node]) -> Iterator[LabelVector]:
    for node in nodes:
        value = prunable.values.get(node.name, [])
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, Value):
                yield from (vector for vector in part.labels if vector is not None)


def _cuts(prunable: Prunable, nodes: Iterable[Node]) -> Iterator[tuple[LabelVector, ...]]:
    for node in nodes:
        value, source = prunable.values[node.name], prunable.values[node.all_input_nodes[0].name]
        if not isinstance(value, list) or not isinstance(source, Value):
            continue
        for axis, size in enumerate(source.shape):
            parts = [part.labels[axis] for part in value]
            labelled = tuple(part for part in parts if part is not None)
            cut = size == sum(part.shape[axis] for part in value)
            if cut and len(labelled) == len(value) and any(_is_narrowable(prunable, p) for p in labelled):
                yield labelled


def _is_narrowable(prunable: Prunable, vector: LabelVector) -> bool:
    return any(prunable.groups[owner].frozen is None for owner in prunable.grouping.owners(vector))


def _alike(parts: Sequence[LabelVector]) -> Iterator[tuple[LabelVector, LabelVector]]:
    """Iterate over the pairs that tie all parts of equal size."""
    for part in parts:
        first = next(other for other in parts if len(other) == len(part))
        if first is not part:
            yield first, part


def _links(instance: _Instance) -> Iterator[tuple[LabelVector, LabelVector]]:
    """Iterate over pairs of an axis that enters the module and a reshaped axis of the same width."""
    for entering in instance.entering:
        for reshaped in (*instance.entered, *instance.left):
            if len(reshaped) == len(entering) and reshaped is not entering:
                yield entering, reshaped


def _shared_sizes(instance: _Instance) -> list[int]:
    """Return the sizes of reshaped axes that divide the size of an entering axis, the largest first."""
    leaving, entering = ({len(vector) for vector in axes} for axes in (instance.left, instance.entering))
    held = {size for size in leaving for whole in entering if size < whole and whole % size == 0}
    return sorted(held - {1}, reverse=True)


def _shares(instance: _Instance, size: int) -> Iterator[tuple[LabelVector, LabelVector]]:
    """Iterate over pairs of a part of an entering axis and an axis of the same size that leaves a reshape."""
    for entering in instance.entering:
        if len(entering) % size == 0 and len(entering) > size:
            parts = entering.reshape(-1, size)
            yield from ((part, left) for left in instance.left if len(left) == size for part in parts)
