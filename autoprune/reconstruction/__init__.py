"""Repair by least squares: narrowed layers are refitted to the dense ones from unlabelled images.

measured = moments(prunable, loader)                  # once a dense model
better = repair(prunable, plan, small, measured)      # milliseconds a candidate
"""

from __future__ import annotations

from autoprune.reconstruction.closed import Repaired, repair_closed
from autoprune.reconstruction.library import ErrorCurve, ErrorLibrary, error_library
from autoprune.reconstruction.modes import MODES, repair
from autoprune.reconstruction.second_moments import Moments, load_moments, moments, save_moments
from autoprune.reconstruction.sequential import repair_sequential

__all__ = [
    "MODES",
    "ErrorCurve",
    "ErrorLibrary",
    "Moments",
    "Repaired",
    "error_library",
    "load_moments",
    "moments",
    "repair",
    "repair_closed",
    "repair_sequential",
    "save_moments",
]
