"""Train every plan of a small space, so that searches can be replayed in seconds and their optimum is known.

    python -m experiments.allocation.table [--setups flops params]

For each plan: validation accuracy after each rung of a search (repair, 25 steps, 75 steps more), then the
accuracy of a whole finetune from the repaired weights on the validation and test parts, and the processor
seconds of both. One seed per plan. Appends a row to table-SETUP.csv as it comes, and continues after those
that are there.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path

import torch

from autoprune.config.settings import ScoreSettings
from autoprune.criteria import plan_from_importance
from autoprune.rebuilding import rebuild
from autoprune.reconstruction import repair_closed
from autoprune.run._resolving.rungs import parse_rungs
from autoprune.samplers import trial_seed
from autoprune.score import FinetuneScore
from autoprune.support.arrays import IntArray
from autoprune.training import evaluate, fit
from experiments.allocation.setups import HERE, SETTING, SETUPS, Context, context_of, widths_of
from experiments.common import append_row, rows_of

SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--setups", nargs="+", default=list(SETUPS), choices=SETUPS)
    for setup in parser.parse_args().setups:
        context = context_of(setup)
        done = {row["widths"] for row in rows_of(path_of(setup))}
        for number, plan in enumerate(context.plans):
            if key_of(plan) not in done:
                append_row(path_of(setup), measure(context, number, plan), quiet=True)


def path_of(setup: str) -> Path:
    """Return the file of a setup's table."""
    return HERE / f"table-{setup}.csv"


def key_of(plan: IntArray) -> str:
    """Return the widths of all groups as one word."""
    return " ".join(map(str, plan.tolist()))


def measure(context: Context, number: int, plan: IntArray) -> dict[str, object]:
    """Score one plan on all rungs, and train it fully."""
    spec, dense, prunable = context.run.spec, context.run.dense, context.run.prunable
    if dense.data.test is None:
        raise AssertionError("the data have no test part")
    widths, seed = widths_of(context, plan), trial_seed(SEED, number)
    started = time.process_time()
    score = FinetuneScore(
        prunable,
        context.ranked,
        dense.data,
        dense.task,
        SETTING,
        parse_rungs(ScoreSettings()),
        schedule=spec.rung_schedule,
        calibration_batches=spec.score.calibration_batches,
        moments=context.moments,
    )
    rungs = {rung.name: f"{rung.score:.6f}" for rung in score(widths, seed)}
    scored = time.process_time()
    kept = plan_from_importance(prunable, widths, context.ranked)
    small = repair_closed(prunable, kept, rebuild(prunable, kept), context.moments).model
    fit(
        small,
        dense.data,
        spec.finetune_schedule,
        SETTING,
        dense.task,
        seed=seed,
        teacher=copy.deepcopy(dense.model),
    )
    trained = time.process_time()
    parts = {"val": dense.data.val, "test": dense.data.test}
    ends = {part: f"{evaluate(small, data, dense.task, SETTING):.6f}" for part, data in parts.items()}
    return {
        "widths": key_of(plan),
        **rungs,
        **ends,
        "rungs_s": round(scored - started, 2),
        "finetune_s": round(trained - scored, 2),
    }


if __name__ == "__main__":
    torch.set_num_threads(SETTING.threads)
    main()
