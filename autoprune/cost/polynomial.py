"""Sizes that follow the widths of channel groups, and sums of products of such sizes.

Every cost that is counted is such a sum: MACs, parameters and bytes. It is exact, and evaluates many
candidates at once.

    size = Size(3, (0, 2))                                # 3 + 2 * the width of the second of two groups
    total: Sum = Counter()
    add_product(total, [size, size], 5)                   # 5 * size * size
    Polynomials.of([total], groups=2)(np.array([[8, 4]]))    # array([[605]])
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from autoprune.support.arrays import FloatArray, IntArray

_CHUNK = 1024
"""Candidates evaluated at once: bounds the memory, and keeps the work in the caches."""

_LARGEST_EXACT = 2.0**53
"""Up to here float64 holds every integer, and is several times faster than int64."""


@dataclass(frozen=True)
class Size:
    """The length of an axis: a constant part, and how often the width of each group enters it."""

    constant: int
    times: tuple[int, ...]

    @property
    def varies(self) -> bool:
        """Whether it depends on any width."""
        return any(self.times)

    @property
    def unit(self) -> tuple[int, Size]:
        """The factor that all its parts share, and the size without it: proportional sizes have one unit."""
        factor = math.gcd(self.constant, *self.times)
        return factor, Size(self.constant // factor, tuple(time // factor for time in self.times))

    def at(self, widths: IntArray) -> IntArray:
        """Return the size at widths [groups] or [n, groups], as int64 [] or [n]."""
        return np.asarray(widths @ np.array(self.times, dtype=np.int64) + self.constant)


Product: TypeAlias = tuple[tuple[Size, ...], Size | None]
"""Sizes that are multiplied, and perhaps one more: the product counts only if that one is above 1."""

Sum: TypeAlias = Counter[Product]
"""Products, each with its coefficient."""


def add_product(
    total: Sum, sizes: Sequence[Size], coefficient: int = 1, *, only_above_1: Size | None = None
) -> None:
    """Add a product to a sum. Its constant factors become part of the coefficient."""
    constant = math.prod(size.constant for size in sizes if not size.varies)
    varying = sorted((size for size in sizes if size.varies), key=lambda size: (size.constant, size.times))
    total[tuple(varying), only_above_1] += coefficient * constant


@dataclass(frozen=True, eq=False)
class SizeTable:
    """Several sizes that are evaluated together.

    Attributes:
        constants: int64 [sizes].
        times: int64 [sizes, groups].
    """

    constants: IntArray
    times: IntArray

    @classmethod
    def of(cls, sizes: Sequence[Size], groups: int) -> SizeTable:
        """Put sizes into one table. Sizes that depend on the first groups alone may leave out the others."""
        times = np.zeros((len(sizes), groups), dtype=np.int64)
        for row, size in enumerate(sizes):
            times[row, : len(size.times)] = size.times
        return cls(np.array([size.constant for size in sizes], dtype=np.int64), times)

    def at(self, widths: IntArray) -> FloatArray:
        """Return the sizes [sizes, n] at widths [n, groups], as whole float64."""
        # NumPy has fast matrix products for floats only.
        return np.asarray(self.times.astype(float) @ widths.T.astype(float) + self.constants[:, None])


@dataclass(frozen=True, eq=False)
class Polynomials:
    """Several sums of products of sizes. Products that the sums share are evaluated once.

    Attributes:
        sizes: of which the first one is the constant 1.
        factors: int64 [factors, products], rows of the table of sizes, padded with row 0.
        conditions: int64 [products], the row of the size that must be above 1, or 0 for none.
        coefficients: int64 [sums, products].
    """

    sizes: SizeTable
    factors: IntArray
    conditions: IntArray
    coefficients: IntArray

    @classmethod
    def of(cls, sums: Sequence[Sum], groups: int) -> Polynomials:
        """Put sums into one table of sizes and products."""
        products = list(dict.fromkeys(product for total in sums for product in total))
        rows: dict[Size, int] = {Size(1, (0,) * groups): 0}
        for sizes, condition in products:
            for size in (*sizes, *([] if condition is None else [condition])):
                rows.setdefault(size, len(rows))
        # Row 0 is the constant 1, so that products of fewer sizes can be padded with it.
        factors = np.zeros((max((len(sizes) for sizes, _ in products), default=0), len(products)), np.int64)
        for column, (sizes, _) in enumerate(products):
            factors[: len(sizes), column] = [rows[size] for size in sizes]
        return cls(
            SizeTable.of(list(rows), groups),
            factors,
            np.array([0 if each is None else rows[each] for _, each in products], dtype=np.int64),
            np.array([[total[product] for product in products] for total in sums], dtype=np.int64),
        )

    def __call__(self, widths: IntArray) -> IntArray:
        """Return every sum, int64 [sums, n], at widths [n, groups]."""
        return self._by_chunks(widths, self._sums, np.empty((len(self.coefficients), len(widths)), np.int64))

    def largest(self, widths: IntArray) -> IntArray:
        """Return the largest of the sums, int64 [n], at widths [n, groups]."""
        return self._by_chunks(
            widths, lambda part: self._sums(part).max(axis=0), np.empty(len(widths), np.int64)
        )

    def touching(self, groups: Sequence[int]) -> Polynomials:
        """Return the sums of the products alone that depend on the width of any of some groups."""
        touched = self.sizes.times[:, groups].sum(axis=1)[self.factors].sum(axis=0) > 0
        return Polynomials(self.sizes, self.factors, self.conditions, self.coefficients * touched)

    @staticmethod
    def _by_chunks(widths: IntArray, part: Callable[[IntArray], IntArray], result: IntArray) -> IntArray:
        for start in range(0, len(widths), _CHUNK):
            result[..., start : start + _CHUNK] = part(widths[start : start + _CHUNK])
        return result

    def _sums(self, widths: IntArray) -> IntArray:
        sizes = self.sizes.at(widths)
        sums = self.coefficients.astype(float) @ self._products(sizes)
        # No product is negative, so no part of a sum is above the sum: a small sum is an exact one.
        if sums.max(initial=0.0) < _LARGEST_EXACT:
            return np.asarray(sums, dtype=np.int64)
        exact: IntArray = self.coefficients @ self._products(sizes.astype(np.int64))
        return exact

    def _products(self, sizes: Any) -> Any:
        """Return the products [products, n] of sizes [sizes, n], in their number format."""
        products = np.ones((len(self.conditions), sizes.shape[1]), sizes.dtype)
        for rows in self.factors:
            products *= sizes[rows]
        if self.conditions.any():
            products *= (sizes[self.conditions] > 1) | (self.conditions == 0)[:, None]
        return products
