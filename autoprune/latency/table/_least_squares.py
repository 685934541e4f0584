"""Own the least squares of a table: coefficients of what takes time, none of which is negative.

Before: columns of what was varied and the milliseconds measured; after: `surfaces`, `works` and `fits` make
surfaces of the coefficients.

    solve_non_negative(columns, ms)          # float64 [columns], each >= 0
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from autoprune.errors import LatencyError
from autoprune.support.arrays import FloatArray

_STEPS_A_COLUMN = 30
"""Ten times scipy's own limit, which columns that nearly depend on one another may reach."""


def solve_non_negative(columns: FloatArray, target: FloatArray) -> FloatArray:
    """Return the coefficients [columns], none negative, of least squared error.

    Args:
        columns: [n, columns].
        target: [n].

    Raises:
        LatencyError: the solution does not settle.
    """
    try:
        solved, _ = nnls(columns, target, maxiter=_STEPS_A_COLUMN * columns.shape[1])
    except RuntimeError as error:
        raise LatencyError(
            f"latency table: a fit of {columns.shape[1]} coefficients to {len(target)} readings does not "
            "settle; measure anew while the device does nothing else, or take another latency.probe."
        ) from error
    return np.asarray(solved)
