"""The memory that candidates take: the bytes that are saved of them, and the peak of one forward.

    size_bytes(prunable)(widths), peak_memory_bytes(prunable)(widths)      # int64 [candidates] each

The peak is counted at batch 1, over the operators of the traced graph in their order. Weights, buffers and
inputs stay. Every other tensor lives from the operator that makes it to the last one that reads it. Views and
in-place results share the memory of the tensor that they are made of. The outputs of the model stay to the
end. A runtime needs that much if it frees a tensor after its last use. The workspace that an operator takes
for itself while it runs, such as a convolution's, does not follow from the graph and is not counted. Of a
dropped block nothing lives but the sum, if that is made in place of the branch. The single zeros that pass
through the block's code are not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from autoprune.cost.formula import BlockSizes, axis_size, for_columns, tensor_sizes
from autoprune.cost.polynomial import Polynomials, Size, Sum, add_product
from autoprune.graph import Prunable
from autoprune.graph.context import Value
from autoprune.support.arrays import IntArray

Bytes = Callable[[IntArray], IntArray]
"""From widths [candidates, groups] to bytes [candidates]."""

_START = -1
"""The moment before the first operator."""


def size_bytes(prunable: Prunable) -> Bytes:
    """Return a function from widths to the bytes of all parameters and buffers."""
    saved = [Polynomials.of([_weights(prunable, blocks)], blocks.columns) for blocks in _blocks(prunable)]
    return lambda widths: for_columns(widths, *saved)(widths)[0]


def peak_memory_bytes(prunable: Prunable) -> Bytes:
    """Return a function from widths to the bytes that live at the fullest moment of a forward at batch 1.

    Axes whose length does not follow from the widths alone count as if they stayed whole, so that the peak is
    never less than it is.
    """
    peaks = [_peak(prunable, blocks) for blocks in _blocks(prunable)]
    return lambda widths: for_columns(widths, *peaks).largest(widths)


def _blocks(prunable: Prunable) -> tuple[BlockSizes, BlockSizes]:
    """Return the factors of widths without columns of blocks, and of widths with them."""
    groups = len(prunable.groups)
    return BlockSizes((), groups), BlockSizes(prunable.blocks, groups)


def _peak(prunable: Prunable, blocks: BlockSizes) -> Polynomials:
    """Return the bytes that live at each moment."""
    storages = _storages(prunable)
    each = Polynomials.of(
        [_weights(prunable, blocks), *(storage.size_bytes(blocks) for storage in storages)], blocks.columns
    )
    born = np.array([_START, *(storage.born for storage in storages)])
    last = np.array([len(prunable.captured.nodes), *(storage.last for storage in storages)])
    # Memory grows only when a tensor is made, so no other moment can be the fullest.
    moments = np.unique(born)[:, None]
    alive = (born <= moments) & (moments <= last)
    # As floats, which are exact for numbers of bytes: NumPy has no fast matrix product for integers.
    together = alive.astype(float) @ each.coefficients.astype(float)
    return replace(each, coefficients=_maximal(together.astype(np.int64)))


def _maximal(moments: IntArray) -> IntArray:
    """Leave out the moments [moments, products] at which nothing lives that does not also live at another."""
    # The fullest first: a moment can only be covered by one that is at least as full.
    kept: list[IntArray] = []
    for moment in sorted(np.unique(moments, axis=0), key=lambda each: -int(each.sum())):
        if not any((moment <= other).all() for other in kept):
            kept.append(moment)
    return np.stack(kept)


def _weights(prunable: Prunable, blocks: BlockSizes) -> Sum:
    """Return the bytes of all parameters and buffers."""
    total: Sum = Counter()
    for name, tensor, sizes in tensor_sizes(prunable.model, prunable.groups, prunable.target):
        add_product(total, [*sizes, *blocks.of_tensor(name)], tensor.element_size())
    return total


@dataclass
class _Storage:
    """Memory that one operator, or the caller, provides.

    Attributes:
        sizes: of its axes.
        factor: bytes for each element of them.
        born: the number of the operator, or `_START` if it is there from the start.
        last: the number of the last operator that reads it.
        holders: names of the nodes whose results lie in it.
    """

    sizes: list[Size]
    factor: int
    born: int
    last: int
    holders: set[str]

    def size_bytes(self, blocks: BlockSizes) -> Sum:
        """Return its size as a sum of products of sizes. It goes with a block that computes all holders."""
        total: Sum = Counter()
        inside = [set(blocks.of_node(name)) for name in self.holders]
        add_product(total, [*self.sizes, *set.intersection(*inside)], self.factor)
        return total


def _storages(prunable: Prunable) -> list[_Storage]:
    """Return the storages that operators and the caller provide, without weights and buffers."""
    captured = prunable.captured
    nodes = captured.nodes
    found: dict[int, _Storage] = {}
    weights: set[int] = set()  # counted from the model itself, which may hold some that no graph reads
    for number, node in enumerate(nodes):
        read = {_key(tensor) for argument in node.all_input_nodes for tensor in _tensors(argument)}
        for key in read & found.keys():
            found[key].last = len(nodes) if node.op == "output" else max(found[key].last, number)
        if node.op == "output":
            continue
        if node.op == "placeholder" and node.name in captured.states:
            weights.update(_key(tensor) for tensor in _tensors(node))
            continue
        for tensor, value in zip(_tensors(node), _values(node, prunable), strict=True):
            if _key(tensor) in weights:
                continue
            if _key(tensor) not in found:
                found[_key(tensor)] = storage = _new_storage(tensor, value, prunable, number)
                if node.op == "placeholder":
                    storage.born, storage.last = _START, len(nodes)
            found[_key(tensor)].holders.add(node.name)
    return list(found.values())


def _new_storage(tensor: Tensor, value: Value | None, prunable: Prunable, number: int) -> _Storage:
    reserved = tensor.untyped_storage().nbytes()
    used = tensor.numel() * tensor.element_size()
    sizes: list[Size] = []
    # If an operator hands out a part of its memory, or has no labels, the dense model's bytes are the bound.
    if value is None or value.shape != tuple(tensor.shape) or reserved != used:
        factor = reserved
    else:
        factor = tensor.element_size()
        axes = zip(value.shape, value.labels, strict=True)
        sizes = [axis_size(length, labels, prunable.grouping)[0] for length, labels in axes]
    return _Storage(sizes, factor, number, number, set())


def _tensors(node: Node) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(node.meta.get("val")) if isinstance(leaf, Tensor)]


def _values(node: Node, prunable: Prunable) -> list[Value | None]:
    """Return the labelled values of a node's tensors, or None for each if they are not known one by one."""
    found = prunable.values.get(node.name)
    values = found if isinstance(found, list) else [] if found is None else [found]
    tensors = _tensors(node)
    return list(values) if len(values) == len(tensors) else [None] * len(tensors)


def _key(tensor: Tensor) -> int:
    """Return the identity of a storage. The tensors of a trace share storages as real ones do."""
    return int(tensor.untyped_storage()._cdata)
