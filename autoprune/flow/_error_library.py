"""Measures the output error of each channel group at every width, and finds the plan with the least error.

Example:
    library = measure_library(prunable.model, prunable.searchable, moments, watch)
    levels = least_error(space, library)                     # int64 [k], in well under a second
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import nn

from autoprune.criteria import Importance
from autoprune.graph import ChannelGroup
from autoprune.reconstruction import ErrorLibrary, Moments, error_library
from autoprune.space import SearchSpace, error_values, knapsack
from autoprune.support.arrays import IntArray
from autoprune.support.events import Counted, Stage, Watcher


def measure_library(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    moments: Callable[[], Moments],
    watch: Watcher,
    ranked: Importance | None = None,
) -> ErrorLibrary:
    """Compute the output error of each group at every width.

    Args:
        model: the dense model.
        groups: channel groups of the traced model.
        moments: returns the moments of the dense model, and measures them if necessary.
        watch: called with events that report the progress.
        ranked: the importance of channels. The least important ones are removed first. Without it, those are
            removed first that increase the error least.
    """
    measured = moments()
    watch(Stage(f"error curves of {len(groups)} groups"))
    orders = None
    if ranked is not None:
        orders = {group.name: np.argsort(-ranked[group.name], kind="stable") for group in groups}
    return error_library(
        model,
        groups,
        measured,
        orders=orders,
        done=lambda done: watch(Counted("error curves", done, len(groups))),
    )


def least_error(space: SearchSpace, library: ErrorLibrary) -> IntArray:
    """Return the levels [k] of a space's variables with the least sum of errors within its budget."""
    errors = [[library.curves[name].errors for name in variable.groups] for variable in space.variables]
    return knapsack(space.ladder, error_values(space.ladder.rows, errors))
