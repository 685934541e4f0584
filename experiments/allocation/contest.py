"""Claim: where one ratio for all layers is wrong, a search finds widths that stay better after a finetune.

    python -m experiments.allocation.contest [--setups pairs-params] [--arms uniform search] [--seeds 0 1]
    python -m experiments.allocation.contest --table
    python -m experiments.allocation.contest --compute

An arm is a way to choose the widths: one ratio, each heuristic of the warm starts, other tools, random search
with as many trials as the default search, and the default search, with and without depth. All arms of a setup
fill the same budget and get the same finetune, once with each of two learning rates, with the dense model as
teacher. The one with the higher validation score counts. Arms of autoprune keep channels by the default
criterion and start from refitted layers. Those of other tools keep their own channels and weights. The test
part is read once, at the end of each finetune, and once for the dense model. Rows are appended to contest.csv
as they come, those of dense models to dense.csv, and a search or a finetune that was cut off continues.

If the budget is a latency, it is the measured one in ONNX Runtime, of 8 images on one thread. Each finetuned
model is timed once more, side by side with the dense model, and its row has the share with its interval.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import time

import numpy as np

from autoprune.errors import BudgetError
from autoprune.training import evaluate
from experiments.allocation.contest_arms import ARMS, SEARCH, SNAPPED, UNIFORM, chosen_by, fits
from experiments.allocation.contest_setups import RUNS, SETTING, SETUPS, context_of, costs, spec_of, timed
from experiments.allocation.replay import interval
from experiments.allocation.setups import HERE
from experiments.common import append_row, markdown_table, rows_of
from experiments.finetuning import finetuned

RESULTS = HERE / "contest.csv"
DENSE = HERE / "dense.csv"
RATES = (0.05, 0.02)
"""Learning rates of the finetune."""

BySeed = dict[int, dict[str, str]]
"""{seed: row}."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--setups", nargs="+", default=list(SETUPS), choices=SETUPS)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--table", action="store_true", help="print the tables of the results so far")
    parser.add_argument("--compute", action="store_true", help="print the time of searches over a finetune's")
    options = parser.parse_args()
    if options.table or options.compute:
        lines = [line for setup in options.setups if options.table for line in table(setup)]
        print("\n".join([*lines, *(compute(options.setups) if options.compute else [])]))
        return
    RUNS.mkdir(parents=True, exist_ok=True)
    done = {(row["setup"], row["arm"], int(row["seed"])) for row in rows_of(RESULTS)}
    for seed, setup, arm in itertools.product(options.seeds, options.setups, options.arms):
        if (setup, arm, seed) not in done and fits(setup, arm):
            note_dense(setup)
            try:
                append_row(RESULTS, measure(setup, arm, seed))
            except BudgetError as error:
                print(f"{setup}, {arm}, seed {seed}: {error}", flush=True)


def note_dense(setup: str) -> None:
    """Store the scores of the dense model of a setup, unless they are known."""
    config = SETUPS[setup].config
    if config in {row["config"] for row in rows_of(DENSE)}:
        return
    dense = context_of(setup, 0).run.dense
    parts = {"val": dense.data.val, "test": dense.data.test}
    scores = {name: evaluate(dense.model, part, dense.task, SETTING) for name, part in parts.items() if part}
    append_row(DENSE, {"config": config, **{name: round(score, 4) for name, score in scores.items()}})


def measure(setup: str, arm: str, seed: int) -> dict[str, object]:
    """Choose a candidate, finetune it with each learning rate, test the better one, and time it."""
    traced = context_of(setup, seed).run
    candidate = chosen_by(arm, setup, seed)
    before = evaluate(candidate.model, traced.dense.data.val, traced.dense.task, SETTING)
    ends = {}
    for rate in RATES:
        started = time.process_time()
        model = copy.deepcopy(candidate.model)
        fitted, test = finetuned(
            model,
            traced.dense,
            spec_of(setup, seed, f"finetune.learning_rate={rate}"),
            SETTING,
            seed=seed,
            checkpoint=RUNS / f"contest-{setup}-{arm}-{seed}-{rate}.training",
        )
        ends[rate] = (fitted.score, test, time.process_time() - started, model)
    rate = max(ends, key=lambda each: ends[each][0])
    score, test, seconds, model = ends[rate]
    latency = timed(traced, model) if SETUPS[setup].limits_latency else None
    return {
        "setup": setup,
        "arm": arm,
        "seed": seed,
        **{name: round(cost, 4) for name, cost in costs(traced, model).items()},
        "before": round(before, 4),
        "val": round(score, 4),
        "test": round(test, 4),
        "rate": rate,
        "search_s": round(candidate.search_s),
        "finetune_s": round(seconds),
        "widths": candidate.widths,
        "race_s": "" if candidate.race_s is None else round(candidate.race_s),
        "latency": "" if latency is None else round(latency.ratio, 4),
        "latency_low": "" if latency is None else round(latency.interval[0], 4),
        "latency_high": "" if latency is None else round(latency.interval[1], 4),
    }


def table(setup: str) -> list[str]:
    """Return the lines of a table: a row for each arm, with paired differences."""
    found = _by_arm(setup)
    others = [name for name in (UNIFORM, SNAPPED, SEARCH) if fits(setup, name)]
    shares = {"macs": "MACs %", "params": "params %", "peak_memory_bytes": "memory %"}
    lines = []
    for arm, rows in found.items():
        first = next(iter(rows.values()))
        costs = [f"{100 * float(first[name]):.1f}" for name in shares]
        if SETUPS[setup].limits_latency:
            costs.append(_latency(rows))
        tests = [float(row["test"]) for row in rows.values()]
        differences = [_paired(rows, found.get(other, {})) for other in others]
        lines.append([arm, str(len(rows)), *costs, f"{100 * np.mean(tests):.2f}", *differences])
    head = [f"{setup}, {SETUPS[setup].budget}", "seeds", *shares.values()]
    head += ["latency %"] * SETUPS[setup].limits_latency
    return markdown_table([*head, "test", *(f"less {other}" for other in others)], lines)


def compute(setups: list[str]) -> list[str]:
    """Return the lines of a table: the seconds of each search with a race over a finetune of uniform.

    A search's are seconds of wall time from its start to the finished model: warm starts, trials and race. A
    finetune's are of processor time, which is the same on a quiet machine. The latency table of a device is
    measured once for all searches, and does not count.
    """
    lines = []
    for setup in setups:
        found = _by_arm(setup)
        for arm, rows in found.items():
            raced = {seed: row for seed, row in rows.items() if row["race_s"]}
            common = sorted(raced.keys() & found.get(UNIFORM, {}).keys())
            if not common:
                continue
            sums = [
                sum(float(each[seed][name]) for seed in common) / len(common)
                for each, name in ((raced, "search_s"), (raced, "race_s"), (found[UNIFORM], "finetune_s"))
            ]
            times = f"{(sums[0] + sums[1]) / sums[2]:.1f}"
            lines.append([setup, arm, str(len(common)), *(f"{seconds:.0f}" for seconds in sums), times])
    head = ["setup", "arm", "seeds", "trials, s", "race, s", "finetune of uniform, s", "times"]
    return markdown_table(head, lines)


def _by_arm(setup: str) -> dict[str, BySeed]:
    """Return {arm: its rows so far}, in the order of ARMS. Arms of earlier versions come last."""
    found: dict[str, BySeed] = {}
    for row in rows_of(RESULTS):
        if row["setup"] == setup:
            found.setdefault(row["arm"], {})[int(row["seed"])] = row
    return {arm: found[arm] for arm in (*ARMS, *(found.keys() - ARMS.keys())) if arm in found}


def _latency(rows: BySeed) -> str:
    """Return the mean latency over seeds, with the lowest and the highest end of their intervals."""
    ratios, lows, highs = (
        [100 * float(row[name]) for row in rows.values()]
        for name in ("latency", "latency_low", "latency_high")
    )
    return f"{np.mean(ratios):.1f} [{min(lows):.1f}, {max(highs):.1f}]"


def _paired(rows: BySeed, others: BySeed) -> str:
    """Return the mean difference of the test scores over common seeds, in points, with its 95% interval."""
    common = sorted(rows.keys() & others.keys())
    return interval(
        100 * np.array([float(rows[seed]["test"]) - float(others[seed]["test"]) for seed in common])
    )


if __name__ == "__main__":
    main()
