"""Alignments: which sizes are aligned, what they are rounded to, and which comes next."""

from __future__ import annotations

import numpy as np
import pytest

from autoprune.latency.table._alignment import Alignment, aligned_axes, effective_sizes

BLOCKED = Alignment(align=4, step=16, free=8)


def test_small_sizes_are_aligned_and_whole() -> None:
    sizes = np.array([1, 7, 8, 9, 12, 14, 16, 20, 32, 33])
    np.testing.assert_array_equal(BLOCKED.is_aligned(sizes), [1, 1, 1, 0, 1, 0, 1, 1, 1, 0])
    np.testing.assert_array_equal(BLOCKED.rounded(sizes), [1, 7, 8, 16, 16, 16, 16, 32, 32, 48])


def test_only_operators_that_are_aligned_in_both_sizes_round() -> None:
    sizes = np.array([[20, 5], [21, 5], [20, 9], [6, 0]])
    np.testing.assert_array_equal(
        aligned_axes((BLOCKED, Alignment(step=4)), sizes), [[1, 1], [0, 1], [1, 1], [1, 1]]
    )
    on, counting = effective_sizes((BLOCKED, Alignment(step=4)), sizes)
    np.testing.assert_array_equal(on, aligned_axes((BLOCKED, Alignment(step=4)), sizes))
    np.testing.assert_array_equal(counting, [[32, 8], [21, 5], [32, 12], [6, 0]])


@pytest.mark.parametrize(
    "alignment", [BLOCKED, Alignment(), Alignment(step=16), Alignment(align=2, step=8), Alignment(8, 8, 4)]
)
def test_the_nearest_are_the_smallest_of_each_kind(alignment: Alignment) -> None:
    sizes = np.arange(0, 70)
    for aligned in (True,) if alignment.align == 1 else (True, False):
        for size, found in zip(
            sizes.tolist(), alignment.nearest(sizes, aligned=aligned).tolist(), strict=True
        ):
            onwards = np.arange(size, 200)
            assert found == onwards[alignment.is_aligned(onwards) == aligned][0]


def test_there_is_one_kind_if_all_are_aligned() -> None:
    with pytest.raises(ValueError, match="all sizes are aligned"):
        Alignment(step=8).nearest(np.arange(3), aligned=False)


def test_a_size_of_none_is_aligned() -> None:
    """An operator of one size has a second one of 0, which must not keep the first from being rounded."""
    assert BLOCKED.is_aligned(np.array([0])).all()
    np.testing.assert_array_equal(BLOCKED.nearest(np.array([0]), aligned=True), [0])
