"""Makes the function that scores widths, here or in another process.

make_scorer = ScorerFactory(spec, setting, ranking)       # picklable; calling it loads model and data
for rung in make_scorer()({"layer1.0.conv1": 8}, seed=0): ...
"""

from __future__ import annotations

import copy
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autoprune.errors import StudyError
from autoprune.execution import Setting, fit_to_machine
from autoprune.graph import Prunable
from autoprune.reconstruction import Moments
from autoprune.run._dense import Dense, load_dense
from autoprune.run._identity import identify_dense
from autoprune.run._moments import StudyMoments
from autoprune.run._ranking import decode_ranking
from autoprune.run._spec import RunSpec
from autoprune.run._study_file import FileNote
from autoprune.score import FinetuneScore, with_model
from autoprune.support.userfunction import Imports, current_imports, importing
from autoprune.tracing import trace
from autoprune.train import Schedule
from autoprune.zoo import checkpoint_hash, load_checkpoint


def with_weights(prunable: Prunable, weights: Path | None) -> Prunable:
    """Return the prunable over the weights in a file, those of a supernet, if there is one.

    The traced model stays as it is.

    Raises:
        CheckpointError: the file cannot be read, or is of another architecture.
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
) -> FinetuneScore:
    """Build the score of a search from parts that are loaded already.

    Args:
        dense: model and data.
        prunable: the traced model.
        spec: the settings of the search.
        setting: how forward and backward passes run.
        ranking: the order of each group's channels.
        supernet: a file of weights that candidates are cut from, if not the dense model's.
        moments: of the model with these weights, for the rung "repair".
    """
    return FinetuneScore(
        with_weights(prunable, supernet),
        decode_ranking(ranking),
        dense.data,
        dense.task,
        setting,
        spec.rungs,
        schedule=Schedule(steps=1, warmup=0.0),
        calibration_batches=spec.score.calibration_batches,
        teacher=dense.model if spec.score.teacher == "dense" else None,
        moments=moments,
    )


def identify_parts(dense: Dense, prunable: Prunable, supernet: Path | None) -> dict[str, str]:
    """Return a fingerprint of each part that a score is built from; `supernet` is a file of weights.

    Raises:
        CheckpointError: the file cannot be read.
    """
    parts = identify_dense(dense, prunable)
    return parts if supernet is None else {**parts, "supernet": checkpoint_hash(supernet)}


@dataclass(frozen=True)
class ScorerFactory:
    """Makes the score of a search in a fresh process: all that it needs travels as plain values.

    Attributes:
        spec: the settings of the search.
        setting: how forward and backward passes run.
        ranking: the order of each group's channels.
        dense: model and data, where no names stand for them.
        supernet: the file of weights that candidates are cut from, if not the dense model's.
        moments: the note on the file of moments, for the rung "repair".
        parts: what `identify_parts` gave in the search: on another host a path may lead to other files.
        imports: the folders from which the functions that the config names are imported.
    """

    spec: RunSpec
    setting: Setting
    ranking: Mapping[str, str]
    dense: Dense | None = None
    supernet: Path | None = None
    moments: FileNote | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    imports: Imports = field(default_factory=current_imports)

    def __call__(self) -> FinetuneScore:
        """Load data and model (unless they travelled along), trace, and build the score.

        Raises:
            StudyError: a part is not the search's.
            CheckpointError: this machine has not the search's moments, and measures others.
        """
        with importing(self.imports):
            dense = self.dense or load_dense(self.spec)
        prunable = trace(dense.model, dense.example_inputs, frozen=self.spec.model.frozen)
        found = identify_parts(dense, prunable, self.supernet)
        differs = [name for name, fingerprint in self.parts.items() if found.get(name) != fingerprint]
        if differs:
            raise StudyError(
                f"worker on {socket.gethostname()}: its parts are not the search's: {', '.join(differs)} "
                "differs; put the same files there."
            )
        setting = fit_to_machine(self.setting)  # which another machine than this may have chosen
        moments = None
        if self.moments is not None:
            given = with_weights(prunable, self.supernet)
            here = StudyMoments(given, dense.data, self.spec, setting)
            moments = here.load(self.moments, str(self.spec.search.study))
        return make_score(dense, prunable, self.spec, setting, self.ranking, self.supernet, moments)
