"""What must be the same when a search goes on: weights, data, channel groups, space and budget.

Before: a posed problem; after: the study keeps the fingerprints, and refuses a resume under others.

    study.require(identify(dense, problem, config))
"""

from __future__ import annotations

import dataclasses
import hashlib
import json

from autoprune.config.settings import RunConfig
from autoprune.graph import Prunable
from autoprune.run._dense import Dense
from autoprune.run._objectives import objective_costs
from autoprune.run._problem import Problem, space_spec
from autoprune.study import SCORE
from autoprune.train import weights_hash

WEIGHTS = "model (its weights)"


def identify_dense(dense: Dense, prunable: Prunable) -> dict[str, str]:
    """Return a fingerprint of each thing that scores are made from, wherever it was loaded."""
    return {
        WEIGHTS: weights_hash(dense.model),
        "model (its channel groups)": prunable.fingerprint,
        "data": dense.data.fingerprint,
    }


def identify(dense: Dense, problem: Problem, config: RunConfig) -> dict[str, str]:
    """Return a fingerprint of each thing that the trials of a study have in common."""
    spec = json.dumps(dataclasses.asdict(space_spec(config)), sort_keys=True)
    limits = problem.budget.limits
    objectives = objective_costs(config.search)
    return {
        **identify_dense(dense, problem.prunable),
        "space": hashlib.sha256(spec.encode()).hexdigest(),
        "budget": ", ".join(f"{name} {limit}" for name, limit in limits.items()),
        **({"objectives": ", ".join((SCORE, *objectives))} if objectives else {}),
    }
