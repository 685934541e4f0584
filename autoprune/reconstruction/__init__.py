"""Repair by least squares: refit narrowed layers to the dense model's outputs, from unlabelled images.

Example:
    measured = moments(prunable, loader)                  # once for a dense model
    better = repair(prunable, plan, small, measured)      # milliseconds for each candidate
"""

from __future__ import annotations

from autoprune.reconstruction._closed import Repaired, repair_closed
from autoprune.reconstruction._elimination import Reader, eliminate
from autoprune.reconstruction._exchange import exchange
from autoprune.reconstruction._intercepts import normalised_by
from autoprune.reconstruction._layerwise import choose_by_layers
from autoprune.reconstruction._library import RATIOS, ErrorCurve, ErrorLibrary, error_library
from autoprune.reconstruction._modes import MODES, repair
from autoprune.reconstruction._readers import Readers
from autoprune.reconstruction._second_moments import (
    LIMIT_BYTES,
    POSITIONS,
    Moments,
    load_moments,
    measure_model,
    moments,
    save_moments,
)
from autoprune.reconstruction._sequential import repair_sequential

__all__ = [
    "LIMIT_BYTES",
    "MODES",
    "POSITIONS",
    "RATIOS",
    "ErrorCurve",
    "ErrorLibrary",
    "Moments",
    "Reader",
    "Readers",
    "Repaired",
    "choose_by_layers",
    "eliminate",
    "error_library",
    "exchange",
    "load_moments",
    "measure_model",
    "moments",
    "normalised_by",
    "repair",
    "repair_closed",
    "repair_sequential",
    "save_moments",
]
