"""Which cuts are evaluated to learn how each variable of a space is alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from autoprune.score import plan_cuts
from autoprune.space import Levels
from autoprune.space._levels import allowed_widths, make_levels


def rows_of(widths: Sequence[int], divisor: int = 1) -> list[Levels]:
    return [
        make_levels(f"v{i}", [i], [width], [allowed_widths(width, step=divisor, low=0.2, high=1.0, floor=1)])
        for i, width in enumerate(widths)
    ]


@pytest.mark.parametrize(
    ("variables", "evaluations", "cuts"),
    [(12, 80, 48), (12, 49, 48), (12, 48, 36), (37, 80, 74), (40, 80, 39 * 2), (300, 80, 78), (3, 1, 1)],
)
def test_the_evaluations_are_capped(variables: int, evaluations: int, cuts: int) -> None:
    """First fewer ratios, then neighbours together; every variable is always cut somewhere."""
    rows = rows_of([64] * variables)
    planned = plan_cuts(rows, evaluations)
    assert len(planned) == cuts <= max(1, evaluations - 1)
    assert {variable for cut in planned for variable in cut} == set(range(variables))
    assert all(rows[v].ratios[level] < 1 for cut in planned for v, level in cut.items())
    if variables * 2 < evaluations:
        assert all(len(cut) == 1 for cut in planned)


def test_cuts_are_spread_from_the_lowest_ratio_and_never_repeat() -> None:
    rows = rows_of([64, 8], divisor=4)
    planned = plan_cuts(rows, 80)
    ratios = [rows[0].ratios[cut[0]] for cut in planned if 0 in cut]
    assert ratios[0] == rows[0].ratios[0]
    np.testing.assert_allclose(np.diff(ratios), 0.2, atol=0.04)
    assert [cut[1] for cut in planned if 1 in cut] == [0], "a group of two widths has one cut"
