"""Claim: two workers on two cores do at least 1.7 times the trials per hour of one.

The engine "processes" with two workers of one thread each against the engine "serial" with one thread: the
same 12 proposals of the random sampler at 25% of the FLOPs, all of them up to the last of the default rungs,
each study in a new SQLite file. In turn, the order swapped from round to round.

    python -m experiments.search_efficiency.workers [--rounds 5]

Appends a row a round to workers.csv. A search's clock runs from the start of its first trial to the end of
its last. How long the workers took to start, once a search, has a column of its own.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from autoprune.engines import MakeScorer, TrialEvent, TrialRunner, run_search
from autoprune.run._resolving.ranking import encode_ranking
from autoprune.run._trials.scoring import ScorerFactory, identify_parts, make_score
from autoprune.study import StudyFacts, create_study
from experiments.common import append_row, rows_of
from experiments.search_efficiency.setups import HERE, SETTING, config_of, context_of

SETUP, SEED = "resnet20-25", 0
TRIALS = 12
WORKERS = 2
RESULTS = HERE / "workers.csv"


@dataclass(frozen=True)
class Run:
    """A search that ended: its widths and scores, the seconds before its first trial, and from there on."""

    trials: list[tuple[dict[str, int], float | None]]
    start_seconds: float
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for number in range(len(rows_of(RESULTS)), options.rounds):
        append_row(RESULTS, measure(number))


def measure(number: int) -> dict[str, object]:
    """Run both engines once."""
    engines = ("serial", "processes") if number % 2 == 0 else ("processes", "serial")
    runs = {engine: run(engine) for engine in engines}
    serial, parallel = runs["serial"], runs["processes"]
    if serial.trials != parallel.trials:
        raise AssertionError("the two engines did not try the same, or scored it otherwise")
    return {
        "round": number,
        "trials": TRIALS,
        "serial_seconds": round(serial.seconds, 2),
        "workers_seconds": round(parallel.seconds, 2),
        "workers_start_seconds": round(parallel.start_seconds, 2),
        "ratio": round(serial.seconds / parallel.seconds, 4),
    }


def run(engine: str) -> Run:
    """Run one search in a new storage."""
    context = context_of(SETUP, SEED)
    torch.set_num_threads(SETTING.threads)
    prunable, config = context.run.prunable, config_of(SETUP, SEED)
    ranking = encode_ranking(context.ranked)
    make_scorer: MakeScorer = ScorerFactory(
        config, SETTING, ranking, parts=identify_parts(context.run.dense, prunable, None)
    )
    if engine == "serial":
        score = make_score(context.run.dense, prunable, config, SETTING, ranking)
        make_scorer = lambda: score  # noqa: E731 - the score that is there already, as in a search
    times: dict[str, list[float]] = {"started": [], "rung": [], "finished": [], "requeued": []}

    def note(event: TrialEvent) -> None:
        times[event.kind].append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'study.db'}"
        study = create_study(
            url, engine, config={}, identity={}, facts=StudyFacts(setting={}, ranking={}, dense_score=0.0)
        )
        runner = TrialRunner(
            study,
            context.run.space,
            sampler="random",
            pruner="none",
            trials=TRIALS,
            rungs=len(config.rungs),
            seed=SEED,
            on_event=note,
        )
        before = time.perf_counter()
        run_search(engine, runner, make_scorer, workers=WORKERS)
        trials = [(dict(record.widths), record.score) for record in study.records()]
    return Run(trials, times["started"][0] - before, times["finished"][-1] - times["started"][0])


if __name__ == "__main__":
    main()
