"""kill -9 at random moments of a real process: the resumed trials are those of an uninterrupted search."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autoprune.engines import run_search
from autoprune.study import open_study
from tests.engines.toy import ROOT, TRIALS, make_toy, new_study, start, toy_runner
from tests.records import comparable


def finished(url: str) -> int:
    return sum(record.state in ("complete", "pruned") for record in open_study(url, "toy").records())


SEVERAL = ("score", "macs")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "pruner", "scheme", "objectives"),
    [
        ("tpe", "halving", "sqlite", ()),
        ("cmaes", "hyperband", "journal", ()),
        ("tpe", "median", "journal", SEVERAL),
        ("nsga2", "median", "sqlite", SEVERAL),
        ("nsga2", "median", "sqlite", ()),
        ("gp", "percentile", "sqlite", ()),
        ("tpe", "median", "sqlite", ("tolerance",)),
    ],
)
def test_resumed_trials_equal_the_uninterrupted_ones(
    sampler: str, pruner: str, scheme: str, objectives: tuple[str, ...], tmp_path: Path
) -> None:
    whole, killed = f"{scheme}:///{tmp_path}/whole.db", f"{scheme}:///{tmp_path}/killed.db"
    run_search(
        "serial", toy_runner(new_study(whole, objectives or ("score",)), sampler, TRIALS, pruner), make_toy
    )
    moments = random.Random(f"{sampler} {pruner}")
    done, inside = 0, 0
    for _ in range(2):
        process = start(killed, sampler, pruner, "serial", *objectives)
        # Trials, not seconds: how fast they are differs by machine. And one that is killed twice has failed.
        mark = done + moments.randint(1, 5)
        while finished(killed) < mark and process.poll() is None:
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        was_killed = process.wait() == -signal.SIGKILL
        assert finished(killed) >= done
        done = finished(killed)
        inside += was_killed and done < TRIALS
    assert inside, "every kill fell after the end of the search"
    assert start(killed, sampler, pruner, "serial", *objectives).wait() == 0
    expected = [comparable(record) for record in open_study(whole, "toy").records()]
    assert [comparable(record) for record in open_study(killed, "toy").records()] == expected
    assert len(expected) == TRIALS
    assert open_study(killed, "toy").objectives == open_study(whole, "toy").objectives


@pytest.mark.slow
def test_workers_leave_when_their_parent_is_killed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    process = start(url, "random", "none", "processes")
    deadline = time.monotonic() + 200
    children: list[int] = []
    while len(children) < 2 or not open_study(url, "toy").records():
        children = [int(pid) for pid in children_of(process.pid)]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.kill()
    process.wait()
    while any(is_running(pid) for pid in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    study = open_study(url, "toy")
    running = [record.number for record in study.records() if record.state == "running"]
    assert study.requeue_dead() == running


def children_of(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        pytest.skip("needs /proc")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


DEADLY = """
import sys
from pathlib import Path

from autoprune.engines import run_search
from autoprune.study import open_study
from tests.engines.toy import Troubled, toy_runner

url, calls = sys.argv[1:]
runner = toy_runner(open_study(url, "toy"), "random", trials=3, pruner="none")
run_search("serial", runner, lambda: Troubled(Path(calls), "dies twice"))
"""


@pytest.mark.slow
def test_a_trial_that_kills_the_search_itself_fails_in_the_end(tmp_path: Path) -> None:
    """As one does that takes all memory: without an end, each resume would begin with it again."""
    url, calls = f"sqlite:///{tmp_path}/study.db", tmp_path / "calls"
    calls.mkdir()
    new_study(url)
    command = [sys.executable, "-c", DEADLY, url, str(calls)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    codes = [subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode for _ in range(3)]
    assert codes == [-signal.SIGKILL] * 2 + [0]
    records = open_study(url, "toy").records()
    assert [record.state for record in records] == ["failed", "complete", "complete"]
    assert records[0].failure == "its process died 2 times while it ran."
