"""Measures how many trials an hour 1, 2 and 4 processes run on one study, in each kind of storage.

    python -m experiments.scale.throughput

The processes share nothing but the storage. Their scorer sleeps for the time of recorded trials, at three
times the pace, so all they compute is the search itself: the sampler, the records and the storage. The server
is as durable as one in use. Appends a row a search to throughput.csv, and goes on after the last row.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from autoprune.study import open_study
from experiments.common import append_row, rows_of
from experiments.killing import end_of
from experiments.scale.searching import STUDY, Search, create, outcome, work
from experiments.scale.server import postgresql

RESULTS = Path(__file__).with_name("throughput.csv")
STORAGES = ("sqlite", "journal", "postgresql")
WORKERS = (1, 2, 4)
TRIALS, PACE = 24, 3.0


def main() -> None:
    done = {(row["storage"], int(row["workers"])) for row in rows_of(RESULTS)}
    left = [(s, w) for w in WORKERS for s in STORAGES if (s, w) not in done]
    with postgresql(durable=True) as server, tempfile.TemporaryDirectory() as folder:
        for storage, workers in left:
            place = Path(folder) / f"{storage}-{workers}"
            place.mkdir()
            if storage == "postgresql":
                url = server.new_database(f"with_{workers}")
            else:
                url = f"{storage}:///{place}/study.db"
            search = Search(url, place, TRIALS, PACE, sampler="tpe")
            append_row(RESULTS, {"storage": storage, "workers": workers, **measure(search, workers)})


def measure(search: Search, workers: int) -> dict[str, object]:
    """Run a search with this many processes."""
    create(search.url)
    pids = [work(search) for _ in range(workers)]
    if any(end_of(pid) for pid in pids):
        raise AssertionError((search.folder / "log").read_text())
    study = open_study(search.url, STUDY)
    trials = study.optuna.get_trials()
    starts = [each.datetime_start.timestamp() for each in trials if each.datetime_start]
    ends = [each.datetime_complete.timestamp() for each in trials if each.datetime_complete]
    seconds = max(ends) - min(starts)
    scoring = float(np.sum([score.seconds for record in study.records() for score in record.scores]))
    found = outcome(search)
    return {
        "trials": len(trials),
        "lost": found.lost,
        "extra": found.extra,
        "seconds": round(seconds, 1),
        "scoring_seconds": round(scoring, 1),
        "trials_per_hour": round(3600 * len(trials) / seconds),
        "idle_share": round(1 - scoring / (workers * seconds), 3),
        "load": round(float(Path("/proc/loadavg").read_text().split()[0]), 1),
        "measured": time.strftime("%Y-%m-%d"),
    }


if __name__ == "__main__":
    main()
