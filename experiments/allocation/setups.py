"""The two searches whose every plan is trained: a tenth of the FLOPs, or of the parameters, of one net.

context = context_of("flops")        # dense model, data, space, ranking and moments
context.plans                        # int64 [plans, 5]: every plan in the window of the budget
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from autoprune import run
from autoprune.config import load_config
from autoprune.criteria import Importance
from autoprune.execution import Setting
from autoprune.reconstruction import Moments, moments
from autoprune.run._resolving.dense import load_dense
from autoprune.run._resolving.ranking import rank_channels
from autoprune.run._resolving.resolve import trace_run
from autoprune.run._resolving.run import Run
from autoprune.run._resolving.spec import RunSpec
from autoprune.space import SearchSpace
from autoprune.study import WarmStart
from autoprune.support.arrays import IntArray

HERE = Path(__file__).parent
SETUPS = {"flops": "10%", "params": "10%"}
"""{key of [budget]: share of the dense model}."""

CRITERION = "l1"
SETTING = Setting(device="cpu", dtype="float32", channels_last=False, threads=1)


@dataclass(frozen=True)
class Context:
    """All that a search knows before its first trial.

    Attributes:
        run: the resolved run.
        ranked: the importance of all channels.
        moments: the moments of the dense model.
        plans: int64 [plans, groups], every plan whose cost is 98% to 100% of the budget.
    """

    run: Run
    ranked: Importance
    moments: Moments
    plans: IntArray


def spec_of(setup: str, *overrides: str) -> RunSpec:
    """Return the settings of a setup."""
    limit = f"budget.{setup}={SETUPS[setup]}"
    return run.settle(load_config(HERE / "signals.toml", (limit, *overrides)))


@functools.cache
def context_of(setup: str) -> Context:
    """Load model and data, trace the model, and list its plans."""
    torch.set_num_threads(SETTING.threads)
    spec = spec_of(setup)
    dense = load_dense(spec)
    traced = dataclasses.replace(trace_run(dense, spec, SETTING), watch=run.silent)
    plans = traced.space.plans
    if plans is None:
        raise AssertionError(f"{setup}: the space has too many plans to list")
    batches = [(inputs.clone(), targets) for inputs, targets in dense.data.train.batches(0, 0)][
        : spec.score.moment_images // 100 + 1
    ]
    measured = moments(traced.prunable, batches, images=spec.score.moment_images)
    return Context(traced, rank_channels(traced, CRITERION), measured, np.asarray(plans))


def plan_of(space: SearchSpace, start: WarmStart) -> IntArray:
    """Return the widths of a warm start, int64 [groups]."""
    ratios = space.ladder.ratios(np.array([start.levels], dtype=np.int64))
    plan: IntArray = space.decode(ratios)[0]
    return plan


def widths_of(context: Context, plan: IntArray) -> dict[str, int]:
    """Return {group name: width} of a row of plans."""
    return dict(zip(context.run.space.groups, map(int, plan), strict=True))
