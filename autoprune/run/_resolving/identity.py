"""Fingerprints of all that must not change during a study: weights, data, channel groups, space and budget.

The study stores the fingerprints and refuses to resume with others.

Example:
    study.require(identify(run))
"""

from __future__ import annotations

import dataclasses
import hashlib
import json

from autoprune.errors import ExportError
from autoprune.graph import Prunable
from autoprune.run._resolving.dense import Dense
from autoprune.run._resolving.run import Run
from autoprune.run._resolving.spec import RunSpec
from autoprune.study import SCORE, SearchStudy
from autoprune.training import weights_hash

_WEIGHTS = "model (its weights)"


def identify_dense(dense: Dense, prunable: Prunable) -> dict[str, str]:
    """Return a fingerprint of the weights, the channel groups and the data."""
    return {
        _WEIGHTS: weights_hash(dense.model),
        "model (its channel groups)": prunable.fingerprint,
        "data": dense.data.fingerprint,
    }


def identify(run: Run) -> dict[str, str]:
    """Return a fingerprint of each part of a run that all trials of a study share."""
    space = json.dumps(dataclasses.asdict(run.spec.space), sort_keys=True)
    objectives, tolerance = run.spec.objectives, run.spec.tolerance
    return {
        **identify_dense(run.dense, run.prunable),
        "space": hashlib.sha256(space.encode()).hexdigest(),
        "budget": ", ".join(f"{name} {limit}" for name, limit in run.budget.limits.items()),
        **({} if tolerance is None else {"tolerance": f"{tolerance.allowed} of {tolerance.key.cost}"}),
        **({"objectives": ", ".join((SCORE, *objectives))} if objectives else {}),
        **({"depth": ", ".join(each.name for each in run.space.blocks)} if run.space.blocks else {}),
    }


def require_weights(dense: Dense, study: SearchStudy, spec: RunSpec) -> None:
    """Check that a dense model has the weights with which a study began.

    Raises:
        ExportError: the weights differ.
    """
    if weights_hash(dense.model) != study.identity[_WEIGHTS]:
        raise ExportError(
            f"{study.name}: {spec.model.checkpoint or 'the model'} does not hold the weights that the search "
            "began with. Restore them."
        )
