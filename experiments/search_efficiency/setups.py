"""What is searched: a net with its budget, loaded and traced once a process.

context = context_of("resnet20-25", seed=0)      # model, data, problem, ranking. trials=60, warm starts on
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch

from autoprune import run
from autoprune.config import load_config
from autoprune.execution import Setting
from autoprune.run import Dense
from autoprune.run._measuring.statistics import MeasurementContext
from autoprune.run._resolving.dense import load_dense
from autoprune.run._resolving.ranking import rank_channels
from autoprune.run._resolving.resolve import trace_run
from autoprune.run._resolving.spec import RunSpec

HERE = Path(__file__).parent
RUNS = Path("runs/search_efficiency")

SETUPS = {
    "resnet20-25": ("resnet20.toml", "25%"),
    "resnet20-12": ("resnet20.toml", "12%"),
    "mobilenet-50": ("mobilenet.toml", "50%"),
}
"""{name: (config, share of the FLOPs)}."""

EVALUATIONS = 60
"""Trials of every sampler."""

SETTING = Setting(device="cpu", dtype="bfloat16", channels_last=True, threads=1)
"""One for all, so that scores compare. Chosen before, as the fastest on this kind of machine."""


def config_of(setup: str, seed: int, *overrides: str) -> RunSpec:
    """Return the config of a setup, settled."""
    file, share = SETUPS[setup]
    given = (f"budget.flops={share}", f"search.seed={seed}", f"search.trials={EVALUATIONS}", *overrides)
    return run.settle(load_config(HERE / file, given))


@functools.cache
def dense_of(file: str) -> Dense:
    """Load a config's dense model and data."""
    return load_dense(run.settle(load_config(HERE / file, ())))


@functools.cache
def context_of(setup: str, seed: int) -> MeasurementContext:
    """Return all that a search knows before its first trial."""
    torch.set_num_threads(SETTING.threads)
    config = config_of(setup, seed)
    dense = dense_of(SETUPS[setup][0])
    traced = trace_run(dense, config, SETTING)
    return MeasurementContext(traced, rank_channels(traced, config.search.criteria[0]))
