"""Replay searches on the table of all plans, and compare samplers, pruners and rungs with a known optimum.

    python -m experiments.allocation.replay [--setups flops] [--samplers tpe gp] [--trials 30 60]
    python -m experiments.allocation.replay --samplers gp --pruners none median halving
    python -m experiments.allocation.replay --samplers gp --rungs 1 2 3
    python -m experiments.allocation.replay --samplers gp experiments.allocation.priors:library
    python -m experiments.allocation.replay --table

Every search is a real one, with the warm starts of the defaults, but a candidate's scores are read from
table-SETUP.csv. Appends a row to replay.csv for each search: the accuracy, after the whole finetune, of the
plan with the best score on the last rung, and of the one that wins a race of the entrants of the defaults.
`--table` prints the means over seeds, the share of all plans that are better, paired differences to the
defaults with 95% intervals, how well each rung ranks all plans, and the plans that no search is needed for.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import time
from collections.abc import Iterator, Mapping

import numpy as np
import optuna
from optuna.storages import InMemoryStorage
from scipy.stats import kendalltau
from scipy.stats import t as student

from autoprune.config.rungs import RungScore
from autoprune.config.settings import RUNGS, RaceSettings
from autoprune.engines import PRUNERS, TrialRunner, Workers, run_search
from autoprune.run._measuring.statistics import MeasurementContext, measure_statistics
from autoprune.run._measuring.warm_starts import TRIALS_PER_WARM_START, choose_warm_starts, enqueue_missing
from autoprune.run._trials.race_plan import entrants_of
from autoprune.samplers import SAMPLERS
from autoprune.study import SearchStudy, StudyFacts, WarmStarts
from autoprune.study._header import Header
from experiments.allocation.setups import HERE, SETUPS, context_of, plan_of
from experiments.allocation.table import key_of, path_of
from experiments.common import append_row, markdown_table, rows_of

RESULTS = HERE / "replay.csv"
DEFAULT = "gp"
PRUNER = "median"
TRIALS = (30, 60, 120)
STEPS = (0, 25, 75)
"""Training steps of each rung."""

RESAMPLED = 200
"""Draws of the bootstrap for the interval of a rank correlation."""

KEY = ("setup", "sampler", "pruner", "rungs", "warm", "trials", "seed")
"""The columns that identify a search."""

Table = Mapping[str, Mapping[str, str]]
"""{widths: the row of the table}."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--setups", nargs="+", default=list(SETUPS), choices=SETUPS)
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), help="also package.module:function")
    parser.add_argument("--pruners", nargs="+", default=[PRUNER], choices=list(PRUNERS))
    parser.add_argument("--rungs", type=int, nargs="+", default=[len(RUNGS)], choices=(1, 2, 3))
    parser.add_argument("--trials", type=int, nargs="+", default=list(TRIALS))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--cold", action="store_true", help="without warm starts")
    parser.add_argument("--table", action="store_true", help="print the tables of the results so far")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if options.table:
        for setup in options.setups:
            print("\n".join([*optimum(setup), *rung_agreement(setup), *comparison(setup)]))
        return
    warm = [0 if options.cold else 1]
    axes = (options.setups, options.samplers, options.pruners, options.rungs, warm, options.trials)
    done = {tuple(row[name] for name in KEY) for row in rows_of(RESULTS)}
    for seed in range(options.seeds):
        for values in itertools.product(*axes, [seed]):
            if tuple(map(str, values)) not in done:
                key = dict(zip(KEY, values, strict=True))
                append_row(RESULTS, {**key, **replay(**key)})


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


def replay(
    setup: str, sampler: str, pruner: str, rungs: int, warm: int, trials: int, seed: int
) -> dict[str, object]:
    """Run one search on the table."""
    started = time.process_time()
    context, table = context_of(setup), table_of(setup)
    known = warm_starts_of(setup).trials if warm else []
    starts = WarmStarts(trials=known[: trials // TRIALS_PER_WARM_START])
    study = _new_study(starts)
    enqueue_missing(study, context.run.space)
    runner = TrialRunner(
        study,
        context.run.space,
        sampler=sampler,
        pruner=pruner,
        trials=trials,
        rungs=rungs,
        seed=seed,
        statistics=statistics_of(setup, sampler),
        shapes=context.run.prunable.shapes,
    )

    def row_of(widths: Mapping[str, int]) -> Mapping[str, str]:
        return table[" ".join(str(widths[name]) for name in context.run.space.groups)]

    def score(widths: Mapping[str, int], seed: int) -> Iterator[RungScore]:
        row = row_of(widths)
        for index, name in enumerate(RUNGS[:rungs]):
            yield RungScore(index, name, float(row[name]), 0.0)

    run_search("serial", runner, lambda: score, workers=Workers())
    records, best = study.records(), study.best()
    row = row_of(best.widths)
    entrants = [row_of(each.widths) for each in entrants_of(study, RaceSettings().entrants)]
    raced = max(entrants, key=lambda each: float(each["val"]))
    return {
        "origin": best.origin,
        "trial": best.number,
        "steps": round(float(np.mean([sum(STEPS[: len(record.scores)]) for record in records])), 1),
        "score": row[RUNGS[rungs - 1]],
        "test": row["test"],
        "raced": raced["test"],
        "widths": raced["widths"],
        "seconds": round(time.process_time() - started, 1),
    }


def _new_study(starts: WarmStarts) -> SearchStudy:
    """Return a study in the memory of this process, which is many times faster than a database."""
    facts = StudyFacts(setting={}, ranking={}, dense_score=0.0, warm_starts=starts)
    header = Header(config={}, identity={}, chosen=facts)
    kept = optuna.create_study(storage=InMemoryStorage(), study_name="replay", direction="maximize")
    return SearchStudy("memory", kept, header)


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
        row = table[key_of(plan_of(space, start))]
        rows.append([start.origin, *_accuracies(row), row["widths"]])
    return markdown_table([f"{setup}, {SETUPS[setup]}", "validation", "test", "widths"], rows)


def _accuracies(row: Mapping[str, str]) -> list[str]:
    return [f"{100 * float(row[part]):.2f}" for part in ("val", "test")]


def rung_agreement(setup: str) -> list[str]:
    """Return the lines of a table of rungs: how well each ranks all plans by their test accuracy."""
    rows = list(table_of(setup).values())
    test = np.array([float(row["test"]) for row in rows])
    lines = []
    for name in (*RUNGS, "val"):
        scores = np.array([float(row[name]) for row in rows])
        rng = np.random.default_rng(0)
        draws = (rng.integers(len(rows), size=len(rows)) for _ in range(RESAMPLED))
        taus = [kendalltau(scores[drawn], test[drawn]).statistic for drawn in draws]
        low, high = np.quantile(taus, (0.025, 0.975))
        lines.append([name, f"{kendalltau(scores, test).statistic:.2f} [{low:.2f}, {high:.2f}]"])
    return markdown_table([f"{setup}: rung", "tau with the test accuracy (95%)"], lines)


def comparison(setup: str) -> list[str]:
    """Return the lines of a table of searches: mean test accuracy, and its difference to the defaults."""
    tests = np.array([float(row["test"]) for row in table_of(setup).values()])
    found: dict[tuple[str, ...], dict[str, dict[str, str]]] = {}
    for row in rows_of(RESULTS):
        if row["setup"] == setup:
            kind = tuple(row[name] for name in ("trials", "sampler", "pruner", "rungs", "warm"))
            found.setdefault(kind, {})[row["seed"]] = row
    lines = []
    for kind, rows in sorted(found.items(), key=lambda each: (int(each[0][0]), each[0])):
        trials, sampler, pruner, rungs, warm = kind
        against = found.get((trials, DEFAULT, PRUNER, str(len(RUNGS)), "1"), {})
        raced = np.array([float(row["raced"]) for row in rows.values()])
        above = np.mean(tests[:, None] > raced)
        differences = []
        for part in ("test", "raced"):
            pairs = ((float(rows[seed][part]), float(against[seed][part])) for seed in rows.keys() & against)
            differences.append(interval(100 * np.array([first - second for first, second in pairs])))
        name = (
            f"{sampler}, {pruner}, {rungs} of {len(RUNGS)} rungs{'' if warm == '1' else ', no warm starts'}"
        )
        steps = np.mean([float(row["steps"]) for row in rows.values()])
        accuracy = f"{100 * raced.mean():.2f}"
        lines.append([trials, name, str(len(rows)), f"{steps:.0f}", accuracy, f"{above:.1%}", *differences])
    head = ["trials", "search", "seeds", "steps a trial", "test after the race", "plans above"]
    return markdown_table([*head, f"less {DEFAULT}, no race (95%)", f"less {DEFAULT}, race (95%)"], lines)


def interval(differences: np.ndarray) -> str:
    """Return the mean of paired differences with its 95% interval by Student's t."""
    if len(differences) < 2:
        return ""
    mean, count = float(differences.mean()), len(differences)
    half = float(student.ppf(0.975, count - 1)) * float(differences.std(ddof=1)) / count**0.5
    return f"{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}]"


if __name__ == "__main__":
    main()
