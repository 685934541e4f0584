"""Claim: the score after a repair predicts as 100 training steps do, at a tenth of their cost.

    python -m experiments.repair.rungs [--setup resnet20-25] [--ladders obs-repair] [--numbers 0 28]
    python -m experiments.repair.rungs --table

The 28 candidates of a setup climb each ladder of rungs. Their accuracy after 4 epochs is in
experiments/search_efficiency/correlations/SETUP.csv. Rows are appended to rungs.csv as they come: the score
of each rung and its processor seconds, evaluation included. `--table` prints Kendall's tau of each rung with
that accuracy, over all candidates and over the better half. The test part is not read.
"""

from __future__ import annotations

import argparse
import functools
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import kendalltau

from autoprune.config.settings import ScoreSettings
from autoprune.criteria import Importance, importance, plan_from_importance
from autoprune.rebuilding import rebuild
from autoprune.reconstruction import Moments, moments, repair
from autoprune.reporting._agreement import tau_interval
from autoprune.run._resolving.rungs import parse_rungs
from autoprune.samplers import trial_seed
from autoprune.score import FinetuneScore
from autoprune.training import Schedule, evaluate
from experiments.common import append_row, markdown_table, rows_of
from experiments.repair.accuracy import images_of
from experiments.search_efficiency.correlation import CANDIDATES, SEED, SETUP, results_of
from experiments.search_efficiency.finetunes import widths_of
from experiments.search_efficiency.setups import SETTING, SETUPS, context_of

RESULTS = Path(__file__).with_name("rungs.csv")

SEQUENTIAL = "sequential repair"
"""No rung of a search: the candidate after a sequential repair."""

FINETUNES = ("25 steps", "75 steps")


class Ladder(NamedTuple):
    """The rungs that a candidate climbs.

    Attributes:
        criterion: that chooses the channels.
        rungs: their names.
        learning_rate: highest one of the finetunes.
    """

    criterion: str
    rungs: tuple[str, ...]
    learning_rate: float = 0.02


LADDERS = {
    "obs-repair": Ladder("obs", ("repair", *FINETUNES)),
    "obs-sequential": Ladder("obs", (SEQUENTIAL,)),
    "l1-calibrate": Ladder("l1", ("calibrate",)),
    "l1-repair": Ladder("l1", ("repair",)),
    "l1-sequential": Ladder("l1", (SEQUENTIAL,)),
    "lasso-repair": Ladder("lasso", ("repair",)),
    "obs-calibrate": Ladder("obs", ("calibrate",)),
    "l1-finetunes-0.02": Ladder("l1", ("repair", *FINETUNES)),
    "l1-finetunes-0.05": Ladder("l1", ("repair", *FINETUNES), 0.05),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--setup", default=SETUP, choices=SETUPS)
    parser.add_argument("--ladders", nargs="+", default=list(LADDERS), choices=LADDERS)
    parser.add_argument(
        "--numbers", type=int, nargs=2, default=(0, CANDIDATES), help="first, one after the last"
    )
    parser.add_argument("--table", action="store_true", help="print the table of the results so far")
    options = parser.parse_args()
    if options.table:
        print("\n".join(table()))
        return
    torch.set_num_threads(SETTING.threads)
    setup: str = options.setup
    candidates = {int(row["candidate"]): row["widths"] for row in rows_of(results_of(setup))}
    for ladder in options.ladders:
        for number in range(*options.numbers):
            done = {(row["setup"], row["ladder"], int(row["candidate"])) for row in rows_of(RESULTS)}
            if (setup, ladder, number) not in done:
                for row in climb(setup, ladder, number, candidates[number]):
                    append_row(RESULTS, {"setup": setup, "ladder": ladder, "candidate": number, **row})


def climb(setup: str, ladder: str, number: int, widths: str) -> list[dict[str, object]]:
    """Score one candidate on all rungs of a ladder, and return a row for each."""
    criterion, names, rate = LADDERS[ladder]
    context = context_of(setup, SEED)
    kept = widths_of(setup, SEED, widths)
    if names == (SEQUENTIAL,):
        return [_sequential(setup, criterion, kept)]
    score = FinetuneScore(
        context.run.prunable,
        ranked(setup, criterion),
        context.run.dense.data,
        context.run.dense.task,
        SETTING,
        parse_rungs(ScoreSettings(rungs=names)),
        schedule=Schedule(steps=1, warmup=0.0, learning_rate=rate),
        moments=measured(setup),
    )
    rows: list[dict[str, object]] = []
    started = time.process_time()
    for rung in score(kept, trial_seed(SEED, number)):
        rows.append(_row(rung.name, rung.score, time.process_time() - started))
        started = time.process_time()
    return rows


def _sequential(setup: str, criterion: str, widths: dict[str, int]) -> dict[str, object]:
    context = context_of(setup, SEED)
    prunable, dense = context.run.prunable, context.run.dense
    started = time.process_time()
    plan = plan_from_importance(prunable, widths, ranked(setup, criterion))
    model = repair(prunable, plan, rebuild(prunable, plan), images_of(dense), mode="sequential")
    score = evaluate(SETTING.place(model), dense.data.val, dense.task, SETTING)
    return _row(SEQUENTIAL, score, time.process_time() - started)


def _row(rung: str, score: float, seconds: float) -> dict[str, object]:
    return {"rung": rung, "score": f"{score:.6f}", "seconds": round(seconds, 2)}


@functools.cache
def measured(setup: str) -> Moments:
    """Return the moments of the dense model."""
    context = context_of(setup, SEED)
    return moments(context.run.prunable, images_of(context.run.dense))


@functools.cache
def ranked(setup: str, criterion: str) -> Importance:
    """Return the importance of all channels by a criterion."""
    context = context_of(setup, SEED)
    return importance(
        context.run.prunable, criterion, images_of(context.run.dense), context.run.dense.task.loss
    )


def table() -> list[str]:
    """Return the lines of a table of tau and seconds, a row for each rung of each ladder."""
    found: dict[tuple[str, str, str], dict[int, dict[str, str]]] = {}
    for row in rows_of(RESULTS):
        found.setdefault((row["setup"], row["ladder"], row["rung"]), {})[int(row["candidate"])] = row
    lines = []
    for (setup, ladder, rung), rows in found.items():
        finetuned = {int(row["candidate"]): float(row["finetuned"]) for row in rows_of(results_of(setup))}
        better = sorted(finetuned, key=lambda number: -finetuned[number])[: len(finetuned) // 2]
        seconds = float(np.median([float(row["seconds"]) for row in rows.values()]))
        taus = [_tau(rows, finetuned, set(part)) for part in (finetuned, better)]
        lines.append([setup, ladder, rung, str(len(rows)), *taus, f"{seconds:.1f}"])
    head = [
        "setup",
        "ladder",
        "rung",
        "candidates",
        "tau (95%)",
        "tau, better half",
        "processor seconds, median",
    ]
    return markdown_table(head, lines)


def _tau(rows: dict[int, dict[str, str]], finetuned: dict[int, float], part: set[int]) -> str:
    numbers = sorted(part & rows.keys())
    if len(numbers) < 5:
        return ""
    scores = [float(rows[number]["score"]) for number in numbers]
    tau = float(kendalltau(scores, [finetuned[number] for number in numbers]).statistic)
    low, high = tau_interval(tau, len(numbers))
    return f"{tau:.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
