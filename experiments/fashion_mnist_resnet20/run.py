"""Claim: at a quarter of the FLOPs the search beats uniform l1 and the best of as many random candidates.

The dense model is trained by `autoprune train experiments/fashion_mnist_resnet20/config.toml` and committed.
Each seed of each method then takes its plan and the same finetuning. The test part is read once, after the
last epoch:

    python -m experiments.fashion_mnist_resnet20.run [--seeds 0 1 2] [--methods search random uniform]

Every result is appended to results.csv as it comes. Studies and finetunes that were cut off go on where they
were. `python -m experiments.fashion_mnist_resnet20.summarise` makes the table and the plot.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from autoprune import run
from autoprune.config import load_config
from autoprune.criteria import importance, plan_from_importance
from autoprune.execution import Setting
from autoprune.rebuilding import rebuild
from autoprune.run._resolving.dense import load_dense
from autoprune.run._resolving.problem import Problem, build_problem, trace_dense
from autoprune.run._resolving.spec import RunSpec
from experiments.common import append_row, rows_of
from experiments.finetuning import finetuned, searched

HERE = Path(__file__).parent
RESULTS = HERE / "results.csv"
RUNS = Path("runs/fashion_mnist_resnet20")
SAMPLERS = {"search": "tpe", "random": "random"}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=["uniform", "search", "random"])
    arguments = parser.parse_args()
    RUNS.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds:
        for method in arguments.methods:
            done = {(row["method"], int(row["seed"])) for row in rows_of(RESULTS)}
            if (method, seed) not in done:
                append_row(RESULTS, measure(method, seed))


def measure(method: str, seed: int) -> dict[str, object]:
    config = config_of(method, seed)
    dense = load_dense(config)
    problem = build_problem(trace_dense(dense, config), config)
    if method == "uniform":
        widths, val_after_rungs, search_seconds = uniform_widths(problem), float("nan"), 0.0
    else:
        study = searched(config)
        best = study.best()
        widths, val_after_rungs = dict(best.widths), float(best.score or 0.0)
        search_seconds = sum(record.seconds or 0.0 for record in study.records())
    setting = Setting(device="cpu", dtype="bfloat16", channels_last=True, threads=torch.get_num_threads())
    ranked = importance(problem.prunable, config.search.criteria[0])
    small = rebuild(problem.prunable, plan_from_importance(problem.prunable, widths, ranked))
    checkpoint = RUNS / f"{method}-{seed}.training"
    fitted, test = finetuned(small, dense, config, setting, seed=seed, checkpoint=checkpoint)
    cost = problem.prunable.cost(widths)
    return {
        "method": method,
        "seed": seed,
        "macs_share": round(int(cost.macs) / int(problem.dense_cost.macs), 5),
        "params": cost.params,
        "rung_score": round(val_after_rungs, 4),
        "val_accuracy": round(fitted.score, 4),
        "test_accuracy": round(test, 4),
        "search_seconds": round(search_seconds),
        "finetune_seconds": round(fitted.seconds),
        "widths": " ".join(str(widths[group.name]) for group in problem.prunable.searchable),
    }


def config_of(method: str, seed: int) -> RunSpec:
    study = f"{method}-{seed}"
    overrides = (
        f"search.sampler={SAMPLERS.get(method, 'random')}",
        f"search.seed={seed}",
        f"search.study={study}",
        f"search.storage=sqlite:///{(RUNS / study).resolve()}.db",
        f"output.folder={(RUNS / study).resolve()}",
        f"finetune.seed={seed}",
    )
    return run.settle(load_config(HERE / "config.toml", overrides))


def uniform_widths(problem: Problem) -> dict[str, int]:
    """Return the widths of one ratio for all groups, fitted to the budget's window by the space."""
    space = problem.space
    shares = np.linspace(0.2, 1.0, 801)[:, None] * np.ones(len(space.variables))
    widths = space.decode(shares)
    nearest = int(np.argmin(np.abs(space.encode(widths) - shares).max(axis=1)))
    return dict(zip(space.groups, widths[nearest].tolist(), strict=True))


if __name__ == "__main__":
    main()
