"""Automated structured-pruning search for PyTorch vision models.

Bring a trained model, data and a budget; get a smaller, finetuned, exported one. See `autoprune --help`.
A name below is imported from its home when it is first used, so that `import autoprune` does not load torch.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoprune.api import finetune, resume, search
    from autoprune.config import load_config
    from autoprune.criteria import make_plan
    from autoprune.errors import AutopruneError
    from autoprune.export import ExportReport, export, load_pruned, save_pruned
    from autoprune.graph import ChannelGroup, Cost, Plan, Prunable
    from autoprune.rebuild import rebuild
    from autoprune.reconstruction import Moments, load_moments, moments, repair, save_moments
    from autoprune.tracing import trace
    from autoprune.verify import verify

__all__ = [
    "AutopruneError",
    "ChannelGroup",
    "Cost",
    "ExportReport",
    "Moments",
    "Plan",
    "Prunable",
    "export",
    "finetune",
    "load_config",
    "load_moments",
    "load_pruned",
    "make_plan",
    "moments",
    "rebuild",
    "repair",
    "resume",
    "save_moments",
    "save_pruned",
    "search",
    "trace",
    "verify",
]

_HOMES = {
    "api": ("finetune", "resume", "search"),
    "config": ("load_config",),
    "criteria": ("make_plan",),
    "errors": ("AutopruneError",),
    "export": ("ExportReport", "export", "load_pruned", "save_pruned"),
    "graph": ("ChannelGroup", "Cost", "Plan", "Prunable"),
    "rebuild": ("rebuild",),
    "reconstruction": ("Moments", "load_moments", "moments", "repair", "save_moments"),
    "tracing": ("trace",),
    "verify": ("verify",),
}


class _Package(ModuleType):
    """This package; importing a submodule never hides the public function that has its name."""

    def __setattr__(self, name: str, value: object) -> None:
        # On `import autoprune.export` the import system sets the submodule as an attribute of the package.
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Import a public name from its home; from then on it is a plain attribute."""
        for home, names in _HOMES.items():
            if name in names:
                value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
                globals()[name] = value
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        """List the public names before they are imported, too."""
        return sorted({*globals(), *__all__})
