"""Searches on a real PostgreSQL server that is stopped like a machine without power, and started again."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from autoprune.engines import run_search
from autoprune.study import SearchStudy, _server_storage, open_study
from experiments.faults.material import RUN
from experiments.killing import end_of, forked, has_ended, is_running, kill, start_forked
from experiments.scale.searching import move_to
from experiments.scale.server import PASSWORD, Server
from tests.engines import toy
from tests.engines.toy import TRIALS, ToyScorer, make_toy, new_study, toy_runner
from tests.records import comparable

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


STARTED: list[int] = []
"""Children of the test that runs."""


@pytest.fixture(autouse=True)
def no_child_outlives_its_test() -> Iterator[None]:
    yield
    while STARTED:
        pid = STARTED.pop()
        # A test that passes has waited for its children. Only a child of this process is killed.
        with contextlib.suppress(ChildProcessError):
            if is_running(pid):
                kill(pid)


@pytest.fixture
def own_host_names(tmp_path: Path) -> None:
    """Skip the test if a process cannot take a host name of its own, as in most containers, for root too."""
    probe = tmp_path / "probe"
    probe.mkdir()
    if end_of(forked(lambda: move_to("probe"), probe)) != 0:
        pytest.skip("a host name of its own needs CAP_SYS_ADMIN")


def begin(call: Callable[[], None], folder: Path) -> int:
    """Call a function in a forked child, which is killed if the test fails."""
    STARTED.append(forked(call, folder))
    return STARTED[-1]


def start(url: str, folder: Path, sampler: str = "random", pruner: str = "none", host: str = "") -> int:
    """Begin or resume a search in a forked child."""

    def search() -> None:
        if host:
            move_to(host)
        toy.main(url, sampler, pruner, "serial", "inf")

    return begin(search, folder)


def finished(url: str) -> int:
    return open_study(url, "toy").ended()


def wait_until(condition: Callable[[], bool], processes: Sequence[int]) -> None:
    """Wait for a condition, which must hold before one of the processes ends."""
    deadline = time.monotonic() + 400
    all_ran = True
    while not condition():
        assert all_ran, "a process ended before the condition held"
        assert time.monotonic() < deadline
        all_ran = all(map(is_running, processes))
        time.sleep(0.01)


def require_whole(study: SearchStudy, processes: int) -> None:
    """Require that all trials completed. Processes that create the last one at once may add one each."""
    records = study.records()
    assert TRIALS <= len(records) < TRIALS + processes
    assert [(record.number, record.state) for record in records] == [
        (number, "complete") for number in range(len(records))
    ]


def test_a_search_goes_on_by_itself_after_a_restart_of_its_server_and_equals_an_undisturbed_one(
    server: Server, tmp_path: Path
) -> None:
    url = server.new_database("stopped")
    new_study(url)
    process = start(url, tmp_path, "tpe", "median")
    wait_until(lambda: finished(url) >= TRIALS // 4, [process])
    server.stop()
    time.sleep(1)
    assert has_ended(process) is None
    server.start()
    assert finished(url) < TRIALS, "the server was stopped after the end of the search"
    wait_until(lambda: finished(url) >= TRIALS // 2, [process])
    kill(process)
    process = start(url, tmp_path, "tpe", "median")
    wait_until(lambda: finished(url) > TRIALS // 2, [process])
    server.stop("fast")
    server.start()
    assert end_of(process) == 0
    whole = toy_runner(new_study(f"sqlite:///{tmp_path}/whole.db"), "tpe", TRIALS, "median")
    run_search("serial", whole, make_toy)
    expected = [comparable(record) for record in whole.study.records()]
    assert len(expected) == TRIALS
    assert [comparable(record) for record in open_study(url, "toy").records()] == expected


def test_processes_share_a_study_although_one_is_killed_and_the_server_restarts(
    server: Server, tmp_path: Path
) -> None:
    url = server.new_database("shared")
    study = new_study(url)
    processes = [start(url, tmp_path) for _ in range(3)]
    wait_until(lambda: finished(url) >= 4, processes)
    held = Counter(lease.pid for lease in study.unended().values() if lease is not None)
    assert max(held.values(), default=0) <= 1  # no process holds two trials, and each may be between two
    kill(processes.pop())
    wait_until(lambda: finished(url) >= 8, processes)
    server.stop()
    time.sleep(1)
    server.start()
    assert [end_of(process) for process in processes] == [0, 0]
    require_whole(study, processes=3)


def test_the_trial_of_a_lost_host_waits_for_a_resume_that_takes_it_over(
    own_host_names: None, server: Server, tmp_path: Path
) -> None:
    url = server.new_database("hosts")
    study = new_study(url)

    def hold_a_trial() -> None:
        move_to("node-0")
        runner = toy_runner(open_study(url, "toy"), "random", TRIALS, "none")
        run_search("serial", runner, lambda: ToyScorer(sleep_s=900))

    lost = begin(hold_a_trial, tmp_path)
    wait_until(lambda: any(lease and lease.pid == lost for lease in study.unended().values()), [lost])
    processes = [start(url, tmp_path, host=f"node-{number}") for number in (1, 2)]
    wait_until(lambda: finished(url) >= 1, [lost, *processes])
    kill(lost)
    assert [end_of(process) for process in processes] == [0, 0]
    assert list(study.held_elsewhere().values()) == ["node-0"]
    run_search("serial", toy_runner(study, "random", TRIALS, "none"), make_toy, other_hosts_are_gone=True)
    require_whole(study, processes=3)


def test_a_server_that_stays_away_ends_the_search_with_one_line_and_the_study_is_resumed(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.new_database("away")
    new_study(url)
    monkeypatch.setattr(_server_storage, "WAIT_S", 0.5)
    process = start(url, tmp_path)
    wait_until(lambda: finished(url) >= 3, [process])
    server.stop()
    code = end_of(process)
    server.start()
    assert code == 2
    *_, last = (tmp_path / "log").read_text().splitlines()
    assert last.startswith(
        f"Error: postgresql+psycopg://pruner:***@127.0.0.1:{server.port}/away: its server has"
    )
    assert last.endswith("run the same command again, or `autoprune resume` after a search.")
    assert 0 < finished(url) < TRIALS
    assert end_of(start(url, tmp_path)) == 0
    require_whole(open_study(url, "toy"), processes=1)


def test_a_process_keeps_one_connection_to_its_server(server: Server) -> None:
    url = server.new_database("connections")
    studies = [new_study(url), open_study(url, "toy"), open_study(url.replace("+psycopg", ""), "toy")]
    assert [len(study.records()) for study in studies] == [0, 0, 0]
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'connections'"
    assert server.sql(count) == "2"  # of two spellings of the URL


def test_a_database_of_another_program_on_a_server_keeps_its_tables(server: Server) -> None:
    url = server.new_database("theirs")
    server.sql("CREATE TABLE photos (a int)", "theirs")
    run_search("serial", toy_runner(new_study(url), "random", 3, "none"), make_toy)
    assert finished(url) == 3
    assert server.sql("SELECT count(*) FROM photos", "theirs") == "0"


def test_no_output_file_or_stored_fact_holds_the_password(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run.toml").write_text(RUN)
    url = server.new_database("secrets")
    study = ["tiny", "--storage", url]
    commands = [
        (["train", "run.toml"], 0),
        (["search", "run.toml", "--set", f"search.storage={url}"], 0),
        (["search", "run.toml", "--set", f"search.storage={url}"], 2),
        (["-v", "resume", *study, "--set", "search.trials=3"], 0),
        (["--json", "resume", *study], 0),
        (["resume", "tinny", "--storage", url], 2),
        (["resume", "tiny", "--storage", url.replace("127.0.0.1", "localhost:1,127.0.0.1")], 2),
        (["watch", *study, "--once"], 0),
        (["--json", "watch", *study, "--once"], 0),
        (["report", *study, "--html"], 0),
        (["--json", "report", *study], 0),
        (["finetune", *study], 0),
        (["--json", "best", *study], 0),
        (["export", *study, "--format", "onnx"], 0),
        (["search", "run.toml", "--from-study", "tiny", "--from-storage", url], 2),
    ]
    for words, code in commands:
        assert end_of(start_forked(words, tmp_path)) == code, (words, (tmp_path / "log").read_text())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"readme.md", "report.html", "log"} <= {path.name.lower() for path in files}
    assert [path for path in files if PASSWORD.encode() in path.read_bytes()] == []
    assert "***" in (tmp_path / "log").read_text()
    dump = server.dump("secrets")
    assert "tiny" in dump
    assert PASSWORD not in dump
