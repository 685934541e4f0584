"""Builds the function that scores widths, in this process or in a worker.

Example:
    make_scorer = ScorerFactory(spec, setting, ranking)       # picklable. The call loads model and data.
    for rung in make_scorer()({"layer1.0.conv1": 8}, seed=0): ...
"""

from __future__ import annotations

import copy
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from autoprune.errors import StudyError
from autoprune.execution import Setting, fit_to_machine
from autoprune.graph import Prunable
from autoprune.reconstruction import Moments
from autoprune.run._measuring.moments import StudyMoments
from autoprune.run._resolving.dense import Dense, load_dense
from autoprune.run._resolving.identity import identify_dense
from autoprune.run._resolving.problem import trace_dense
from autoprune.run._resolving.ranking import decode_ranking
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._resolving.study_file import FileNote
from autoprune.score import FinetuneScore, with_model
from autoprune.support.userfunction import Imports, current_imports, importing
from autoprune.zoo import checkpoint_hash, load_checkpoint


def with_weights(prunable: Prunable, weights: Path | None) -> Prunable:
    """Return the prunable with the weights from a file, such as those of a supernet.

    The traced model itself is not changed.

    Args:
        prunable: the traced model.
        weights: the file, or None to return `prunable`.

    Raises:
        CheckpointError: the file cannot be read, or belongs to another architecture.
    """
    if weights is None:
        return prunable
    model = copy.deepcopy(prunable.model)
    load_checkpoint(model, weights)
    return with_model(prunable, model)


def make_score(
    dense: Dense,
    prunable: Prunable,
    spec: RunSpec,
    setting: Setting,
    ranking: Mapping[str, str],
    supernet: Path | None = None,
    moments: Moments | None = None,
    others: Mapping[str, Mapping[str, str]] | None = None,
) -> FinetuneScore:
    """Build the score of a search from a loaded model and loaded data.

    Args:
        dense: model and data.
        prunable: the traced model.
        spec: the settings of the search.
        setting: how forward and backward passes run.
        ranking: the order of each group's channels.
        supernet: the file of weights from which candidates are cut, or None for those of the dense model.
        moments: the moments of the model with these weights, for the rung "repair".
        others: {criterion: such an order} of further criteria that candidates choose from.
    """
    return FinetuneScore(
        with_weights(prunable, supernet),
        decode_ranking(ranking),
        dense.data,
        dense.task,
        setting,
        spec.rungs,
        schedule=spec.rung_schedule,
        calibration_batches=spec.score.calibration_batches,
        teacher=dense.model if spec.score.teacher == "dense" else None,
        moments=moments,
        rankings={criterion: decode_ranking(each) for criterion, each in (others or {}).items()},
    )


def identify_parts(dense: Dense, prunable: Prunable, supernet: Path | None) -> dict[str, str]:
    """Return a fingerprint of each part of a score: weights, channel groups, data and supernet.

    Args:
        dense: model and data.
        prunable: the traced model.
        supernet: the file of weights from which candidates are cut, or None for those of the dense model.

    Raises:
        CheckpointError: the file cannot be read.
    """
    parts = identify_dense(dense, prunable)
    return parts if supernet is None else {**parts, "supernet": checkpoint_hash(supernet)}


class ScoreParts(NamedTuple):
    """The loaded parts of a score, which are the arguments of `make_score`."""

    dense: Dense
    prunable: Prunable
    spec: RunSpec
    setting: Setting
    ranking: Mapping[str, str]
    supernet: Path | None = None
    moments: Moments | None = None
    others: Mapping[str, Mapping[str, str]] | None = None


@dataclass(frozen=True)
class ScorerFactory:
    """Builds the score of a search in a worker. All its attributes can be pickled.

    Attributes:
        spec: the settings of the search.
        setting: how forward and backward passes run.
        ranking: the order of each group's channels.
        dense: model and data, if the settings do not name them.
        supernet: the file of weights from which candidates are cut, or None for those of the dense model.
        moments: the note on the file of moments, for the rung "repair".
        parts: the result of `identify_parts` in the process of the search. On another host the same path may
            lead to different files.
        others: {criterion: such an order} of further criteria that candidates choose from.
        imports: the folders from which the functions that the config names are imported.
    """

    spec: RunSpec
    setting: Setting
    ranking: Mapping[str, str]
    dense: Dense | None = None
    supernet: Path | None = None
    moments: FileNote | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    imports: Imports = field(default_factory=current_imports)

    def __call__(self) -> FinetuneScore:
        """Load the parts, and build the score."""
        return make_score(*self.load())

    def load(self) -> ScoreParts:
        """Load data and model unless they were pickled as well, and trace the model.

        Raises:
            StudyError: weights, channel groups, data or supernet differ from those of the search.
            CheckpointError: this machine lacks the file of moments, and measures different ones.
        """
        with importing(self.imports):
            dense = self.dense or load_dense(self.spec)
        prunable = trace_dense(dense, self.spec)
        found = identify_parts(dense, prunable, self.supernet)
        differs = [name for name, fingerprint in self.parts.items() if found.get(name) != fingerprint]
        if differs:
            raise StudyError(
                f"worker on {socket.gethostname()}: loaded other parts than the search: "
                f"{', '.join(differs)}. Copy the search's files there."
            )
        setting = fit_to_machine(self.setting)  # it may have been chosen on another machine
        moments = None
        if self.moments is not None:
            given = with_weights(prunable, self.supernet)
            here = StudyMoments(given, dense.data, self.spec, setting)
            moments = here.load(self.moments, str(self.spec.search.study))
        return ScoreParts(
            dense, prunable, self.spec, setting, self.ranking, self.supernet, moments, self.others
        )
