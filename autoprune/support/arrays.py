"""Type aliases of NumPy arrays.

Example:
    widths: IntArray = np.array([[16, 32], [8, 16]])      # [candidates, groups]
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
