"""Own what a candidate takes of memory: the bytes that are saved of it, and the peak of one forward.

Before: a traced model; after: spaces, budgets and records evaluate it beside the cost formula.

    footprint = make_footprint(prunable)
    footprint.size_bytes(widths), footprint.peak_memory_bytes(widths)      # int64 [candidates] each

The peak is counted at batch 1, over the operators of the traced graph in their order: weights, buffers and
inputs stay, every other tensor lives from the operator that makes it to the last one that reads it, views and
in-place results share the memory of what they are made of, and what the model returns stays to the end. That
is what a runtime needs that frees a tensor after its last use; what an operator takes for itself while it
runs, such as a convolution's workspace, is not known from the graph and not counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from autoprune.graph import Prunable
from autoprune.graph.capture import named_tensors
from autoprune.graph.context import Value
from autoprune.graph.grouping import Grouping
from autoprune.graph.labels import FIXED
from autoprune.support.arrays import IntArray

Size = tuple[int, ...]
"""An axis: its constant part, then how often each group's width enters it."""

Bytes = dict[tuple[Size, ...], int]
"""A sum of products of sizes, each with the bytes that it is multiplied by."""

_CHUNK = 4096
"""Candidates evaluated at once: bounds the memory of a large matrix."""


@dataclass(frozen=True, eq=False)
class Footprint:
    """The bytes of one model's candidates, exact from their widths.

    Attributes:
        constants: int64 [sizes], the fixed part of each size.
        times: int64 [sizes, groups], how often each group's width enters a size.
        products: int64 [products, factors], rows of the table of sizes; row 0 is the constant one.
        saved: int64 [products], bytes for each unit of a product in the saved model.
        moments: int64 [moments, products], the same for all that lives at once.
    """

    constants: IntArray
    times: IntArray
    products: IntArray
    saved: IntArray
    moments: IntArray

    def size_bytes(self, widths: IntArray) -> IntArray:
        """Return the bytes [candidates] of parameters and buffers at widths [candidates, groups]."""
        return self._evaluate(widths, self.saved[None])

    def peak_memory_bytes(self, widths: IntArray) -> IntArray:
        """Return the bytes [candidates] that live at the fullest moment of a forward at batch 1."""
        return self._evaluate(widths, self.moments)

    def _evaluate(self, widths: IntArray, sums: IntArray) -> IntArray:
        """Return the largest of several sums [sums, products] for each candidate."""
        largest = np.empty(len(widths), np.int64)
        for start in range(0, len(widths), _CHUNK):
            part = slice(start, start + _CHUNK)
            # Bytes of any model are far below 2**53, up to which float64 is exact, and fast to multiply.
            sizes = self.times.astype(float) @ widths[part].T.astype(float) + self.constants[:, None]
            products = sizes[self.products].prod(axis=1)
            largest[part] = (sums.astype(float) @ products).max(axis=0)
        return largest


def make_footprint(prunable: Prunable) -> Footprint:
    """Turn the tensors of a traced model into sums over the widths of its groups.

    An axis that holds only some channels of a group, or some more often than others, has no size that follows
    from the group's width alone: it counts as if all were kept, so that the peak is never less than it is.
    """
    weights = _weights(prunable)
    moments = [_joined(weights, moment) for moment in _moments(prunable)] or [weights]
    products = list(dict.fromkeys(product for each in (weights, *moments) for product in each))
    sizes = list(dict.fromkeys([_constant(1, prunable), *(size for each in products for size in each)]))
    row_of_size = {size: row for row, size in enumerate(sizes)}
    longest = max((len(product) for product in products), default=0) or 1
    rows = [[row_of_size[size] for size in each] + [0] * (longest - len(each)) for each in products]
    table = np.array(sizes, dtype=np.int64)
    return Footprint(
        constants=table[:, 0],
        times=table[:, 1:],
        products=np.array(rows, dtype=np.int64).reshape(-1, longest),
        saved=_row(weights, products),
        moments=_maximal(np.stack([_row(moment, products) for moment in moments])),
    )


def _row(sums: Bytes, products: Sequence[tuple[Size, ...]]) -> IntArray:
    return np.array([sums.get(product, 0) for product in products], dtype=np.int64)


def _maximal(moments: IntArray) -> IntArray:
    """Leave out the moments at which nothing lives that does not also live at another."""
    kept: list[IntArray] = []
    for moment in sorted(np.unique(moments, axis=0), key=lambda each: -int(each.sum())):
        if not any((moment <= other).all() for other in kept):
            kept.append(moment)
    return np.stack(kept)


def _joined(first: Bytes, second: Bytes) -> Bytes:
    return {key: first.get(key, 0) + second.get(key, 0) for key in (*first, *second)}


def _product(sizes: Sequence[Size]) -> tuple[int, tuple[Size, ...]]:
    """Return the constant factor of a product of sizes, and the sizes that vary, in one order."""
    constant = 1
    varying = []
    for size in sizes:
        if any(size[1:]):
            varying.append(size)
        else:
            constant *= size[0]
    return constant, tuple(sorted(varying))


def _constant(size: int, prunable: Prunable) -> Size:
    return (size, *[0] * len(prunable.groups))


def _weights(prunable: Prunable) -> Bytes:
    """Return the bytes of all parameters and buffers, shared ones once, from the groups' members."""
    narrowed: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for position, group in enumerate(prunable.groups):
        for member in group.members:
            place = narrowed.setdefault((member.parameter, member.axis), [])
            place.append((position, member.index.shape[1]))
    found: Bytes = {}
    for name, tensor in named_tensors(prunable.model):
        sizes = []
        for axis, dense in enumerate(tensor.shape):
            size = list(_constant(dense, prunable))
            for position, times in narrowed.get((name, axis), ()):
                size[0] -= times * prunable.groups[position].width
                size[1 + position] += times
            sizes.append(tuple(size))
        constant, product = _product(sizes)
        found[product] = found.get(product, 0) + constant * tensor.element_size()
    return found


@dataclass
class _Storage:
    """Memory that one operator, or the caller, provides.

    Attributes:
        product: its varying sizes.
        size_bytes: bytes for each unit of their product.
        born: the number of the operator; -1 for what is there from the start.
        last: the number of the last operator that reads it.
    """

    product: tuple[Size, ...]
    size_bytes: int
    born: int
    last: int = field(default=-1)


def _moments(prunable: Prunable) -> Iterator[Bytes]:
    """Yield what lives beside the weights after each operator that makes something."""
    storages = [each for each in _storages(prunable) if each.size_bytes]
    for moment in sorted({storage.born for storage in storages}):
        alive: Bytes = {}
        for storage in storages:
            if storage.born <= moment <= storage.last:
                alive[storage.product] = alive.get(storage.product, 0) + storage.size_bytes
        yield alive


def _storages(prunable: Prunable) -> list[_Storage]:
    """Walk the graph; weights and buffers are left out."""
    captured = prunable.captured
    nodes = captured.nodes
    found: dict[int, _Storage] = {}
    weights: set[int] = set()
    for number, node in enumerate(nodes):
        for argument in node.all_input_nodes:
            for tensor in _tensors(argument):
                if _key(tensor) in found:
                    storage = found[_key(tensor)]
                    storage.last = len(nodes) if node.op == "output" else max(storage.last, number)
        if node.op == "output":
            continue
        if node.op == "placeholder" and node.name in captured.states:
            weights.update(_key(tensor) for tensor in _tensors(node))
            continue
        for tensor, value in zip(_tensors(node), _values(node, prunable), strict=True):
            if _key(tensor) not in found and _key(tensor) not in weights:
                found[_key(tensor)] = storage = _new_storage(tensor, value, prunable, number)
                if node.op == "placeholder":
                    storage.born, storage.last = -1, len(nodes)
    return list(found.values())


def _new_storage(tensor: Tensor, value: Value | None, prunable: Prunable, number: int) -> _Storage:
    reserved = tensor.untyped_storage().nbytes()
    used = tensor.numel() * tensor.element_size()
    # Where an operator hands out a part of what it reserves, or has no labels, the dense bytes are the bound.
    if value is None or value.shape != tuple(tensor.shape) or reserved != used:
        return _Storage((), reserved, number, number)
    sizes = [
        _constant(size, prunable) if labels is None else _size(size, labels, prunable.grouping)
        for size, labels in zip(value.shape, value.labels, strict=True)
    ]
    constant, product = _product(sizes)
    return _Storage(product, constant * tensor.element_size(), number, number)


def _size(dense: int, labels: IntArray, grouping: Grouping) -> Size:
    """Return an axis as a size; groups whose channels lie on it unequally often count as whole."""
    components, often = np.unique(grouping.of_label[labels[labels != FIXED]], return_counts=True)
    owners = grouping.group_of[components]
    often, owners = often[owners >= 0], owners[owners >= 0]
    widths = np.array([group.width for group in grouping.groups], dtype=np.int64)
    most, total = np.zeros_like(widths), np.zeros_like(widths)
    np.maximum.at(most, owners, often)
    np.add.at(total, owners, often)
    times = np.where(total == most * widths, most, 0)
    return (dense - int(times @ widths), *times.tolist())


def _tensors(node: Node) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(node.meta.get("val")) if isinstance(leaf, Tensor)]


def _values(node: Node, prunable: Prunable) -> list[Value | None]:
    """Return the labelled values of a node's tensors; None for each where they are not told one by one."""
    found = prunable.values.get(node.name)
    values = found if isinstance(found, list) else [] if found is None else [found]
    tensors = _tensors(node)
    return list(values) if len(values) == len(tensors) else [None] * len(tensors)


def _key(tensor: Tensor) -> int:
    """Return what tells a storage from others; tracing's own tensors share storages as real ones do."""
    return int(tensor.untyped_storage()._cdata)
