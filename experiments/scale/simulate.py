"""Simulates searches of up to 100 processes on one PostgreSQL study, from costs that are measured here.

    python -m experiments.scale.simulate    # appends the missing cases to costs.csv, rewrites simulated.csv

1. `costs.csv`: a real search with TPE on a real server, which scores nothing. A number of trials is open at
   any time, as if so many processes worked on the study, and a number has ended. It has the processor
   seconds of the search (sampler, records, Optuna) and of the server, and the transactions, per trial.
2. `simulated.csv`: processes that ask, score for the time of a recorded trial, and report. What they compute
   takes the measured seconds on a core of their own. What the server computes takes its seconds on one of the
   server's cores, in the order of arrival, and each transaction takes the seconds of a commit.
"""

from __future__ import annotations

import heapq
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoprune.config.rungs import RungScore
from autoprune.engines import Job, TrialRunner
from experiments.common import append_row, rows_of
from experiments.scale.searching import RUNGS, Search, create, recorded_seconds
from experiments.scale.server import Server, postgresql

HERE = Path(__file__).parent
COSTS, SIMULATED = HERE / "costs.csv", HERE / "simulated.csv"
CASES = ((1, 0), (1, 1000), (40, 0), (40, 1000))
"""Open trials, and trials that have ended, of the searches that are measured."""
MEASURED = 8
PROCESSES = (1, 2, 4, 8, 16, 32, 64, 100)
TRIALS = 1000
PACES = (1.0, 10.0)
"""Recorded trials of 11 s in the mean, and trials ten times as fast."""

TABLES = {
    "trial_params": "param_name, param_value, distribution_json",
    "trial_values": "objective, value, value_type",
    "trial_intermediate_values": "step, intermediate_value, intermediate_value_type",
    "trial_user_attributes": "key, value_json",
    "trial_system_attributes": "key, value_json",
}
"""Optuna's tables of trials, and the columns of each that are copied."""

SERVER_CORES = 2
COMMIT_S = 0.002
"""Seconds of a commit on a disk that keeps it, and of the way to the server."""


def main() -> None:
    done = {(int(row["open"]), int(row["ended"])) for row in rows_of(COSTS)}
    for number, ended in CASES:
        if (number, ended) not in done:
            with postgresql(durable=True) as server, tempfile.TemporaryDirectory() as folder:
                append_row(COSTS, measure(server, Path(folder), number, ended))
    costs = Costs.fitted()
    # All rows, because another measured case changes the fit.
    rows = [simulate(costs, processes, pace) for pace in PACES for processes in PROCESSES]
    SIMULATED.unlink(missing_ok=True)
    for row in rows:
        append_row(SIMULATED, row)


def measure(server: Server, folder: Path, number: int, ended: int) -> dict[str, object]:
    """Run a search with given numbers of open and of ended trials. Return the costs of a trial."""
    url = server.new_database("scale")
    create(url)
    runner = Search(url, folder, 1_000_000, sampler="tpe").runner()
    score(runner, runner.ask())
    if ended > 1:
        copy_trial(server, ended - 1)
    opened = [runner.ask() for _ in range(number)]
    before = (time.process_time(), server_seconds(server), transactions(server))
    for _ in range(MEASURED):
        score(runner, opened.pop(0))
        opened.append(runner.ask())
    after = (time.process_time(), server_seconds(server), transactions(server))
    search_s, server_s, commits = ((b - a) / MEASURED for a, b in zip(before, after, strict=True))
    return {
        "open": number,
        "ended": ended,
        "search_s": round(search_s, 4),
        "server_s": round(server_s, 4),
        "transactions": round(commits, 1),
    }


def score(runner: TrialRunner, job: Job | None) -> None:
    """Report scores of a trial at once."""
    assert job is not None
    for rung in range(RUNGS):
        value = sum(np.sin(width / 7 + rung) for width in job.widths.values())
        runner.report(job, RungScore(rung, f"rung{rung}", float(value), 0.0))
    runner.finish(job)


def copy_trial(server: Server, copies: int) -> None:
    """Copy trial 0 within the database, which takes less time than so many trials."""
    server.sql(
        "INSERT INTO trials (number, study_id, state, datetime_start, datetime_complete) "
        "SELECT copy, study_id, state, datetime_start, datetime_complete "
        f"FROM trials, generate_series(1, {copies}) AS copy WHERE number = 0",
        "scale",
    )
    for table, columns in TABLES.items():
        server.sql(
            f"INSERT INTO {table} (trial_id, {columns}) SELECT copy.trial_id, {columns} FROM {table} "
            "JOIN trials AS first USING (trial_id) JOIN trials AS copy ON copy.number > 0 "
            "WHERE first.number = 0",
            "scale",
        )


def server_seconds(server: Server) -> float:
    """Return the processor seconds of all processes of a server."""
    head = int(Path(server.folder, "data", "postmaster.pid").read_text().split()[0])
    children = Path(f"/proc/{head}/task/{head}/children").read_text().split()
    stats = [_stat(head), *map(_stat, map(int, children))]
    # User and system time of each process, and those of its children that have ended.
    return sum(sum(map(int, stat[11:15])) for stat in stats) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def transactions(server: Server) -> int:
    # The server counts the transactions of a backend a second later, at most.
    time.sleep(1.1)
    return int(server.sql("SELECT xact_commit FROM pg_stat_database WHERE datname = 'scale'"))


@dataclass(frozen=True)
class Costs:
    """Costs of a trial: a constant, a part for each trial of the study, and one for each open trial."""

    search: NDArray[np.float64]
    server: NDArray[np.float64]
    transactions: float

    @classmethod
    def fitted(cls) -> Costs:
        """Fit them to `costs.csv` by least squares."""
        rows = rows_of(COSTS)
        terms = np.array([[1.0, float(row["ended"]), float(row["open"])] for row in rows])
        search, server = (
            np.linalg.lstsq(terms, np.array([float(row[name]) for row in rows]), rcond=None)[0]
            for name in ("search_s", "server_s")
        )
        return cls(search, server, float(np.mean([float(row["transactions"]) for row in rows])))

    def of(self, trials: int, opened: int) -> tuple[float, float]:
        """Return the seconds of the search and of the server for a trial."""
        terms = np.array([1.0, trials, opened])
        return max(0.0, float(self.search @ terms)), max(0.0, float(self.server @ terms))


def simulate(costs: Costs, processes: int, pace: float) -> dict[str, object]:
    """Simulate a search."""
    rng = np.random.default_rng(0)
    scoring = rng.choice(recorded_seconds(), TRIALS) / pace
    cores = [0.0] * SERVER_CORES
    # (moment, process, whether it has scored): half of the costs before a trial is scored, half after it.
    events = [(0.0, process, False) for process in range(processes)]
    begun, ended, busy, scored, last = 0, 0, 0.0, 0.0, 0.0
    while events:
        moment, process, has_scored = heapq.heappop(events)
        if not has_scored and begun == TRIALS:
            continue
        search_s, server_s = (each / 2 for each in costs.of(begun, min(processes, TRIALS - ended)))
        begins = max(moment, heapq.heappop(cores))
        heapq.heappush(cores, begins + server_s)
        busy += server_s
        moment = begins + server_s + search_s + costs.transactions / 2 * COMMIT_S
        if has_scored:
            ended += 1
            last = max(last, moment)
            heapq.heappush(events, (moment, process, False))
        else:
            scored += scoring[begun]
            heapq.heappush(events, (moment + scoring[begun], process, True))
            begun += 1
    return {
        "pace": pace,
        "processes": processes,
        "trials": TRIALS,
        "trials_per_hour": round(3600 * TRIALS / last),
        "speedup": round(float(np.sum(scoring) + alone(costs)) / last, 2),
        "idle_share": round(1 - scored / (processes * last), 3),
        "server_load": round(busy / last, 3),
        "transactions_per_s": round(TRIALS * costs.transactions / last, 1),
    }


def alone(costs: Costs) -> float:
    """Return the seconds that one process spends on all trials, except for scoring them."""
    return sum(sum(costs.of(trial, 1)) + costs.transactions * COMMIT_S for trial in range(TRIALS))


if __name__ == "__main__":
    main()
