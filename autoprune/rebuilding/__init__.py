"""Build the smaller model that a plan describes, and prove that it computes the same function.

Example:
    small = rebuild(prunable, plan)
    print(verify(prunable, plan, small))    # exact: the largest relative difference is 1.2e-15
"""

from __future__ import annotations

from autoprune.rebuilding._proof import random_inputs, verify
from autoprune.rebuilding._rebuilder import clone_structure, keep_positions, narrow, narrow_to, rebuild

__all__ = [
    "clone_structure",
    "keep_positions",
    "narrow",
    "narrow_to",
    "random_inputs",
    "rebuild",
    "verify",
]
