"""The error library of a run's dense model, with its progress shown.

library = measure_library(prunable.model, prunable.searchable, moments, watch)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from autoprune.graph import ChannelGroup
from autoprune.pipeline.events import Counted, Stage, Watcher
from autoprune.reconstruction import ErrorLibrary, Moments, error_library


def measure_library(
    model: nn.Module, groups: Sequence[ChannelGroup], moments: Callable[[], Moments], watch: Watcher
) -> ErrorLibrary:
    """Find the error of each group at every width.

    Args:
        model: the dense model.
        groups: of the traced model.
        moments: returns the moments of the dense model; they are measured now if they are not yet.
        watch: is shown how it goes on.
    """
    measured = moments()
    watch(Stage(f"error curves of {len(groups)} groups"))
    return error_library(
        model,
        groups,
        measured,
        done=lambda done: watch(Counted("error curves", done, len(groups))),
    )
