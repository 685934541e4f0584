"""Repair by least squares: narrowed layers are refitted to the dense ones from unlabelled images.

moments = measure_moments(prunable, loader)                 # once a dense model
repaired = repair_closed(prunable, plan, small, moments)    # milliseconds a candidate
"""

from __future__ import annotations

from autoprune.reconstruction.closed import Repaired, repair_closed
from autoprune.reconstruction.modes import MODES, repair
from autoprune.reconstruction.moments import Moments, load_moments, measure_moments, save_moments
from autoprune.reconstruction.sequential import repair_sequential

__all__ = [
    "MODES",
    "Moments",
    "Repaired",
    "load_moments",
    "measure_moments",
    "repair",
    "repair_closed",
    "repair_sequential",
    "save_moments",
]
