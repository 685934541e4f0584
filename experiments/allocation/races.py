"""Claim: a race keeps the entrant that would be the best after a whole finetune, for the cost of a few.

    python -m experiments.allocation.races [--setups few-params] [--starts all] [--seeds 0 1]
    python -m experiments.allocation.races --table

A search with the default warm starts, or with all of them, gives the entrants: its best trials, and all warm
starts that climbed every rung. Each of them trains to the end of the schedule, and at the end of each
possible stage its learning rate falls to 0 on a copy, as in a race. A row of races.csv is an entrant.
`--table` replays rules of a race on these rows: how many entrants go on, by which scores. The test part is
read once, at the end of each finetune.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from scipy.stats import kendalltau

from autoprune.config.settings import RUNGS
from autoprune.run._measuring.heuristics import DEPTH, WARM_STARTS, family_of
from autoprune.run._trials.cut_trial import plan_of_trial
from autoprune.run._trials.race_plan import choose_entrants, survivors
from autoprune.run._trials.retraining import COOL_DOWN, cool_down, retrain
from autoprune.study import SearchStudy, TrialRecord
from autoprune.training import evaluate
from experiments.allocation.contest_arms import of_plan, study_of
from experiments.allocation.contest_setups import (
    FEW,
    MOBILENET,
    PAIRS,
    RESNET20,
    RUNS,
    SETTING,
    SETUPS,
    context_of,
    spec_of,
)
from experiments.allocation.setups import HERE
from experiments.common import append_row, markdown_table, rows_of

RESULTS = HERE / "races.csv"
EVERY = [name for name in WARM_STARTS if name != DEPTH]
STUDIES = {
    "default": ("search", ()),
    "all": ("races", (f"search.warm_starts={EVERY}", "race.entrants=1")),
}
"""{warm starts: the arm of the contest whose search has them, and its settings}."""

ENTRANTS = 6
"""The best trials of a search that enter, as by default."""

SAMPLER = "sampler"

SHARES = (16, 8, 4, 2)
"""A stage may end after the epochs of the schedule over each of these."""

RUNG_STEPS = 100.0
"""Training steps of a candidate up to the last rung."""

EPOCH_STEPS = {PAIRS: 156, FEW: 46, RESNET20: 421, MOBILENET: 78}
"""{config: batches of an epoch}."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--setups", nargs="+", default=list(SETUPS), choices=SETUPS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--starts", nargs="+", default=["default"], choices=STUDIES, help="warm starts")
    parser.add_argument("--table", action="store_true", help="print the tables of the results so far")
    options = parser.parse_args()
    if options.table:
        print("\n".join(table(options.setups)))
        return
    for seed, setup, starts in itertools.product(options.seeds, options.setups, options.starts):
        measure(setup, starts, seed)


def measure(setup: str, starts: str, seed: int) -> None:
    """Search, then train the entrants that are not in the table."""
    name, overrides = STUDIES[starts]
    study = study_of(setup, name, seed, *overrides)
    known = [row for row in rows_of(RESULTS) if row["setup"] == setup and row["starts"] == starts]
    done = {int(row["trial"]) for row in known if int(row["seed"]) == seed}
    finished = study.finished()
    best = choose_entrants(study.contenders(), (), ENTRANTS)
    entrants = {each.number: each for each in (*best, *(each for each in finished if each.is_warm_start))}
    for number in sorted(entrants.keys() - done):
        row = {"setup": setup, "starts": starts, "seed": seed}
        append_row(RESULTS, {**row, **trained(setup, seed, study, entrants[number])})


def trained(setup: str, seed: int, study: SearchStudy, record: TrialRecord) -> dict[str, object]:
    """Train an entrant, with the score that it would have at the end of each stage."""
    context = context_of(setup, seed)
    dense, spec = context.run.dense, spec_of(setup, seed)
    epochs = spec.finetune.epochs
    candidate = of_plan(context, plan_of_trial(context.run, study, record), 0)
    state = RUNS / f"races-{study.name}-{record.number}.training"
    scores = {}
    for share in SHARES:
        end = max(1, round(epochs / share))
        small = copy.deepcopy(candidate.model)
        fitted = retrain(small, dense, spec, SETTING, state=state, until=end)
        best = max(each.score for each in fitted.records)
        cooled = cool_down(small, dense, spec, SETTING, after=end, best_score=best)
        scores[f"1/{share}"] = round(cooled.score, 4)
    small = copy.deepcopy(candidate.model)
    fitted = retrain(small, dense, spec, SETTING, state=state)
    if dense.data.test is None:
        raise AssertionError("the data have no test part")
    test = evaluate(small, dense.data.test, dense.task, SETTING)
    state.unlink(missing_ok=True)
    return {
        "trial": record.number,
        "origin": record.origin if record.is_warm_start else SAMPLER,
        **{name: round(each.score, 4) for name, each in zip(RUNGS, record.scores, strict=True)},
        **scores,
        "val": round(fitted.score, 4),
        "test": round(test, 4),
        "epochs": epochs,
        "widths": candidate.widths,
    }


class Rule(NamedTuple):
    """A rule of a race.

    Attributes:
        ends: where its stages end, as names of columns of the table.
        factors: the stage keeps one of so many entrants that did not start as uniform, for each stage but
            the last.
        weigh: returns the weight of the ranks of each score so far, from the steps that each has trained.
    """

    ends: tuple[str, ...]
    factors: tuple[int, ...]
    weigh: Callable[[Sequence[float]], Sequence[float]]


@dataclass(frozen=True)
class Raced:
    """The outcome of a race by a rule.

    Attributes:
        winner: its row.
        finetunes: the epochs of all trainings, with cool-downs, as a share of a whole finetune.
    """

    winner: Mapping[str, str]
    finetunes: float


WEIGHTS: dict[str, Callable[[Sequence[float]], Sequence[float]]] = {
    "mean rank": lambda steps: [1.0 for _ in steps],
    "rank by steps": lambda steps: steps,
    "last score": lambda steps: [0.0] * (len(steps) - 1) + [1.0],
}
ENDS = {
    ("1/16", "1/4"): ((4, 4), (2, 4), (2, 2)),
    ("1/8", "1/4"): ((2, 4), (2, 2)),
    ("1/8", "1/2"): ((4, 2),),
    ("1/4",): ((4,),),
    ("1/2",): ((4,),),
}
RULES = {
    f"after {', '.join(ends)} one of {', '.join(map(str, factors))}, {name}": Rule(ends, factors, weigh)
    for ends, kept in ENDS.items()
    for factors in kept
    for name, weigh in WEIGHTS.items()
}


def race(rows: Sequence[Mapping[str, str]], rule: Rule) -> Raced:
    """Race some entrants by a rule, on their known scores."""
    entrants = {int(row["trial"]): row for row in rows}
    uniform = next(number for number, row in entrants.items() if is_uniform(row))
    epochs = int(rows[0]["epochs"])
    whole = EPOCH_STEPS[SETUPS[rows[0]["setup"]].config] * epochs
    racing, names, steps, finetunes, trained = list(entrants), [RUNGS[-1]], [RUNG_STEPS], 0.0, 0.0
    for end, factor in zip(rule.ends, rule.factors, strict=True):
        share = max(1, round(epochs * Fraction(end))) / epochs
        names.append(end)
        steps.append((1 + COOL_DOWN) * share * whole)
        finetunes += len(racing) * (share - trained + COOL_DOWN * share)
        trained = share
        scores = {number: [float(entrants[number][name]) for name in names] for number in racing}
        count = max(1, math.ceil((len(racing) - 1) / factor))
        racing = survivors(scores, rule.weigh(steps), count, uniform=uniform)
    finetunes += len(racing) * (1 - trained)
    winner = max(racing, key=lambda number: (float(entrants[number]["val"]), -number))
    return Raced(entrants[winner], finetunes)


def is_uniform(row: Mapping[str, str]) -> bool:
    """Return whether the entrant has one keep ratio for all groups."""
    return "uniform" in row["origin"].split(", ")


def entrants_of(rows: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Return the rows of the best trials, and of the best warm start of each family."""
    ranked = sorted(rows, key=lambda row: -float(row[RUNGS[-1]]))
    found = {row["trial"]: row for row in ranked[:ENTRANTS]}
    families: set[str] = set()
    for row in (row for row in ranked if row["origin"] != SAMPLER):
        if not {family_of(name) for name in row["origin"].split(", ")} <= families:
            families |= {family_of(name) for name in row["origin"].split(", ")}
            found.setdefault(row["trial"], row)
    return list(found.values())


def table(setups: Sequence[str]) -> list[str]:
    """Return the lines of two tables: the winner of each rule against others, and how each score ranks."""
    searches: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
    for row in rows_of(RESULTS):
        if row["setup"] in setups:
            searches.setdefault((row["setup"], row["starts"], row["seed"]), []).append(row)
    lines = []
    for name, rule in RULES.items():
        found = []
        for rows in searches.values():
            raced = race(entrants_of(rows), rule)
            uniform = next(row for row in rows if is_uniform(row))
            found.append(
                (
                    raced.finetunes,
                    100 * (float(raced.winner["test"]) - float(uniform["test"])),
                    100 * (float(raced.winner["val"]) - max(float(row["val"]) for row in rows)),
                    100
                    * (float(raced.winner["test"]) - float(np.mean([float(row["test"]) for row in rows]))),
                )
            )
        finetunes, *differences = np.mean(found, axis=0)
        lines.append([name, f"{finetunes:.1f}", *(f"{each:+.2f}" for each in differences)])
    head = ["rule", "finetunes", "test less uniform", "validation less the best", "test less the mean"]
    columns = (*RUNGS, *(f"1/{share}" for share in SHARES))
    taus = [
        ["/".join(search), str(len(rows)), *(_tau(rows, column) for column in columns)]
        for search, rows in searches.items()
    ]
    return [*markdown_table(head, lines), *markdown_table(["search", "candidates", *columns], taus)]


def _tau(rows: Sequence[Mapping[str, str]], column: str) -> str:
    """Return Kendall's tau of a score with the mean of validation and test score after the finetune."""
    ends = [float(row["val"]) + float(row["test"]) for row in rows]
    return f"{kendalltau([float(row[column]) for row in rows], ends).statistic:.2f}"


if __name__ == "__main__":
    main()
