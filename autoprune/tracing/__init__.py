"""Tracing: from a model to a prunable, each of whose groups was narrowed once to check the shapes.

prunable = trace(model, torch.zeros(1, 3, 32, 32))
"""

from __future__ import annotations

from autoprune.tracing._trace import trace

__all__ = [
    "trace",
]
