"""Replay searches on the table of all plans, and compare samplers at equal trials with a known optimum.

    python -m experiments.allocation.replay [--setups flops] [--samplers tpe gp] [--trials 30 60]
    python -m experiments.allocation.replay --table

Every search is a real one, with the warm starts and the pruner of the defaults, but a candidate's scores are
read from table-SETUP.csv. A search ends with the plan of the best score on the last rung, as `autoprune best`
picks it. Appends a row to replay.csv for each search: the accuracy of its plan after the whole finetune, on
the validation and the test part. `--table` prints the means over seeds, paired differences to the default
sampler with 95% intervals, and the plans that no search is needed for.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time
from collections.abc import Iterator, Mapping

import numpy as np
from scipy.stats import t as student

from autoprune.config.rungs import RungScore
from autoprune.config.settings import RUNGS
from autoprune.engines import TrialRunner, Workers, run_search
from autoprune.run._statistics import MeasurementContext, measure_statistics
from autoprune.run._warm_starts import TRIALS_PER_WARM_START, choose_warm_starts, enqueue_missing
from autoprune.samplers import SAMPLERS
from autoprune.study import StudyFacts, WarmStarts, create_study
from experiments.allocation.setups import HERE, SETUPS, context_of
from experiments.allocation.table import key_of, path_of
from experiments.common import append_row, markdown_table, rows_of

RESULTS = HERE / "replay.csv"
DEFAULT = "gp"
PRUNER = "median"
TRIALS = (30, 60, 120)

Table = Mapping[str, Mapping[str, str]]
"""{widths: the row of the table}."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--setups", nargs="+", default=list(SETUPS), choices=SETUPS)
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), choices=list(SAMPLERS))
    parser.add_argument("--trials", type=int, nargs="+", default=list(TRIALS))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--cold", action="store_true", help="without warm starts")
    parser.add_argument("--table", action="store_true", help="print the tables of what is measured so far")
    options = parser.parse_args()
    if options.table:
        for setup in options.setups:
            print("\n".join([*optimum(setup), *comparison(setup)]))
        return
    for setup in options.setups:
        for trials in options.trials:
            for seed in range(options.seeds):
                for sampler in options.samplers:
                    key = {
                        "setup": setup,
                        "sampler": sampler,
                        "warm": int(not options.cold),
                        "trials": trials,
                        "seed": seed,
                    }
                    if not _is_done(key):
                        append_row(
                            RESULTS, {**key, **replay(setup, sampler, trials, seed, cold=options.cold)}
                        )


def _is_done(key: Mapping[str, object]) -> bool:
    return any(all(row[name] == str(value) for name, value in key.items()) for row in rows_of(RESULTS))


@functools.cache
def table_of(setup: str) -> Table:
    """Return the rows of a whole table by their widths.

    Raises:
        AssertionError: plans are missing. `experiments.allocation.table` measures them.
    """
    rows = {row["widths"]: row for row in rows_of(path_of(setup))}
    missing = len(context_of(setup).plans) - len(rows)
    if missing:
        raise AssertionError(f"{path_of(setup).name}: {missing} plans are not measured yet")
    return rows


@functools.cache
def measured(setup: str) -> MeasurementContext:
    """Return the context of the measurements before a search with the most trials."""
    context = context_of(setup)
    run = dataclasses.replace(context.run, spec=context.run.spec.with_search(trials=max(TRIALS)))
    return MeasurementContext(run, context.ranked, moments=lambda: context.moments)


@functools.cache
def warm_starts_of(setup: str) -> WarmStarts:
    """Choose the warm starts once. A search takes the first of them, in at most a third of its trials."""
    return choose_warm_starts(measured(setup))


@functools.cache
def statistics_of(setup: str, sampler: str) -> Mapping[str, Mapping[str, float]] | None:
    """Measure the statistics of a sampler once."""
    return measure_statistics(measured(setup), sampler)


def replay(setup: str, sampler: str, trials: int, seed: int, *, cold: bool) -> dict[str, object]:
    """Run one search on the table."""
    started = time.process_time()
    context, table = context_of(setup), table_of(setup)
    known = [] if cold else warm_starts_of(setup).trials
    warm = WarmStarts(trials=known[: trials // TRIALS_PER_WARM_START])
    facts = StudyFacts(setting={}, ranking={}, dense_score=0.0, warm_starts=warm)
    study = create_study("sqlite:///:memory:", "replay", config={}, identity={}, facts=facts)
    enqueue_missing(study, context.run.space)
    runner = TrialRunner(
        study,
        context.run.space,
        sampler=sampler,
        pruner=PRUNER,
        trials=trials,
        rungs=len(RUNGS),
        seed=seed,
        statistics=statistics_of(setup, sampler),
        shapes=context.run.prunable.shapes,
    )
    groups = context.run.space.groups

    def score(widths: Mapping[str, int], seed: int) -> Iterator[RungScore]:
        row = table[" ".join(str(widths[name]) for name in groups)]
        for index, name in enumerate(RUNGS):
            yield RungScore(index, name, float(row[name]), 0.0)

    run_search("serial", runner, lambda: score, workers=Workers())
    best = study.best()
    row = table[" ".join(str(best.widths[name]) for name in groups)]
    return {
        "origin": best.origin,
        "trial": best.number,
        "score": row[RUNGS[-1]],
        "val": row["val"],
        "test": row["test"],
        "widths": row["widths"],
        "seconds": round(time.process_time() - started, 1),
    }


def optimum(setup: str) -> list[str]:
    """Return the lines of a table of plans that need no search, and of the best plan there is."""
    table = table_of(setup)
    best = {part: max(table.values(), key=lambda row: float(row[part])) for part in ("val", "test")}
    rows = [
        [
            "all plans: mean",
            *(f"{100 * np.mean([float(row[p]) for row in table.values()]):.2f}" for p in ("val", "test")),
            "",
        ],
        ["best on validation", *_accuracies(best["val"]), best["val"]["widths"]],
        ["best on test", *_accuracies(best["test"]), best["test"]["widths"]],
    ]
    space = context_of(setup).run.space
    for start in warm_starts_of(setup).trials:
        ratios = space.ladder.ratios(np.array([start.levels], dtype=np.int64))
        row = table[key_of(space.decode(ratios[0]).reshape(-1))]
        rows.append([start.origin, *_accuracies(row), row["widths"]])
    return markdown_table([f"{setup}, {SETUPS[setup]}", "validation", "test", "widths"], rows)


def _accuracies(row: Mapping[str, str]) -> list[str]:
    return [f"{100 * float(row[part]):.2f}" for part in ("val", "test")]


def comparison(setup: str) -> list[str]:
    """Return the lines of a table of samplers: mean test accuracy, and its difference to the default."""
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in rows_of(RESULTS):
        if row["setup"] == setup:
            key = (row["trials"], row["sampler"], row["warm"])
            found.setdefault(key, {})[row["seed"]] = 100 * float(row["test"])
    lines = []
    for (trials, sampler, warm), scores in sorted(found.items(), key=lambda each: (int(each[0][0]), each[0])):
        against = found.get((trials, DEFAULT, "1"), {})
        shared = sorted(scores.keys() & against.keys())
        paired = np.array([scores[seed] - against[seed] for seed in shared])
        name = sampler if warm == "1" else f"{sampler}, no warm starts"
        values = list(scores.values())
        lines.append(
            [trials, name, str(len(values)), f"{np.mean(values):.2f}", f"{min(values):.2f}", interval(paired)]
        )
    head = ["trials", "sampler", "seeds", "test, mean", "worst", f"less {DEFAULT} (95%)"]
    return markdown_table(head, lines)


def interval(differences: np.ndarray) -> str:
    """Return the mean of paired differences with its 95% interval by Student's t."""
    if len(differences) < 2:
        return ""
    mean, count = float(differences.mean()), len(differences)
    half = float(student.ppf(0.975, count - 1)) * float(differences.std(ddof=1)) / count**0.5
    return f"{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}]"


if __name__ == "__main__":
    main()
