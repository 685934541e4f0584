"""`autoprune watch`: lines where no terminal is, one view for a terminal, and a search that is killed."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from autoprune.cli import _watch
from autoprune.cli._watch import show_statuses, status_advice, status_view
from autoprune.errors import StudyError
from autoprune.run import Entrant, Event, RaceStatus, StudyStatus, TrialDone, Worker, follow
from autoprune.study import open_study
from autoprune.support.printing import PrintableConsole
from tests.children import CONTEXT
from tests.cli.test_output import typed
from tests.own_rows import tiny_search
from tests.reporting.test_tables import FAILED, RECORD, SUMMARY

WORKER = Worker("box", 4711, "trials", True, {2: 12.0})
STATUS = StudyStatus(
    summary=SUMMARY,
    storage="sqlite:///s.db",
    trials=6,
    done=2,
    reached={"calibrate": 2, "50 steps": 1},
    per_hour=120.0,
    left_s=120.0,
    heard_s=3.0,
    workers=(WORKER,),
    failed=(),
    race=None,
    is_finished=False,
    resume="autoprune resume s",
)
TROUBLED = dataclasses.replace(
    STATUS,
    done=3,
    failed=(dataclasses.replace(FAILED, number=2, failure="out of memory\x1b[31m"),),
)
RACING = dataclasses.replace(
    TROUBLED,
    done=6,
    workers=(dataclasses.replace(WORKER, phase="race", trials={}),),
    race=RaceStatus((Entrant(0, "uniform", 2, 0.91, None),), 4, (2, 8), 45.0),
)
KILLED = dataclasses.replace(TROUBLED, workers=(dataclasses.replace(WORKER, is_alive=False),))
UNSEEN = dataclasses.replace(TROUBLED, workers=(dataclasses.replace(WORKER, is_alive=None),))
ENDED = dataclasses.replace(TROUBLED, done=6, workers=(), is_finished=True, resume="")


def lines(*statuses: StudyStatus, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the lines that a log gets."""
    file = io.StringIO()
    monkeypatch.setattr("autoprune.cli._output.console", PrintableConsole(file=file, width=200))
    monkeypatch.setattr(_watch, "console", PrintableConsole(file=file, width=200))
    show_statuses(statuses)
    return file.getvalue().splitlines()


def drawn(status: StudyStatus) -> str:
    file = io.StringIO()
    PrintableConsole(file=file, width=120).print(status_view(status))
    return file.getvalue()


def test_a_log_gets_a_line_for_each_change_and_none_for_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    later = dataclasses.replace(STATUS, left_s=60.0, heard_s=9.0)
    found = lines(STATUS, later, TROUBLED, KILLED, ENDED, monkeypatch=monkeypatch)
    best = "best trial 0 (sampler): accuracy 0.9000 at 50.0% of the MACs, 50.0% of the params"
    assert found == [
        f"2 of 6 trials, 1 pruned, 120 trials/hour, 2 min left; {best}",
        r"trial 2 failed: out of memory\x1b[31m",
        f"3 of 6 trials, 1 pruned, 120 trials/hour, 2 min left; {best}",
        f"3 of 6 trials, 1 pruned, 120 trials/hour; {best}",
        "No process works on this study. Resume with: autoprune resume s",
        f"6 of 6 trials, 1 pruned; {best}",
        "The search has ended.",
    ]


def test_the_view_shows_workers_rungs_failures_and_the_race() -> None:
    shown = drawn(TROUBLED)
    for text in (
        "3 of 6 trials",
        "4711 on box",
        "alive",
        "2 (rung 1 of 2, 12 s)",
        "rungs: calibrate 2, 50 steps 1",
        r"trial 2 failed: out of memory\x1b[31m",
    ):
        assert text in shown
    shown = drawn(RACING)
    assert "race of 4 trials, stages end after 2, 8 epochs, 45 s left" in shown
    assert "0.9100" in shown
    assert "not visible from here, last trial 3 s ago" in drawn(UNSEEN)
    assert "If those are gone, run: autoprune resume s" in status_advice(UNSEEN)[0]
    assert "dead" in drawn(KILLED)
    assert "no complete trial yet" in drawn(
        dataclasses.replace(STATUS, summary=dataclasses.replace(SUMMARY, best=None))
    )
    assert RECORD.number == 0


def test_a_terminal_keeps_the_last_view(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

    file = Tty()
    console = PrintableConsole(file=file, width=100, force_terminal=True, _environ={"TERM": "xterm"})
    monkeypatch.setattr(_watch, "console", console)
    show_statuses([STATUS, ENDED])
    assert "The search has ended." in file.getvalue().rpartition("6 of 6 trials")[2]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished study."""
    folder = tmp_path_factory.mktemp("watch")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny_search(storage="sqlite:///own.db")
    return folder


def test_a_finished_search_is_shown_once(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    words = ("watch", "own", "--storage", "sqlite:///own.db")
    code, out, err = typed(capsys, *words)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "The search has ended."
    code, out, err = typed(capsys, *words, "--once", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["document"], found["done"], found["is_finished"]) == ("watch", 2, True)
    assert len(found["summary"]["trials"]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--json"], "--json: watch prints one document. Add --once."),
        (["--interval", "0"], "--interval: got 0, expected 0.5 to 3600 seconds."),
        (["--interval", "nan"], "--interval: got nan, expected 0.5 to 3600 seconds."),
        (["--storage", "sqlite:///none.db"], "no such file. Name the file that holds the study."),
    ],
)
def test_mistakes_are_one_line(
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = typed(capsys, "watch", "own", *words)
    assert (code, out) == (2, "")
    assert message in err


def test_ctrl_c_ends_it_without_a_traceback(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from autoprune import run

    def interrupted(*given: Any, **named: Any) -> Iterator[StudyStatus]:
        yield next(follow(*given, **named))
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    monkeypatch.chdir(workplace)
    monkeypatch.setattr(run, "follow", interrupted)
    code, out, err = typed(capsys, "watch", "own", "--storage", "sqlite:///own.db")
    assert (code, err) == (130, "")
    assert "2 of 2 trials" in out


def search_in(folder: Path) -> None:
    """Search in a folder until somebody ends this process."""
    os.chdir(folder)

    def pause(event: Event) -> None:
        if isinstance(event, TrialDone):
            time.sleep(0.2)

    tiny_search(trials=1000, storage="sqlite:///own.db", watch=pause)


@pytest.mark.slow
def test_a_search_in_another_process_is_followed_until_it_is_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path}/own.db"
    search = CONTEXT.Process(target=search_in, args=(tmp_path,))
    search.start()
    try:
        until(lambda: has_trials(url), search)
        statuses = follow("own", url, interval=0.5)
        first = next(statuses)
        assert [(worker.pid, worker.is_alive) for worker in first.workers] == [(search.pid, True)]
        assert first.per_hour is not None
        later = next(status for status in statuses if status.done > first.done + 1)
        assert not later.is_finished
    finally:
        search.kill()
        search.join()
    killed = next(statuses)
    assert (killed.at_work, killed.is_finished) == ((), False)
    assert killed.done >= later.done
    code, out, err = typed(capsys, "watch", "own", "--storage", url, "--once")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == (
        f"No process works on this study. Resume with: autoprune resume own --storage {url}"
    )


def has_trials(url: str) -> bool:
    with contextlib.suppress(StudyError):
        return open_study(url, "own").ended() > 1
    return False


def until(condition: Callable[[], bool], process: BaseProcess) -> None:
    """Wait until a condition holds, as long as a process lives."""
    while not condition():
        assert process.is_alive()
        time.sleep(0.1)
