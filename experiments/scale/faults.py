"""Question: does a kill, a restart or a lost machine cost a search a trial?

    python -m experiments.scale.faults [CASE ...]

Each case is a search of 40 trials, whose scorer sleeps as long as recorded trials took, at a higher pace.
Faults happen after every few trials. Appends a row for each run of a case that faults.csv lacks.

The hosts of a case are processes with host names of their own. None of them can see whether another one
lives. A trial that a process scores to its end as it is killed is scored twice, which is no loss.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from autoprune.engines import TrialEvent, Workers
from autoprune.study import _server_storage
from experiments.common import append_row, rows_of
from experiments.killing import end_of, is_running, kill
from experiments.scale.searching import Search, create, ended, outcome, work
from experiments.scale.server import postgresql

RESULTS = Path(__file__).with_name("faults.csv")
TRIALS, PROCESSES, FAULTS = 40, 3, 6
AWAY_S = 3.0
RUNS = {"PostgreSQL: server away for longer than a search waits": 2}
"""How often a case runs, if not once."""
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


def main() -> None:
    for name, run in missing(sys.argv[1:] or CASES):
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            os.chmod(folder, 0o755)
            append_row(RESULTS, {"case": name, "run": run} | CASES[name](name, Path(folder), began))


def missing(names: Iterable[str]) -> list[tuple[str, int]]:
    """Return the case and the number of each run that faults.csv lacks."""
    done = {(row["case"], int(row["run"])) for row in rows_of(RESULTS)}
    runs = [(name, run) for name in names for run in range(1, RUNS.get(name, 1) + 1)]
    return [each for each in runs if each not in done]


def row(name: str, search: Search, began: float, *, faults: int, **more: object) -> dict[str, object]:
    found = outcome(search)
    return {
        "case": name,
        "trials": search.trials,
        "faults": faults,
        "resumes": more.get("resumes", 0),
        "ended": found.ended,
        "lost": found.lost,
        "extra": found.extra,
        "scored_twice": found.scored_twice,
        "waits_reported": more.get("waits", 0),
        "seconds": round(time.monotonic() - began),
    }


def wait_for(search: Search, count: int, pids: list[int]) -> None:
    """Wait until this many trials have ended, or all processes have."""
    while ended(search) < count and any(is_running(pid) for pid in pids):
        time.sleep(0.1)


def after(fault: int) -> int:
    """Return the number of trials after which a fault happens."""
    return (fault + 1) * TRIALS // (FAULTS + 2)


def kills(search: Search, *, hosts: bool = False) -> int:
    """Kill one of three processes again and again, and begin another in its place. Return the resumes."""
    create(search.url)
    names = iter(f"node-{n}" for n in range(1, 100))
    pids = [work(search, next(names) if hosts else None) for _ in range(PROCESSES)]
    for fault in range(FAULTS):
        wait_for(search, after(fault), pids)
        kill(pids.pop(0))
        pids.append(work(search, next(names) if hosts else None))
    codes = [end_of(pid) for pid in pids]
    if any(codes):
        raise AssertionError(f"processes ended with {codes}")
    # Of hosts, nobody could see that they are gone.
    if hosts and end_of(work(search, next(names), take_over=True)):
        raise AssertionError("the last resume failed")
    return FAULTS + hosts


def processes_killed(scheme: str) -> Callable[[str, Path, float], dict[str, object]]:
    def case(name: str, folder: Path, began: float) -> dict[str, object]:
        with _url(scheme, folder) as url:
            search = Search(url, folder, TRIALS)
            resumes = kills(search)
            return row(name, search, began, faults=FAULTS, resumes=resumes)

    return case


def hosts_lost(name: str, folder: Path, began: float) -> dict[str, object]:
    with _url("postgresql", folder) as url:
        search = Search(url, folder, TRIALS)
        resumes = kills(search, hosts=True)
        return row(name, search, began, faults=FAULTS, resumes=resumes)


def server_stopped(mode: str) -> Callable[[str, Path, float], dict[str, object]]:
    def case(name: str, folder: Path, began: float) -> dict[str, object]:
        with postgresql() as server:
            search = Search(server.new_database("scale"), folder, TRIALS)
            create(search.url)
            pids = [work(search) for _ in range(PROCESSES)]
            for fault in range(FAULTS):
                wait_for(search, after(fault), pids)
                server.stop(mode)
                time.sleep(AWAY_S)
                server.start()
            codes = [end_of(pid) for pid in pids]
            if any(codes):
                raise AssertionError(f"processes ended with {codes}")
            waits = (folder / "log").read_text().count("the server is back")
            return row(name, search, began, faults=FAULTS, waits=waits)

    return case


def server_away(name: str, folder: Path, began: float) -> dict[str, object]:
    """Stop the server for longer than a search waits: each process ends with code 2, and is resumed."""
    _server_storage.WAIT_S = 2.0
    with postgresql() as server:
        search = Search(server.new_database("scale"), folder, TRIALS)
        create(search.url)
        resumes = 0
        for fault in range(3):
            pids = [work(search) for _ in range(PROCESSES)]
            wait_for(search, after(fault), pids)
            server.stop()
            codes = [end_of(pid) for pid in pids]
            if codes != [2] * PROCESSES:
                raise AssertionError(f"processes ended with {codes}, expected 2")
            server.start()
            resumes += PROCESSES
        if any(end_of(pid) for pid in [work(search) for _ in range(PROCESSES)]):
            raise AssertionError("the last resume failed")
        return row(name, search, began, faults=3, resumes=resumes)


def joined(cluster: Any) -> list[Any]:
    """Add a node to a Ray cluster. Return it in a list, or none if Ray stopped waiting for it.

    Ray waits for 30 seconds. On a busy machine the node joins later, and works like any other.
    """
    with contextlib.suppress(Exception):
        return [cluster.add_node(**NODE)]
    return []


def ray_nodes(name: str, folder: Path, began: float) -> dict[str, object]:
    """Three nodes, of which one after the other leaves in the middle of its trials, and another joins."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
    nodes = [cluster.add_node(**NODE) for _ in range(2)]
    changes = [after(2 * change) for change in range(3)]
    finished = 0

    def change(event: TrialEvent) -> None:
        nonlocal finished
        finished += event.kind == "finished"
        if changes and nodes and finished >= changes[0]:
            del changes[0]
            cluster.remove_node(nodes.pop(0), allow_graceful=False)
            nodes.extend(joined(cluster))

    search = Search(f"sqlite:///{folder}/study.db", folder, TRIALS, pace=15.0)
    create(search.url)
    workers = Workers(PROCESSES, cpus=1, address=cluster.address)
    try:
        search.run("ray", workers, on_event=change)
        return row(name, search, began, faults=6)
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]  # ray leaves it untyped


@contextlib.contextmanager
def _url(scheme: str, folder: Path) -> Iterator[str]:
    """Return the URL of a new storage."""
    if scheme != "postgresql":
        yield f"{scheme}:///{folder}/study.db"
        return
    with postgresql() as server:
        yield server.new_database("scale")


CASES: dict[str, Callable[[str, Path, float], dict[str, object]]] = {
    "SQLite: kill -9 of one of 3 processes": processes_killed("sqlite"),
    "journal: kill -9 of one of 3 processes": processes_killed("journal"),
    "PostgreSQL: kill -9 of one of 3 processes": processes_killed("postgresql"),
    "PostgreSQL: one of 3 hosts lost": hosts_lost,
    "PostgreSQL: server killed and restarted": server_stopped("immediate"),
    "PostgreSQL: server restarted by its administrator": server_stopped("fast"),
    "PostgreSQL: server away for longer than a search waits": server_away,
    "Ray: one of 3 nodes lost, another joins": ray_nodes,
}

if __name__ == "__main__":
    main()
