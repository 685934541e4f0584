"""The rebuilder: turns a dense model and a plan into a smaller model, and proves that it computes the same.

small = rebuild(prunable, plan)
verify(prunable, plan, small)
"""

from __future__ import annotations

from autoprune.rebuilding._proof import verify
from autoprune.rebuilding._rebuilder import clone_structure, keep_positions, narrow, narrow_to, rebuild

__all__ = [
    "clone_structure",
    "keep_positions",
    "narrow",
    "narrow_to",
    "rebuild",
    "verify",
]
