"""Automated structured-pruning search for PyTorch vision models.

Bring a trained model, data and a budget; get a smaller, finetuned, exported one. See `autoprune --help`.
"""

from __future__ import annotations

from autoprune.api import finetune, load_config, resume, search
from autoprune.criteria import make_plan
from autoprune.errors import AutopruneError
from autoprune.export import ExportReport, export, load_pruned, save_pruned
from autoprune.graph import ChannelGroup, Cost, Plan, Prunable
from autoprune.rebuild import rebuild
from autoprune.tracing import trace
from autoprune.verify import verify

__all__ = [
    "AutopruneError",
    "ChannelGroup",
    "Cost",
    "ExportReport",
    "Plan",
    "Prunable",
    "export",
    "finetune",
    "load_config",
    "load_pruned",
    "make_plan",
    "rebuild",
    "resume",
    "save_pruned",
    "search",
    "trace",
    "verify",
]
