"""Claim: where one ratio for all layers is wrong, a search finds widths that stay better after a finetune.

    python -m experiments.allocation.contest [--setups pairs-params] [--arms uniform search] [--seeds 0 1]
    python -m experiments.allocation.contest --table

An arm is a way to choose the widths: one ratio, each heuristic of the warm starts, other tools, random search
with as many trials as the default search, and the default search, with and without depth. All arms of a setup
fill the same budget and get the same finetune, once with each of two learning rates, with the dense model as
teacher. The one with the higher validation score counts. Arms of autoprune keep channels by the default
criterion and start from refitted layers. Those of other tools keep their own channels and weights. The test
part is read once, at the end of each finetune. Rows are appended to contest.csv as they come, and a search or
a finetune that was cut off continues.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from autoprune import run
from autoprune.config import load_config
from autoprune.criteria import plan_from_importance
from autoprune.execution import Setting
from autoprune.graph import Plan
from autoprune.run._measuring.heuristics import DEPTH, WARM_STARTS
from autoprune.run._measuring.moments import moments_of
from autoprune.run._measuring.statistics import MeasurementContext
from autoprune.run._measuring.warm_starts import choose_warm_starts
from autoprune.run._resolving.dense import load_dense
from autoprune.run._resolving.problem import dense_cost_of, measures_of
from autoprune.run._resolving.ranking import rank_channels
from autoprune.run._resolving.resolve import trace_run
from autoprune.run._resolving.run import Run
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._trials.cut_trial import plan_of_trial
from autoprune.score import cut_model
from autoprune.tracing import trace
from autoprune.training import evaluate
from experiments.allocation import kirigami
from experiments.allocation.replay import interval
from experiments.allocation.setups import HERE, plan_of
from experiments.common import append_row, markdown_table, rows_of
from experiments.finetuning import finetuned, searched
from experiments.methods.pruned_rows import train_missing
from experiments.search_efficiency import torch_pruning_plans

RESULTS = HERE / "contest.csv"
RUNS = Path("runs/allocation")
RATES = (0.05, 0.02)
"""Learning rates of the finetune."""

UNIFORM = "uniform"
KIRIGAMI = "kirigami-greedy"
SEARCH_DEPTH = "search, depth"


SETTING = Setting(device="cpu", dtype="float32", channels_last=True, threads=1)


class Setup(NamedTuple):
    """A net with its data, and the budget."""

    config: str
    budget: str


RESNET20 = "experiments/search_efficiency/resnet20.toml"
PAIRS, FEW = (f"experiments/allocation/{name}.toml" for name in ("pairs", "few"))
SETUPS = {
    "pairs-params": Setup(PAIRS, "params=5%"),
    "pairs-memory": Setup(PAIRS, "peak_memory=50%"),
    "pairs-flops": Setup(PAIRS, "flops=10%"),
    "few-params": Setup(FEW, "params=5%"),
    "few-memory": Setup(FEW, "peak_memory=50%"),
    "few-flops": Setup(FEW, "flops=10%"),
    "resnet20-12": Setup(RESNET20, "flops=12%"),
    "resnet20-6": Setup(RESNET20, "flops=6%"),
}


@dataclass(frozen=True)
class Candidate:
    """A small model before its finetune.

    Attributes:
        model: the model.
        widths: of the searchable groups, in their order, or "" for models of other tools.
        search_s: seconds that the choice took, without a race.
    """

    model: nn.Module
    widths: str
    search_s: float


Arm = Callable[[str, int], Candidate]
"""From a setup and a seed to a candidate."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--setups", nargs="+", default=list(SETUPS), choices=SETUPS)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--table", action="store_true", help="print the tables of what is measured so far")
    options = parser.parse_args()
    if options.table:
        for setup in options.setups:
            print("\n".join(table(setup)))
        return
    RUNS.mkdir(parents=True, exist_ok=True)
    done = {(row["setup"], row["arm"], int(row["seed"])) for row in rows_of(RESULTS)}
    for seed, setup, arm in itertools.product(options.seeds, options.setups, options.arms):
        if (setup, arm, seed) not in done and fits(setup, arm):
            append_row(RESULTS, measure(setup, arm, seed))


def fits(setup: str, arm: str) -> bool:
    """Return whether an arm is one for the net and the budget of a setup."""
    chosen = SETUPS[setup]
    if arm == KIRIGAMI:
        return chosen.budget.startswith("params")
    return arm != SEARCH_DEPTH or chosen.config == RESNET20


def spec_of(setup: str, seed: int, *overrides: str) -> RunSpec:
    """Return the settings of a setup."""
    chosen = SETUPS[setup]
    given = (f"budget.{chosen.budget}", f"search.seed={seed}", "race.entrants=6", *overrides)
    return run.settle(load_config(chosen.config, given))


@functools.lru_cache(maxsize=1)
def context_of(setup: str, seed: int) -> MeasurementContext:
    """Load model and data, trace the model, and rank its channels."""
    torch.set_num_threads(SETTING.threads)
    spec = spec_of(setup, seed)
    train_missing(load_config(SETUPS[setup].config, ()))
    traced = trace_run(load_dense(spec), spec, SETTING)
    ranked = rank_channels(traced, spec.search.criteria[0])
    return MeasurementContext(traced, ranked, moments=moments_of(traced))


def measure(setup: str, arm: str, seed: int) -> dict[str, object]:
    """Choose a candidate, finetune it with each learning rate, and test the better one."""
    context = context_of(setup, seed)
    candidate = ARMS[arm](setup, seed)
    traced = context.run
    before = evaluate(candidate.model, traced.dense.data.val, traced.dense.task, SETTING)
    costs = _costs(traced, candidate.model)
    ends = {}
    for rate in RATES:
        started = time.process_time()
        fitted, test = finetuned(
            copy.deepcopy(candidate.model),
            traced.dense,
            spec_of(setup, seed, f"finetune.learning_rate={rate}"),
            SETTING,
            seed=seed,
            checkpoint=RUNS / f"contest-{setup}-{arm}-{seed}-{rate}.training",
        )
        ends[rate] = (fitted.score, test, time.process_time() - started)
    rate = max(ends, key=lambda each: ends[each][0])
    score, test, seconds = ends[rate]
    return {
        "setup": setup,
        "arm": arm,
        "seed": seed,
        **{name: round(cost, 4) for name, cost in costs.items()},
        "before": round(before, 4),
        "val": round(score, 4),
        "test": round(test, 4),
        "rate": rate,
        "search_s": round(candidate.search_s),
        "finetune_s": round(seconds),
        "widths": candidate.widths,
    }


def _costs(traced: Run, model: nn.Module) -> dict[str, float]:
    """Return the costs of a model as shares of the dense model's, those that depend on no device."""
    prunable = trace(model, traced.dense.example_inputs)
    cost = dense_cost_of(prunable, measures_of(prunable))
    names = ("macs", "params", "peak_memory_bytes")
    return {name: getattr(cost, name) / getattr(traced.dense_cost, name) for name in names}


def _load(traced: Run, model: nn.Module) -> float:
    """Return the cost of a model as a share of the limit of the budget."""
    shares = _costs(traced, model)
    return max(
        float(shares[name] * getattr(traced.dense_cost, name) / limit)
        for name, limit in traced.budget.limits.items()
    )


def of_plan(context: MeasurementContext, plan: Plan, search_s: float) -> Candidate:
    """Cut the dense model by a plan, and refit the layers."""
    traced = context.run
    moments = context.moments or moments_of(traced)
    model = cut_model(traced.prunable, plan, moments())
    widths = " ".join(str(plan.widths.get(group.name, group.width)) for group in traced.prunable.searchable)
    return Candidate(model, widths, search_s)


def by_heuristic(name: str) -> Arm:
    """Return the arm of a warm start, by its name in WARM_STARTS."""

    def candidate(setup: str, seed: int) -> Candidate:
        context = context_of(setup, seed)
        spec = spec_of(setup, seed, f"search.warm_starts=['{name}']")
        traced = trace_run(context.run.dense, spec, SETTING)
        started = time.process_time()
        (start,) = choose_warm_starts(dataclasses.replace(context, run=traced)).trials
        seconds = time.process_time() - started
        widths = dict(zip(traced.space.groups, map(int, plan_of(traced.space, start)), strict=True))
        return of_plan(context, plan_from_importance(traced.prunable, widths, context.ranked), seconds)

    return candidate


def by_search(name: str, *overrides: str) -> Arm:
    """Return the arm of a search with the defaults, except for some settings.

    Args:
        name: of the arm, for its study.
        overrides: the settings.
    """

    def candidate(setup: str, seed: int) -> Candidate:
        context = context_of(setup, seed)
        study_name = f"contest-{setup}-{name}-{seed}"
        folder = (RUNS / study_name).resolve()
        spec = spec_of(
            setup,
            seed,
            f"search.storage=sqlite:///{folder}.db",
            f"search.study={study_name}",
            "search.setting=float32 channels_last",
            f"output.folder={folder}",
            *overrides,
        )
        study = searched(spec)
        trials = sum(record.seconds or 0.0 for record in study.records())
        seconds = sum(study.facts.warm_starts.seconds.values()) + trials
        return of_plan(context, plan_of_trial(context.run, study, study.best()), seconds)

    return candidate


def by_torch_pruning(name: str) -> Arm:
    """Return the arm of Torch-Pruning's global pruning, whose channels are of its own choice."""

    def candidate(setup: str, seed: int) -> Candidate:
        traced = context_of(setup, seed).run
        dense = traced.dense
        started = time.process_time()
        model = torch_pruning_plans.pruned(
            dense.model, dense.example_inputs, name, lambda each: _load(traced, each)
        )
        return Candidate(model, "", time.process_time() - started)

    return candidate


def by_kirigami(setup: str, seed: int) -> Candidate:
    """Return the candidate of torch-kirigami's greedy choice. Its budget counts parameters only."""
    traced = context_of(setup, seed).run
    started = time.process_time()
    limit = int(traced.budget.limits["params"])
    model = kirigami.pruned(traced.dense.model, traced.dense.example_inputs, limit)
    return Candidate(model, "", time.process_time() - started)


ARMS: dict[str, Arm] = {
    **{name: by_heuristic(name) for name in WARM_STARTS if name != DEPTH},
    **{
        name: by_torch_pruning(name)
        for name in (*torch_pruning_plans.IMPORTANCES, torch_pruning_plans.ISOMORPHIC)
    },
    KIRIGAMI: by_kirigami,
    "random": by_search("random", "search.sampler=random", "search.warm_starts=[]"),
    "search": by_search("search"),
    SEARCH_DEPTH: by_search("depth", "search.depth=true"),
}


def table(setup: str) -> list[str]:
    """Return the lines of a table: a row for each arm, with paired differences."""
    found: dict[str, dict[int, dict[str, str]]] = {}
    for row in rows_of(RESULTS):
        if row["setup"] == setup:
            found.setdefault(row["arm"], {})[int(row["seed"])] = row
    lines = []
    for arm in (name for name in ARMS if name in found):
        rows = found[arm]
        tests = [float(row["test"]) for row in rows.values()]
        differences = [_paired(rows, found.get(other, {})) for other in (UNIFORM, "search")]
        shares = [
            f"{100 * float(next(iter(rows.values()))[name]):.1f}"
            for name in ("macs", "params", "peak_memory_bytes")
        ]
        lines.append([arm, str(len(rows)), *shares, f"{100 * np.mean(tests):.2f}", *differences])
    head = [
        f"{setup}, {SETUPS[setup].budget}",
        "seeds",
        "MACs %",
        "params %",
        "memory %",
        "test",
        "less uniform",
        "less search",
    ]
    return markdown_table(head, lines)


def _paired(rows: dict[int, dict[str, str]], others: dict[int, dict[str, str]]) -> str:
    """Return the mean difference of the test scores over common seeds, in points, with its 95% interval."""
    common = sorted(rows.keys() & others.keys())
    return interval(
        100 * np.array([float(rows[seed]["test"]) - float(others[seed]["test"]) for seed in common])
    )


if __name__ == "__main__":
    main()
