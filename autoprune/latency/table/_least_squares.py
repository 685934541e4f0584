"""Non-negative least squares: nothing that a model computes can take negative time.

Example:
    solve_non_negative(columns, ms)          # float64 [columns], each >= 0
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from autoprune.errors import LatencyError
from autoprune.support.arrays import FloatArray

_STEPS_PER_COLUMN = 30
"""Ten times scipy's own limit, which nearly dependent columns may reach."""


def solve_non_negative(columns: FloatArray, target: FloatArray) -> FloatArray:
    """Return the non-negative coefficients [columns] with the smallest squared error.

    Args:
        columns: float64 [n, columns].
        target: float64 [n].

    Raises:
        LatencyError: the solver does not converge.
    """
    try:
        solved, _ = nnls(columns, target, maxiter=_STEPS_PER_COLUMN * columns.shape[1])
    except RuntimeError as error:
        raise LatencyError(
            f"latency table: a fit of {columns.shape[1]} coefficients to {len(target)} readings does not "
            "converge. Measure again while the device runs nothing else, or use another latency.probe."
        ) from error
    return np.asarray(solved)
