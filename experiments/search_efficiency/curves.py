"""Claim: the default search finds in 60 evaluations what 300 random ones find, in 0.3 of their seconds.

Every sampler proposes 60 candidates (random also 300) that fill [0.98, 1.00] of the budget. Each is scored on
the first rung, BatchNorm recalibration and the whole validation part. Warm starts are the first of the 60
trials, and the seconds that they and the statistics took are counted, as are those of the proposals.

    python -m experiments.search_efficiency.curves [--setups resnet20-25] [--seeds 0 1 2] [--methods tpe]

Writes a file of trials a setup and seed into curves/, a method as a block. What is there is not run again,
and scores come from the cache in scores/. `python -m experiments.search_efficiency.summarise` draws them.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoprune.engines import TrialRunner
from autoprune.run._measuring.statistics import MeasurementContext, measure_statistics
from autoprune.run._measuring.warm_starts import choose_warm_starts, enqueue_missing
from autoprune.samplers import SAMPLERS
from autoprune.study import StudyFacts, WarmStarts, create_study
from experiments.common import append_row, rows_of
from experiments.search_efficiency.scores import CachedScore
from experiments.search_efficiency.setups import EVALUATIONS, HERE, SETUPS, context_of

LARGE = 300
"""Evaluations of the random search that EagleEye (Li et al., ECCV 2020) stands for."""


@dataclass(frozen=True)
class Method:
    """A sampler with its number of trials, after warm starts or from nothing."""

    sampler: str
    trials: int = EVALUATIONS
    warm: bool = True


METHODS = {
    f"random-{LARGE}": Method("random", LARGE, warm=False),
    **{name: Method(name) for name in SAMPLERS if name != "random"},
    **{f"{name} cold": Method(name, warm=False) for name in ("tpe", "evolution", "policy_gradient")},
}
"""All with their default settings. The first 60 of the 300 random ones are the random search of 60."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--setups", nargs="+", default=list(SETUPS), choices=SETUPS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    options = parser.parse_args()
    for seed in options.seeds:
        for setup in options.setups:
            path = HERE / "curves" / f"{setup}-{seed}.csv"
            path.parent.mkdir(exist_ok=True)
            for method in options.methods:
                if method not in finished(path):
                    for row in run(setup, seed, METHODS[method]):
                        append_row(path, {"method": method, **row}, quiet=True)
                    print(setup, seed, method, flush=True)


def finished(path: Path) -> set[str]:
    """Return the methods whose trials are all in a file. Rows of one that was cut off are dropped from it."""
    rows = rows_of(path)
    counts = Counter(row["method"] for row in rows)
    whole = {method for method, count in counts.items() if count == METHODS[method].trials}
    if len(whole) < len(counts):
        path.unlink()
        for row in rows:
            if row["method"] in whole:
                append_row(path, row, quiet=True)
    return whole


def run(setup: str, seed: int, method: Method) -> list[dict[str, object]]:
    """Run one search and return a row a trial."""
    context = context_of(setup, seed)
    before = time.perf_counter()
    statistics = measure_statistics(context, method.sampler)
    seconds = time.perf_counter() - before
    warm = _warm_starts(setup, seed) if method.warm else WarmStarts(trials=[])
    facts = StudyFacts(setting={}, ranking={}, dense_score=0.0, warm_starts=warm)
    study = create_study("sqlite:///:memory:", "curve", config={}, identity={}, facts=facts)
    space = context.run.space
    enqueue_missing(study, space)
    runner = TrialRunner(
        study,
        space,
        sampler=method.sampler,
        pruner="none",
        trials=method.trials,
        seed=seed,
        statistics=statistics,
        shapes=context.run.prunable.shapes,
    )
    score = CachedScore(setup, seed)
    rows: list[dict[str, object]] = []
    spent = seconds + sum(warm.seconds.values())
    while True:
        before = time.perf_counter()
        job = runner.ask()
        spent += time.perf_counter() - before
        if job is None:
            break
        (rung,) = score(job.widths, job.variant)
        runner.report(job, rung)
        before = time.perf_counter()
        runner.finish(job)
        spent += time.perf_counter() - before + rung.seconds
        rows.append({"trial": job.number, "at": round(spent, 3)})
    ends = {row["trial"]: row["at"] for row in rows}
    return [_row(record, ends, context) for record in study.records()]


def _row(record: Any, ends: dict[object, object], context: MeasurementContext) -> dict[str, object]:
    """Describe a trial. One whose widths were scored before took no evaluation."""
    return {
        "trial": record.number,
        "origin": record.origin,
        "score": f"{record.score:.6f}",
        "flops_share": f"{record.macs / int(context.run.dense_cost.macs):.5f}",
        "seconds": ends.get(record.number, ""),
        "reused": "" if record.reused is None else record.reused,
        "widths": " ".join(str(record.widths[group.name]) for group in context.run.prunable.searchable),
    }


_MEASURED: dict[tuple[str, int], WarmStarts] = {}


def _warm_starts(setup: str, seed: int) -> WarmStarts:
    """Choose the warm starts once a setup and seed. Every method counts their seconds."""
    if (setup, seed) not in _MEASURED:
        _MEASURED[setup, seed] = choose_warm_starts(context_of(setup, seed))
    return _MEASURED[setup, seed]


if __name__ == "__main__":
    main()
