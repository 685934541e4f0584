"""The setups of the contest: nets with their data and budgets, and knowledge that all arms of a setup share.

Example:
    context = context_of("pairs-params", seed=0)      # model, data, space, ranking and moments
    load(context.run, model)                          # its cost as a share of the limit
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from autoprune import run
from autoprune.config import load_config
from autoprune.cost import LATENCY
from autoprune.execution import Setting
from autoprune.graph import Prunable
from autoprune.latency import Ratio, Stairs, side_by_side
from autoprune.run._measuring.moments import moments_of
from autoprune.run._measuring.statistics import MeasurementContext
from autoprune.run._resolving.dense import load_dense
from autoprune.run._resolving.latency import find_table, settle_divisor
from autoprune.run._resolving.problem import dense_cost_of, measures_of, trace_dense
from autoprune.run._resolving.ranking import rank_channels
from autoprune.run._resolving.resolve import trace_run
from autoprune.run._resolving.run import Run
from autoprune.run._resolving.spec import RunSpec
from autoprune.support.atomic import replacing
from autoprune.tracing import trace
from experiments.methods.pruned_rows import train_missing

RUNS = Path("runs/allocation")
SETTING = Setting(device="cpu", dtype="float32", channels_last=True, threads=1)


class Setup(NamedTuple):
    """A net with its data, and the budget."""

    config: str
    budget: str

    @property
    def limits_latency(self) -> bool:
        """Whether the budget is a latency."""
        return self.budget.startswith("latency")


RESNET20 = "experiments/search_efficiency/resnet20.toml"
PAIRS, FEW, MOBILENET = (f"experiments/allocation/{name}.toml" for name in ("pairs", "few", "mobilenet"))
SETUPS = {
    "pairs-params": Setup(PAIRS, "params=5%"),
    "pairs-memory": Setup(PAIRS, "peak_memory=50%"),
    "pairs-flops": Setup(PAIRS, "flops=10%"),
    "few-params": Setup(FEW, "params=5%"),
    "few-memory": Setup(FEW, "peak_memory=50%"),
    "few-flops": Setup(FEW, "flops=10%"),
    "resnet20-12": Setup(RESNET20, "flops=12%"),
    "resnet20-6": Setup(RESNET20, "flops=6%"),
    "mobilenet-latency-45": Setup(MOBILENET, "latency=45%"),
    "mobilenet-latency-30": Setup(MOBILENET, "latency=30%"),
}


def spec_of(setup: str, seed: int, *overrides: str) -> RunSpec:
    """Return the settings of a setup."""
    chosen = SETUPS[setup]
    given = (f"budget.{chosen.budget}", f"search.seed={seed}", "race.entrants=6", *overrides)
    return run.settle(load_config(chosen.config, given))


@functools.lru_cache(maxsize=1)
def context_of(setup: str, seed: int) -> MeasurementContext:
    """Load model and data, trace the model, and rank its channels.

    If the latency is limited, the divisor of the runtime and the latency table are measured once, and kept.
    """
    torch.set_num_threads(SETTING.threads)
    spec = spec_of(setup, seed)
    train_missing(load_config(SETUPS[setup].config, ()))
    dense, table = load_dense(spec), None
    if spec.limits_latency:
        prunable = trace_dense(dense, spec)
        spec = _with_divisor(spec, prunable)
        table = find_table(prunable, spec, print)
    traced = trace_run(dense, spec, SETTING, table=table)
    ranked = rank_channels(traced, spec.search.criteria[0])
    return MeasurementContext(traced, ranked, moments=moments_of(traced))


def _with_divisor(spec: RunSpec, prunable: Prunable) -> RunSpec:
    """Return the settings with the divisor of the runtime. It is measured once, for all searches."""
    if not spec.measures_divisor:
        return spec
    path = Path(str(spec.latency.table)).with_suffix(".stairs.json")
    if path.exists():
        stairs = Stairs.from_json(json.loads(path.read_text("utf-8")))
        return spec.with_search(divisor=stairs.divisor)
    spec, measured = settle_divisor(spec, prunable, print)
    if measured is not None:
        with replacing(path) as partial:
            partial.write_text(json.dumps(measured.to_json()), "utf-8")
    return spec


def costs(traced: Run, model: nn.Module) -> dict[str, float]:
    """Return the costs of a model as shares of the dense model's, those that depend on no device."""
    prunable = trace(model, traced.dense.example_inputs)
    cost = dense_cost_of(prunable, measures_of(prunable))
    names = ("macs", "params", "peak_memory_bytes")
    return {name: getattr(cost, name) / getattr(traced.dense_cost, name) for name in names}


def load(traced: Run, model: nn.Module) -> float:
    """Return the cost of a model as a share of the limit of the budget. A latency is measured."""
    if LATENCY in traced.budget.limits:
        return timed(traced, model).ratio / latency_limit(traced)
    shares = costs(traced, model)
    return max(
        float(shares[name] * getattr(traced.dense_cost, name) / limit)
        for name, limit in traced.budget.limits.items()
    )


def latency_limit(traced: Run) -> float:
    """Return the limit of the latency as a share of the dense model's."""
    return float(traced.budget.limits[LATENCY] / traced.dense_cost.known()[LATENCY])


def timed(traced: Run, model: nn.Module) -> Ratio:
    """Return the time of a model as a share of the dense model's, timed side by side as finalists are."""
    latency = traced.spec.latency
    with side_by_side(
        traced.prunable.model,
        traced.prunable.example_inputs,
        traced.spec.usable_runtime,
        tolerance=latency.tolerance,
        limit_seconds=latency.limit_seconds,
    ) as measure:
        _, _, ratio = measure(model)
    return ratio
