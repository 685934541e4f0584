"""Grains: which sizes are aligned, what they are rounded to, and which comes next."""

from __future__ import annotations

import numpy as np
import pytest

from autoprune.latency.table._alignment import Grain, effective, on_both

BLOCKED = Grain(align=4, step=16, free=8)


def test_small_sizes_are_aligned_and_whole() -> None:
    sizes = np.array([1, 7, 8, 9, 12, 14, 16, 20, 32, 33])
    np.testing.assert_array_equal(BLOCKED.on(sizes), [1, 1, 1, 0, 1, 0, 1, 1, 1, 0])
    np.testing.assert_array_equal(BLOCKED.rounded(sizes), [1, 7, 8, 16, 16, 16, 16, 32, 32, 48])


def test_only_operators_that_are_aligned_in_both_sizes_round() -> None:
    sizes = np.array([[20, 5], [21, 5], [20, 9], [6, 0]])
    np.testing.assert_array_equal(on_both((BLOCKED, Grain(step=4)), sizes), [[1, 1], [0, 1], [1, 1], [1, 1]])
    on, counting = effective((BLOCKED, Grain(step=4)), sizes)
    np.testing.assert_array_equal(on, on_both((BLOCKED, Grain(step=4)), sizes))
    np.testing.assert_array_equal(counting, [[32, 8], [21, 5], [32, 12], [6, 0]])


@pytest.mark.parametrize("grain", [BLOCKED, Grain(), Grain(step=16), Grain(align=2, step=8), Grain(8, 8, 4)])
def test_the_nearest_are_the_smallest_of_each_kind(grain: Grain) -> None:
    sizes = np.arange(0, 70)
    for aligned in (True,) if grain.align == 1 else (True, False):
        for size, found in zip(sizes.tolist(), grain.nearest(sizes, aligned=aligned).tolist(), strict=True):
            onwards = np.arange(size, 200)
            assert found == onwards[grain.on(onwards) == aligned][0]


def test_where_all_are_aligned_there_is_no_other_kind() -> None:
    with pytest.raises(ValueError, match="all sizes are aligned"):
        Grain(step=8).nearest(np.arange(3), aligned=False)


def test_a_size_of_none_is_aligned() -> None:
    """An operator of one size has a second one of 0, which must not keep the first from being rounded."""
    assert BLOCKED.on(np.array([0])).all()
    np.testing.assert_array_equal(BLOCKED.nearest(np.array([0]), aligned=True), [0])
