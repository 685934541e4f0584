"""What must be the same when a search goes on: weights, data, channel groups, space and budget.

Before: a posed problem; after: the study keeps the fingerprints, and refuses a resume under others.

    study.require(identify(dense, problem, config))
"""

from __future__ import annotations

import dataclasses
import hashlib
import json

import torch
from torch import nn

from autoprune.pipeline.dense import Dense
from autoprune.pipeline.problem import Problem, space_spec
from autoprune.settings import RunConfig


def identify(dense: Dense, problem: Problem, config: RunConfig) -> dict[str, str]:
    """Return a fingerprint of each thing that the trials of a study have in common."""
    spec = json.dumps(dataclasses.asdict(space_spec(config)), sort_keys=True)
    limits = problem.budget.limits
    return {
        "model (its weights)": weights_hash(dense.model),
        "model (its channel groups)": problem.prunable.fingerprint,
        "data": dense.data.fingerprint,
        "space": hashlib.sha256(spec.encode()).hexdigest(),
        "budget": ", ".join(f"{name} {limit}" for name, limit in limits.items()),
    }


def weights_hash(model: nn.Module) -> str:
    """Return the sha256 of all parameters and buffers, by name, whatever file they came from."""
    digest = hashlib.sha256()
    for name, leaf in model.state_dict().items():
        digest.update(f"{name}|{leaf.dtype}|{tuple(leaf.shape)}".encode())
        digest.update(leaf.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
