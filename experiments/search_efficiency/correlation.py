"""Claim: the rungs predict: Kendall's tau of their scores with the accuracy after 4 epochs is above 0.65.

28 candidates of a setup. Chosen by their trial numbers alone, before any score is looked at: all
distinct warm starts of seed 0's curves, then trials of its random-300 in the order that
`numpy.random.default_rng(0).permutation(300)` gives, until there are 28. Each climbs the rungs with a seed of
its own, as in a search. Then it is cut again and finetuned for 4 epochs by the recipe of `finetunes`.

    python -m experiments.search_efficiency.correlation [--setup resnet20-25] [--numbers 0 14]

Each candidate is appended to correlations/SETUP.csv as it comes. A finetune that was cut off goes on at its
last epoch. `--numbers 0 14` leaves those from number 14 on to another process. The test part is not read.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from autoprune.config.rungs import RungScore
from autoprune.flow import schedule_of
from autoprune.run._resolving.ranking import encode_ranking
from autoprune.run._trials.scoring import make_score
from autoprune.samplers import trial_seed
from autoprune.training import fit
from experiments.common import append_row, rows_of
from experiments.search_efficiency.curves import LARGE
from experiments.search_efficiency.finetunes import of_widths, widths_of
from experiments.search_efficiency.setups import HERE, RUNS, SETTING, SETUPS, config_of, context_of

SETUP, SEED = "resnet20-25", 0
CANDIDATES = 28
EPOCHS = 4
RUNGS = {"calibrate": "calibrate", "100 steps": "steps_100", "200 steps": "steps_300"}
"""The rungs, and the columns of their scores: finetunes add up."""


def results_of(setup: str) -> Path:
    """Return the file of a setup's candidates."""
    return HERE / "correlations" / f"{setup}.csv"


@dataclass(frozen=True)
class Choice:
    """A candidate as the curves have it. Widths in the order of the searchable groups."""

    origin: str
    trial: int
    widths: str


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--setup", default=SETUP, choices=SETUPS)
    parser.add_argument(
        "--numbers", type=int, nargs=2, default=(0, CANDIDATES), help="first, and the one after the last"
    )
    options = parser.parse_args()
    RUNS.mkdir(parents=True, exist_ok=True)
    results = results_of(options.setup)
    results.parent.mkdir(exist_ok=True)
    done = {int(row["candidate"]) for row in rows_of(results)}
    chosen = choose(options.setup, CANDIDATES)
    for number in range(*options.numbers):
        if number not in done:
            append_row(results, measure(options.setup, number, chosen[number]))


def choose(setup: str, count: int) -> list[Choice]:
    """Choose this many candidates of a setup by the rule above.

    Raises:
        SystemExit: the curves lack the random search, or any search with warm starts.
    """
    path = HERE / "curves" / f"{setup}-{SEED}.csv"
    rows = rows_of(path)
    warm = [row for row in rows if row["origin"] != "sampler"]
    drawn = {int(row["trial"]): row for row in rows if row["method"] == f"random-{LARGE}"}
    if not warm or len(drawn) < LARGE:
        raise SystemExit(
            f"{path}: {len(warm)} warm starts and {len(drawn)} random candidates, expected some and {LARGE}; "
            f"run `python -m experiments.search_efficiency.curves --setups {setup} --seeds {SEED}` first."
        )
    order = np.random.default_rng(SEED).permutation(LARGE).tolist()
    chosen: dict[str, Choice] = {}
    for row in [*warm, *(drawn[number] for number in order)]:
        choice = Choice(row["origin"], int(row["trial"]), row["widths"])
        chosen.setdefault(choice.widths, choice)
    return list(chosen.values())[:count]


def climb(setup: str, number: int, choice: Choice, rungs: Sequence[str]) -> list[RungScore]:
    """Score candidate `number` of a setup on every rung, none stopped."""
    context = context_of(setup, SEED)
    torch.set_num_threads(SETTING.threads)
    config = config_of(setup, SEED, f"score.rungs={list(rungs)}")
    score = make_score(
        context.run.dense, context.run.prunable, config, SETTING, encode_ranking(context.ranked)
    )
    return list(score(widths_of(setup, SEED, choice.widths), trial_seed(SEED, number)))


def measure(setup: str, number: int, choice: Choice) -> dict[str, object]:
    """Score a candidate on every rung, then finetune it."""
    dense = context_of(setup, SEED).run.dense
    rungs = climb(setup, number, choice, list(RUNGS))
    candidate = of_widths(setup, SEED, widths_of(setup, SEED, choice.widths), 0.0)
    finetuned = fit(
        candidate.model,
        dense.data,
        dataclasses.replace(schedule_of(config_of(setup, SEED).finetune), epochs=EPOCHS),
        SETTING,
        dense.task,
        seed=SEED,
        teacher=copy.deepcopy(dense.model),
        checkpoint=RUNS / f"correlation-{setup}-{number}.training",
    )
    return {
        "candidate": number,
        "origin": choice.origin,
        "trial": choice.trial,
        "flops_share": round(candidate.flops_share, 5),
        **{RUNGS[rung.name]: f"{rung.score:.6f}" for rung in rungs},
        "finetuned": f"{finetuned.score:.6f}",
        **{f"{RUNGS[rung.name]}_seconds": round(rung.seconds, 2) for rung in rungs},
        "finetune_seconds": round(finetuned.seconds, 1),
        "widths": choice.widths,
    }


if __name__ == "__main__":
    main()
