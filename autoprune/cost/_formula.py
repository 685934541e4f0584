"""Own the cost formula: MACs and parameters of candidates as exact integers from their widths alone.

Made from the traced graph; `prunable.cost`, spaces and reports evaluate it. Every count is a product of
sizes, every size a sum `constant + sum(times * width)` over the groups that the axis spans.

    formula = make_formula(prunable_grouping, terms, parameters)
    formula(np.array([[16, 8], [8, 4]]))      # Cost(macs=array([...]), params=array([...]))
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.graph import ChannelGroup, Cost
from autoprune.graph.context import Factor, MacTerm
from autoprune.graph.grouping import Grouping
from autoprune.graph.labels import FIXED

_CHUNK = 4096
"""Candidates evaluated at once: bounds the memory of a large matrix."""


@dataclass(frozen=True, eq=False)
class ProductSum:
    """A sum of products of sizes.

    Attributes:
        coefficients: int64 [terms], the constant part of each product.
        sizes: int64 [terms, factors], rows of the table of sizes; row 0 is the constant one.
        summed: int64 [terms], the row of a size without which, at 1, the product counts nothing; 0 where it
            always counts.
    """

    coefficients: NDArray[np.int64]
    sizes: NDArray[np.int64]
    summed: NDArray[np.int64]

    def evaluate(self, table: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return int64 [candidates] from a table of sizes [sizes, candidates]."""
        products = table[self.sizes[:, 0]]
        for factor in range(1, self.sizes.shape[1]):
            products = products * table[self.sizes[:, factor]]
        if self.summed.any():
            products *= (table[self.summed] > 1) | (self.summed == 0)[:, None]
        total: NDArray[np.int64] = self.coefficients @ products
        return total

    def part(self, rows: NDArray[np.bool_]) -> ProductSum:
        """Return the sum of some of the products."""
        return ProductSum(self.coefficients[rows], self.sizes[rows], self.summed[rows])


@dataclass(frozen=True, eq=False)
class ExactCost:
    """The cost formula of one model.

    Attributes:
        constants: int64 [sizes], the fixed part of each size.
        times: int64 [sizes, groups], how often each group's width enters a size.
        macs: the sum over operators.
        params: the sum over parameters.
        full: int64 [groups], the dense widths.
    """

    constants: NDArray[np.int64]
    times: NDArray[np.int64]
    macs: ProductSum
    params: ProductSum
    full: NDArray[np.int64]

    def __call__(self, widths: NDArray[np.int64]) -> Cost:
        """Return costs [candidates] of widths [candidates, groups]."""
        macs = np.empty(len(widths), np.int64)
        params = np.empty(len(widths), np.int64)
        for start in range(0, len(widths), _CHUNK):
            part = slice(start, start + _CHUNK)
            table = self._sizes(widths[part])
            macs[part] = self.macs.evaluate(table)
            params[part] = self.params.evaluate(table)
        return Cost(macs, params)

    def carried(self, group: int) -> tuple[int, int]:
        """Return the MACs and parameters of the dense model's operators that the group touches."""
        table = self._sizes(self.full[None])
        touched = self.times[:, group] > 0
        sums = []
        for products in (self.macs, self.params):
            rows = np.asarray(touched[products.sizes].any(axis=1))
            sums.append(int(products.part(rows).evaluate(table)[0]) if rows.any() else 0)
        return sums[0], sums[1]

    def _sizes(self, widths: NDArray[np.int64]) -> NDArray[np.int64]:
        # Integer matrix products have no fast path in NumPy; sizes are small enough for exact float64.
        floats = self.times.astype(np.float64) @ widths.T.astype(np.float64)
        return floats.astype(np.int64) + self.constants[:, None]


def make_formula(
    groups: Sequence[ChannelGroup],
    grouping: Grouping,
    macs: Iterable[MacTerm],
    params: Iterable[Sequence[Factor]],
) -> ExactCost:
    """Turn counted products of axes into a formula over the widths of the groups.

    Args:
        groups: the model's groups; their order is that of a candidate's columns.
        grouping: which group each label belongs to.
        macs: the counts of the operators.
        params: for each parameter its axes.
    """
    table: dict[tuple[int, ...], int] = {(1, *[0] * len(groups)): 0}
    mac_sum = _product_sum(((t.factors, t.summed) for t in macs), grouping, len(groups), table)
    param_sum = _product_sum(((axes, ()) for axes in params), grouping, len(groups), table)
    sizes = np.array(list(table), dtype=np.int64)
    full = np.array([group.width for group in groups], dtype=np.int64)
    return ExactCost(sizes[:, 0], sizes[:, 1:], mac_sum, param_sum, full)


def _product_sum(
    products: Iterable[tuple[Sequence[Factor], Sequence[Factor]]],
    grouping: Grouping,
    groups: int,
    table: dict[tuple[int, ...], int],
) -> ProductSum:
    merged: dict[tuple[int, tuple[int, ...]], int] = {}
    for factors, summed in products:
        coefficient = 1
        rows = []
        for factor in factors:
            size = axis_size(factor, grouping, groups)
            if any(size[1:]):
                rows.append(table.setdefault(size, len(table)))
            else:
                coefficient *= size[0]
        key = (_row_of_summed(summed, grouping, groups, table), tuple(sorted(rows)))
        merged[key] = merged.get(key, 0) + coefficient
    longest = max((len(rows) for _, rows in merged), default=0) or 1
    padded = [rows + (0,) * (longest - len(rows)) for _, rows in merged]
    return ProductSum(
        np.array(list(merged.values()), dtype=np.int64),
        np.array(padded, dtype=np.int64).reshape(-1, longest),
        np.array([row for row, _ in merged], dtype=np.int64),
    )


def _row_of_summed(
    summed: Sequence[Factor], grouping: Grouping, groups: int, table: dict[tuple[int, ...], int]
) -> int:
    """Return the row of a size that is 1 exactly where all of `summed` are; 0 where that cannot happen."""
    sizes = [axis_size(factor, grouping, groups) for factor in summed]
    # Every width is at least 1, so a size is at least the sum of its coefficients.
    if not sizes or any(sum(size) > 1 for size in sizes):
        return 0
    constant = sum(size[0] for size in sizes) - len(sizes) + 1
    joint = (constant, *(sum(times) for times in zip(*(size[1:] for size in sizes), strict=True)))
    return table.setdefault(joint, len(table))


def axis_size(factor: Factor, grouping: Grouping, groups: int) -> tuple[int, ...]:
    """Return (constant, times of each group) of an axis.

    Raises:
        AssertionError: the axis holds the channels of one group unequally often.
    """
    if factor.labels is None:
        return (factor.size, *[0] * groups)
    labelled = factor.labels[factor.labels != FIXED]
    owners = grouping.group_of[grouping.of_label[labelled]]
    counts = np.bincount(owners[owners >= 0], minlength=groups)
    widths = np.array([group.width for group in grouping.groups], dtype=np.int64)
    times, rest = np.divmod(counts, np.maximum(widths, 1))
    if rest.any():
        raise AssertionError("channels of one group enter an axis unequally often")
    return (factor.size - int(counts.sum()), *times.tolist())
