"""What a candidate costs, computed from its widths alone: MACs, parameters, size and peak memory.

make_footprint(prunable).peak_bytes(widths)
"""

from __future__ import annotations

from autoprune.cost._footprint import make_footprint
from autoprune.cost._formula import axis_size, make_formula

__all__ = [
    "axis_size",
    "make_footprint",
    "make_formula",
]
