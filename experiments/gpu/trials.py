"""Trials an hour with several trials at once on one card: 1, 2 and 4 processes, and Ray's fractions of a GPU.

    python -m experiments.gpu.trials [--device cuda] [--tiny]

Each search has the same proposals and the same short trainings. The rate counts from the start of the first
trial to the end of the last one, so it leaves out how long workers take to start. If the daemon of MPS runs,
processes share the card by it. It is never started here, and no setting of the card is changed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from autoprune import run
from autoprune.config import load_config
from autoprune.study import open_study
from experiments.gpu.common import Bench, bench_of
from experiments.gpu.search import base_settings

COLUMNS = (
    *("trials", "failed", "first_to_last_s", "trials_per_hour", "trial_s", "whole_s", "mps", "failure"),
)
CASES = (
    *(("serial", 1, None), ("processes", 2, None), ("processes", 4, None)),
    *(("ray", 2, 0.5), ("ray", 4, 0.25)),
)


def main() -> None:
    bench = bench_of("trials")
    for engine, workers, share in list(cases(bench)):
        known = {"engine": engine, "workers": workers, "gpus_per_trial": "" if share is None else share}
        bench.attempt(known, COLUMNS, partial(searched, bench, engine, workers, share))


def cases(bench: Bench) -> Iterator[tuple[str, int, float | None]]:
    """Yield (engine, trials at once, GPUs of a trial)."""
    if bench.tiny:
        yield CASES[0]
        return
    cores = len(os.sched_getaffinity(0))
    yield from (case for case in CASES if case[1] <= cores)


def searched(bench: Bench, engine: str, workers: int, share: float | None) -> dict[str, object]:
    """Run one search in a temporary folder and return its rate."""
    with TemporaryDirectory(prefix="autoprune-gpu-") as folder:
        return rate(bench, Path(folder), engine, workers, share)


def rate(bench: Bench, folder: Path, engine: str, workers: int, share: float | None) -> dict[str, object]:
    trials = 2 if bench.tiny else 4 * workers
    given = [
        *base_settings(bench, folder),
        *(f"search.engine={engine}", f"search.workers={workers}", f"search.trials={trials}"),
        *("search.sampler=random", "search.warm_starts=[]", "search.pruner=none", "race.entrants=1"),
        f"score.rungs=['calibrate', '{2 if bench.tiny else 150} steps']",
        *([] if engine == "serial" else ["search.cpus_per_trial=1"]),
        *([] if share is None else [f"search.ray.gpus_per_trial={share}"]),
    ]
    started = time.perf_counter()
    result = run.search(config=load_config("digits", given), watch=False)
    whole = time.perf_counter() - started
    study = open_study(*reversed(result.place))
    trials_of = study.optuna.get_trials(deepcopy=False)
    stamps = [(trial.datetime_start, trial.datetime_complete) for trial in trials_of]
    begun = min(begin for begin, _ in stamps if begin is not None)
    span = (max(end for _, end in stamps if end is not None) - begun).total_seconds()
    records = study.records()
    seconds = sorted(record.seconds or 0.0 for record in records)
    return {
        "trials": len(records),
        "failed": sum(record.failure is not None for record in records),
        "first_to_last_s": round(span, 1),
        "trials_per_hour": round(3600 * len(records) / span),
        "trial_s": round(seconds[len(seconds) // 2], 2),
        "whole_s": round(whole, 1),
        "mps": mps_runs(),
    }


def mps_runs() -> bool:
    """Return whether the daemon of NVIDIA's MPS runs, by the file through which it is reached."""
    folder = os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")
    return Path(folder, "control").exists()


if __name__ == "__main__":
    main()
