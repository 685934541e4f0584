"""The error library of a run's dense model, from unlabelled training images.

library = measure_library(dense, prunable, groups, seed=0)
"""

from __future__ import annotations

from collections.abc import Sequence

from autoprune.graph import ChannelGroup
from autoprune.pipeline.dense import Dense
from autoprune.pipeline.events import Counted, Stage, Watcher, silent
from autoprune.reconstruction import ErrorLibrary, error_library
from autoprune.reconstruction.second_moments import IMAGES, Moments, measure_model


def measure_library(
    dense: Dense, groups: Sequence[ChannelGroup], *, seed: int, watch: Watcher = silent
) -> ErrorLibrary:
    """Measure the moments of the dense model, and find the error of each group at every width.

    Args:
        dense: model and data.
        groups: of the traced model.
        seed: chooses the images and the positions in them.
        watch: told how it goes on.
    """
    images = min(IMAGES, dense.data.train.samples)
    watch(Stage(f"error curves of {len(groups)} groups from {images:,} training images"))
    measured = measure_moments(dense, seed)
    return error_library(
        dense.model,
        groups,
        measured,
        done=lambda done: watch(Counted("error curves", done, len(groups))),
    )


def measure_moments(dense: Dense, seed: int) -> Moments:
    """Return the moments of the dense model's layers on training images."""
    batches = (inputs.cpu() for inputs, _ in dense.data.train.batches(seed, 0))
    return measure_model(dense.model, batches, seed=seed)
