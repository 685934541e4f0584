"""The MACs and parameters of candidates as exact integers, from their widths alone.

The formula is made from the traced graph. `prunable.cost`, search spaces and reports evaluate it.

    formula = make_formula(model, grouping, terms)
    formula(np.array([[16, 8], [8, 4]]))      # Cost(macs=array([...]), params=array([...]))
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from autoprune.cost.polynomial import Polynomials, Size, Sum, add_product
from autoprune.graph import Block, ChannelGroup, Cost
from autoprune.graph.capture import named_tensors
from autoprune.graph.context import Factor, MacTerm
from autoprune.graph.grouping import Grouping
from autoprune.graph.labels import FIXED, LabelVector
from autoprune.support.arrays import IntArray


@dataclass(frozen=True, eq=False)
class ExactCost:
    """The cost formula of one model.

    Attributes:
        sums: the MACs and the parameters of models with all blocks.
        dropping: the same if blocks may be dropped, which takes longer to evaluate.
        full: int64 [groups + blocks], the dense widths.
    """

    sums: Polynomials
    dropping: Polynomials
    full: IntArray

    def __call__(self, widths: IntArray) -> Cost:
        """Return costs [candidates] of widths [candidates, groups] or [candidates, groups + blocks]."""
        return Cost(*for_columns(widths, self.sums, self.dropping)(widths))

    def carried(self, *groups: int) -> tuple[int, int]:
        """Return the MACs and parameters of the dense model's operators that any of the columns touches."""
        macs, params = self.dropping.touching(groups)(self.full[None])[:, 0].tolist()
        return macs, params


def make_formula(
    model: nn.Module,
    grouping: Grouping,
    terms: Iterable[MacTerm],
    blocks: Sequence[Block] = (),
    target: str = "",
) -> ExactCost:
    """Turn the counts of operators, and the shapes of parameters, into sums over the widths of the groups.

    Args:
        model: the dense model.
        grouping: which group each label belongs to.
        terms: the counts of the operators.
        blocks: the blocks that may be dropped.
        target: path of the submodule whose parameters count, or "" for the model.
    """
    terms = list(terms)
    groups = [group.width for group in grouping.groups]
    full = np.array([*groups, *(1 for _ in blocks)], dtype=np.int64)
    sums = _sums(model, grouping, terms, BlockSizes((), len(groups)), target)
    dropping = _sums(model, grouping, terms, BlockSizes(blocks, len(groups)), target) if blocks else sums
    return ExactCost(sums, dropping, full)


def _sums(
    model: nn.Module, grouping: Grouping, terms: Sequence[MacTerm], blocks: BlockSizes, target: str
) -> Polynomials:
    macs: Sum = Counter()
    for term in terms:
        sizes = [_even_size(factor, grouping) for factor in term.factors]
        summed = [_even_size(factor, grouping) for factor in term.summed]
        add_product(macs, [*sizes, *blocks.of_node(term.node)], only_above_1=_any_above_1(summed))
    params: Sum = Counter()
    for name, tensor, sizes in tensor_sizes(model, grouping.groups, target):
        if isinstance(tensor, nn.Parameter):
            add_product(params, [*sizes, *blocks.of_tensor(name)])
    return Polynomials.of([macs, params], blocks.columns)


@dataclass(frozen=True)
class BlockSizes:
    """The widths of blocks, 0 or 1, as factors of the costs of their content.

    Attributes:
        blocks: the blocks that may be dropped.
        groups: number of groups, whose columns come first.
    """

    blocks: Sequence[Block]
    groups: int

    @property
    def columns(self) -> int:
        """Number of columns of widths."""
        return self.groups + len(self.blocks)

    def of_node(self, name: str) -> list[Size]:
        """Return the widths of the blocks that compute a node."""
        return [self._width(place) for place, block in enumerate(self.blocks) if name in block.nodes]

    def of_tensor(self, name: str) -> list[Size]:
        """Return the widths of the blocks that hold a parameter or buffer."""
        return [self._width(place) for place, block in enumerate(self.blocks) if name in block.tensors]

    def _width(self, place: int) -> Size:
        times = [0] * self.columns
        times[self.groups + place] = 1
        return Size(0, tuple(times))


def for_columns(widths: IntArray, *polynomials: Polynomials) -> Polynomials:
    """Return those of some polynomials that have a column for each column of widths [n, columns]."""
    return next(each for each in polynomials if each.sizes.times.shape[1] == widths.shape[1])


def tensor_sizes(
    model: nn.Module, groups: Sequence[ChannelGroup], target: str = ""
) -> Iterator[tuple[str, Tensor, list[Size]]]:
    """Yield the name of every parameter and buffer, shared ones once, with the sizes of its axes.

    With a target, only those of that submodule count.
    """
    own = {id(tensor) for _, tensor in named_tensors(model.get_submodule(target))}
    narrowed: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for position, group in enumerate(groups):
        for member in group.members:
            here = narrowed.setdefault((member.parameter, member.axis), [])
            # After a flatten, for example, a channel has several positions on an axis, and counts that often.
            here.append((position, member.index.shape[1]))
    for name, tensor in named_tensors(model):
        if id(tensor) not in own:
            continue
        sizes = []
        for axis, constant in enumerate(tensor.shape):
            times = [0] * len(groups)
            for position, often in narrowed.get((name, axis), ()):
                constant -= often * groups[position].width
                times[position] += often
            sizes.append(Size(constant, tuple(times)))
        yield name, tensor, sizes


def axis_size(length: int, labels: LabelVector | None, grouping: Grouping) -> tuple[Size, bool]:
    """Return an axis of the dense model as a size, and whether that is exact.

    If an axis holds only some channels of a group, or some more often than others, its length does not follow
    from the group's width alone. That group then counts as if it stayed whole: the size is an upper bound.
    """
    if labels is None:
        return Size(length, (0,) * len(grouping.groups)), True
    components, often = np.unique(grouping.of_label[labels[labels != FIXED]], return_counts=True)
    owners = grouping.group_of[components]
    often, owners = often[owners >= 0], owners[owners >= 0]
    widths = np.array([group.width for group in grouping.groups], dtype=np.int64)
    # A group is even if each of its channels occurs as often as the most frequent one.
    most, total = np.zeros_like(widths), np.zeros_like(widths)
    np.maximum.at(most, owners, often)
    np.add.at(total, owners, often)
    even = total == most * widths
    times = np.where(even, most, 0)
    return Size(length - int(times @ widths), tuple(times.tolist())), bool(even.all())


def _even_size(factor: Factor, grouping: Grouping) -> Size:
    size, is_exact = axis_size(factor.size, factor.labels, grouping)
    if not is_exact:
        raise AssertionError("channels of one group enter an axis unequally often")
    return size


def _any_above_1(sizes: Sequence[Size]) -> Size | None:
    """Return a size that is above 1 if any of `sizes` is. None if there are none, or one always is."""
    # Every width is at least 1, so a size is at least the sum of its parts.
    if not sizes or any(size.constant + sum(size.times) > 1 for size in sizes):
        return None
    # The sum of all sizes, each less 1, plus 1: it is above 1 exactly if any of them is.
    times = tuple(map(sum, zip(*(size.times for size in sizes), strict=True)))
    return Size(sum(size.constant for size in sizes) - len(sizes) + 1, times)
