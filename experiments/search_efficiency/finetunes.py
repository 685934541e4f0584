"""Claim: after the same finetuning no method is above the default search, which is above uniform at 12%.

The candidates of six methods, all in [0.98, 1.00] of the budget (FastNAS: or the nearest below), get a
finetune of 8 epochs by one recipe, with the dense model as teacher. The test part is read once, at its end:

    default       the best trial of `autoprune search` with 60 trials, rungs and warm starts as they come
    random-300    the best of 300 random candidates on the first rung (EagleEye's way), from curves/
    uniform       one keep ratio for all groups
    tp-l1         Torch-Pruning's global pruning by l1 over whole groups, its own choice of channels
    tp-group      the same by squared weights, its default
    fastnas       NVIDIA Model Optimizer's FastNAS, from fastnas/ (see fastnas.py)

A mend for what 100 steps may not tell apart is tried at 12%:

    one-epoch     the default search with one more rung, a finetune of one epoch

    python -m experiments.search_efficiency.finetunes [--setups resnet20-25] [--seeds 0 1] [--methods uniform]
    python -m experiments.search_efficiency.finetunes --setups resnet20-12 --methods one-epoch

Each result is appended to finetunes.csv as it comes. A finetune that was cut off goes on where it was.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from autoprune.config.settings import ScoreSettings
from autoprune.criteria import plan_from_importance
from autoprune.rebuilding import rebuild
from experiments.common import append_row, count_macs, rows_of
from experiments.finetuning import finetuned, searched
from experiments.search_efficiency import fastnas, torch_pruning_plans
from experiments.search_efficiency.curves import LARGE
from experiments.search_efficiency.setups import HERE, RUNS, SETTING, config_of, context_of

RESULTS = HERE / "finetunes.csv"


@dataclass(frozen=True)
class Candidate:
    """A small model before its finetune, its costs, and the seconds to find it."""

    model: nn.Module
    flops_share: float
    params: int
    seconds: float
    widths: str = ""


Method = Callable[[str, int], Candidate]
"""Takes a setup and a seed, and returns the candidate that the method ends with."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--setups", nargs="+", default=["resnet20-12", "resnet20-25"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS | MENDS)
    options = parser.parse_args()
    RUNS.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        for method in options.methods:
            for setup in options.setups:
                done = {(row["setup"], row["method"], int(row["seed"])) for row in rows_of(RESULTS)}
                if (setup, method, seed) in done:
                    continue
                if method == "fastnas" and not fastnas.path_of(setup, seed).exists():
                    print(f"left out: {fastnas.path_of(setup, seed)} is missing; see fastnas.py", flush=True)
                    continue
                append_row(RESULTS, finetune(setup, method, seed))


def finetune(setup: str, method: str, seed: int) -> dict[str, object]:
    """Finetune one method's candidate and read the test part."""
    context = context_of(setup, seed)
    torch.set_num_threads(SETTING.threads)
    candidate = (METHODS | MENDS)[method](setup, seed)
    fitted, test = finetuned(
        candidate.model,
        context.run.dense,
        context.run.spec,
        SETTING,
        seed=seed,
        checkpoint=RUNS / f"{setup}-{method}-{seed}.training",
    )
    return {
        "setup": setup,
        "method": method,
        "seed": seed,
        "flops_share": round(candidate.flops_share, 5),
        "params": candidate.params,
        "val_accuracy": round(fitted.score, 4),
        "test_accuracy": round(test, 4),
        "search_seconds": round(candidate.seconds),
        "finetune_seconds": round(fitted.seconds),
        "widths": candidate.widths,
    }


def of_widths(setup: str, seed: int, widths: dict[str, int], seconds: float) -> Candidate:
    """Cut the dense model to widths, the most important channels by l1 first."""
    context = context_of(setup, seed)
    problem = context.run
    cost = problem.prunable.cost(widths)
    model = rebuild(problem.prunable, plan_from_importance(problem.prunable, widths, context.ranked))
    named = " ".join(str(widths[group.name]) for group in problem.prunable.searchable)
    share = int(cost.macs) / int(problem.dense_cost.macs)
    return Candidate(model, share, int(cost.params), seconds, named)


def widths_of(setup: str, seed: int, text: str) -> dict[str, int]:
    """Read widths as the curves write them, in the order of the searchable groups."""
    groups = context_of(setup, seed).run.prunable.searchable
    return {group.name: int(width) for group, width in zip(groups, text.split(), strict=True)}


def by_default_search(*more: str) -> Method:
    """Make the method that takes the best trial of a search with default settings, and one more rung each."""

    def candidate(setup: str, seed: int) -> Candidate:
        """Search, or go on with the search where it was cut off."""
        name = "-".join([setup, str(seed), *more]).replace(" ", "-")
        storage = f"sqlite:///{(RUNS / name).resolve()}.db"
        config = config_of(
            setup,
            seed,
            f"score.rungs={[*ScoreSettings().rungs, *more]}",
            f"search.storage={storage}",
            f"search.study={name}",
            f"output.folder={(RUNS / name).resolve()}",
        )
        study = searched(config)
        warm = sum(study.facts.warm_starts.seconds.values())
        seconds = warm + sum(record.seconds or 0.0 for record in study.records())
        return of_widths(setup, seed, dict(study.best().widths), seconds)

    return candidate


def by_random_search(setup: str, seed: int) -> Candidate:
    """Take the best of the 300 random candidates of the curves."""
    rows = [row for row in _curves_of(setup, seed) if row["method"] == f"random-{LARGE}"]
    best = max(rows, key=lambda row: float(row["score"]))
    return of_widths(
        setup, seed, widths_of(setup, seed, best["widths"]), max(float(row["seconds"] or 0) for row in rows)
    )


def by_one_ratio(setup: str, seed: int) -> Candidate:
    """Take the warm start "uniform"."""
    uniform = next(row for row in _curves_of(setup, seed) if "uniform" in row["origin"])
    return of_widths(setup, seed, widths_of(setup, seed, uniform["widths"]), 0.0)


def _curves_of(setup: str, seed: int) -> list[dict[str, str]]:
    """Return the trials of the curves. Those of the random search and of one with warm starts are needed.

    Raises:
        SystemExit: they are not there yet.
    """
    path = HERE / "curves" / f"{setup}-{seed}.csv"
    rows = rows_of(path)
    drawn = sum(row["method"] == f"random-{LARGE}" for row in rows)
    if drawn < LARGE or not any("uniform" in row["origin"] for row in rows):
        raise SystemExit(
            f"{path}: {drawn} random candidates, expected {LARGE} and the warm start uniform; run "
            f"`python -m experiments.search_efficiency.curves --setups {setup} --seeds {seed}` first."
        )
    return rows


def by_torch_pruning(importance: str) -> Method:
    """Make the method that takes the model of Torch-Pruning's global pruning at the budget."""

    def candidate(setup: str, seed: int) -> Candidate:
        dense, problem = context_of(setup, seed).run.dense, context_of(setup, seed).run
        share = problem.budget.limits["macs"] / int(problem.dense_cost.macs)
        started = time.perf_counter()
        whole = count_macs(dense.model, dense.example_inputs)

        def load(model: nn.Module) -> float:
            return count_macs(model, dense.example_inputs) / whole / share

        model = torch_pruning_plans.pruned(dense.model, dense.example_inputs, importance, load)
        seconds = time.perf_counter() - started
        params = sum(parameter.numel() for parameter in model.parameters())
        return Candidate(model, share * load(model), params, seconds)

    return candidate


def by_fastnas(setup: str, seed: int) -> Candidate:
    """Take the model that FastNAS left, with its channels and weights."""
    found, weights = fastnas.read(setup, seed)
    candidate = of_widths(setup, seed, found["widths"], found["seconds"])
    candidate.model.load_state_dict(weights)
    return candidate


METHODS: dict[str, Method] = {
    "uniform": by_one_ratio,
    "default": by_default_search(),
    "random-300": by_random_search,
    **{name: by_torch_pruning(name) for name in torch_pruning_plans.IMPORTANCES},
    "fastnas": by_fastnas,
}

MENDS: dict[str, Method] = {"one-epoch": by_default_search("1 epoch")}
"""Methods that were tried after a target was missed. They are no part of the comparison."""

if __name__ == "__main__":
    main()
