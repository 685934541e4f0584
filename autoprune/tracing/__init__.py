"""Trace a model into channel groups, and check on a narrowed copy that the groups can be narrowed.

Example:
    prunable = trace(model, torch.zeros(1, 3, 32, 32))
"""

from __future__ import annotations

from autoprune.tracing._trace import trace

__all__ = [
    "trace",
]
