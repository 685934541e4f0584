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
from autoprune.graph.context import Factor
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
    """

    coefficients: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def evaluate(self, table: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return int64 [candidates] from a table of sizes [sizes, candidates]."""
        products = table[self.sizes[:, 0]]
        for factor in range(1, self.sizes.shape[1]):
            products = products * table[self.sizes[:, factor]]
        total: NDArray[np.int64] = self.coefficients @ products
        return total


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
            rows = touched[products.sizes].any(axis=1)
            part = ProductSum(products.coefficients[rows], products.sizes[rows])
            sums.append(int(part.evaluate(table)[0]) if rows.any() else 0)
        return sums[0], sums[1]

    def _sizes(self, widths: NDArray[np.int64]) -> NDArray[np.int64]:
        # Integer matrix products have no fast path in NumPy; sizes are small enough for exact float64.
        floats = self.times.astype(np.float64) @ widths.T.astype(np.float64)
        return floats.astype(np.int64) + self.constants[:, None]


def make_formula(
    groups: Sequence[ChannelGroup],
    grouping: Grouping,
    macs: Iterable[Sequence[Factor]],
    params: Iterable[Sequence[Factor]],
) -> ExactCost:
    """Turn counted products of axes into a formula over the widths of the groups.

    Args:
        groups: the model's groups; their order is that of a candidate's columns.
        grouping: which group each label belongs to.
        macs: for each counted operator its factors.
        params: for each parameter its axes.
    """
    table: dict[tuple[int, ...], int] = {(1, *[0] * len(groups)): 0}
    mac_sum = _product_sum(macs, grouping, len(groups), table)
    param_sum = _product_sum(params, grouping, len(groups), table)
    sizes = np.array(list(table), dtype=np.int64)
    full = np.array([group.width for group in groups], dtype=np.int64)
    return ExactCost(sizes[:, 0], sizes[:, 1:], mac_sum, param_sum, full)


def _product_sum(
    products: Iterable[Sequence[Factor]], grouping: Grouping, groups: int, table: dict[tuple[int, ...], int]
) -> ProductSum:
    merged: dict[tuple[int, ...], int] = {}
    for factors in products:
        coefficient = 1
        rows = []
        for factor in factors:
            size = _size(factor, grouping, groups)
            if any(size[1:]):
                rows.append(table.setdefault(size, len(table)))
            else:
                coefficient *= size[0]
        key = tuple(sorted(rows))
        merged[key] = merged.get(key, 0) + coefficient
    longest = max((len(key) for key in merged), default=0) or 1
    padded = [key + (0,) * (longest - len(key)) for key in merged]
    sizes = np.array(padded, dtype=np.int64).reshape(-1, longest)
    return ProductSum(np.array(list(merged.values()), dtype=np.int64), sizes)


def _size(factor: Factor, grouping: Grouping, groups: int) -> tuple[int, ...]:
    """Return (constant, times of each group) of an axis."""
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
