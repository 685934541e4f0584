"""Searches on a real PostgreSQL server that is stopped like a machine without power, and started again."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from autoprune.study import open_study
from experiments.scale.server import Server, Unavailable, postgresql
from tests.engines.toy import TRIALS, new_study, start
from tests.records import comparable

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    pytest.importorskip("psycopg")
    try:
        with postgresql() as made:
            yield made
    except Unavailable as reason:
        pytest.skip(str(reason))


def finished(url: str) -> int:
    return sum(record.has_ended for record in open_study(url, "toy").records())


def wait_until(condition: Callable[[], bool], *processes: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    while not condition() and any(process.poll() is None for process in processes):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_search_goes_on_by_itself_after_a_restart_of_its_server_and_equals_an_undisturbed_one(
    server: Server,
) -> None:
    whole, stopped = server.new_database("whole"), server.new_database("stopped")
    assert start(whole, "tpe", "median").wait() == 0
    process = start(stopped, "tpe", "median")
    wait_until(lambda: finished(stopped) >= TRIALS // 4, process)
    server.stop()
    time.sleep(2)
    assert process.poll() is None
    server.start()
    assert 0 < finished(stopped) < TRIALS, "the server was stopped after the end of the search"
    wait_until(lambda: finished(stopped) >= TRIALS // 2, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process = start(stopped, "tpe", "median")
    server.stop("fast")
    server.start()
    assert process.wait() == 0
    expected = [comparable(record) for record in open_study(whole, "toy").records()]
    assert len(expected) == TRIALS
    assert [comparable(record) for record in open_study(stopped, "toy").records()] == expected


def test_several_processes_share_a_study_one_is_killed_and_the_server_restarts(server: Server) -> None:
    url = server.new_database("shared")
    new_study(url)
    processes = [start(url, "random", "none") for _ in range(3)]
    wait_until(lambda: finished(url) >= 4, *processes)
    processes[0].send_signal(signal.SIGKILL)
    wait_until(lambda: finished(url) >= 8, *processes[1:])
    server.stop()
    time.sleep(2)
    server.start()
    assert [process.wait() for process in processes] == [-signal.SIGKILL, 0, 0]
    records = open_study(url, "toy").records()
    # Two processes that create the last trial at the same moment may both create one.
    assert TRIALS <= len(records) <= TRIALS + 2
    assert [record.state for record in records] == ["complete"] * len(records)
    assert [record.number for record in records] == list(range(len(records)))


def test_a_database_of_another_program_on_a_server_keeps_its_tables(server: Server) -> None:
    url = server.new_database("theirs")
    server.sql("CREATE TABLE photos (a int)", "theirs")
    assert start(url, "random", "none").wait() == 0
    assert finished(url) == TRIALS
    assert server.sql("SELECT count(*) FROM photos", "theirs") == "0"
