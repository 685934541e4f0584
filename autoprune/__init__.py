"""Automated structured-pruning search for PyTorch vision models.

It makes a trained model smaller within a budget, finetunes it and exports it. See `autoprune --help`.
A name below is imported from its home when it is first used, so that `import autoprune` does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoprune import data as data
    from autoprune import nn as nn
    from autoprune.config import load_config
    from autoprune.criteria import make_plan
    from autoprune.errors import AutopruneError
    from autoprune.exporting import ExportReport, load_pruned, save_pruned
    from autoprune.graph import ChannelGroup, Cost, Plan, Prunable
    from autoprune.rebuilding import rebuild, verify
    from autoprune.reconstruction import Moments, load_moments, moments, repair, save_moments
    from autoprune.run import (
        bench,
        best,
        budget_curve,
        error_curves,
        export,
        export_int8,
        finetune,
        inspect,
        prune,
        recalibrate,
        report,
        resume,
        search,
        sensitivity_curves,
        train,
    )
    from autoprune.tracing import trace

__all__ = [
    "AutopruneError",
    "ChannelGroup",
    "Cost",
    "ExportReport",
    "Moments",
    "Plan",
    "Prunable",
    "bench",
    "best",
    "budget_curve",
    "error_curves",
    "export",
    "export_int8",
    "finetune",
    "inspect",
    "load_config",
    "load_moments",
    "load_pruned",
    "make_plan",
    "moments",
    "prune",
    "rebuild",
    "recalibrate",
    "repair",
    "report",
    "resume",
    "save_moments",
    "save_pruned",
    "search",
    "sensitivity_curves",
    "trace",
    "train",
    "verify",
]

_HOMES = {
    "config": ("load_config",),
    "criteria": ("make_plan",),
    "errors": ("AutopruneError",),
    "exporting": ("ExportReport", "load_pruned", "save_pruned"),
    "graph": ("ChannelGroup", "Cost", "Plan", "Prunable"),
    "rebuilding": ("rebuild", "verify"),
    "reconstruction": ("Moments", "load_moments", "moments", "repair", "save_moments"),
    "run": (
        "bench",
        "best",
        "budget_curve",
        "error_curves",
        "export",
        "export_int8",
        "finetune",
        "inspect",
        "prune",
        "recalibrate",
        "report",
        "resume",
        "search",
        "sensitivity_curves",
        "train",
    ),
    "tracing": ("trace",),
}


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Import a public name from its home. From then on it is a plain attribute."""
        if name in ("data", "nn"):  # used as autoprune.data.load and autoprune.nn.ChannelSelection
            return importlib.import_module(f"{__name__}.{name}")
        for home, names in _HOMES.items():
            if name in names:
                value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
                globals()[name] = value
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        """List the public names before they are imported, too."""
        return sorted({*globals(), *__all__})
