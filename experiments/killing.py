"""Functions of the experiments with kill -9: commands in child processes, and values that must stay equal.

A fork of a process that has the modules loaded dies as any other does, and starts at once.

    started = start_forked(["search", "digits"], folder)
    kill(started)
    content(records(url, "digits")[0]) == content(records(whole, "digits")[0])
"""

from __future__ import annotations

import ctypes
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Container, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from autoprune.cli import main
from autoprune.errors import AutopruneError
from autoprune.study import TrialRecord, open_study

_PR_SET_CHILD_SUBREAPER = 36


def start_forked(words: Sequence[str], folder: Path) -> int:
    """Run a command line in a forked child of this process, as `forked` does."""

    def command() -> None:
        sys.argv = ["autoprune", *words]
        main()

    return forked(command, folder)


def forked(call: Callable[[], None], folder: Path) -> int:
    """Call a function in a forked child of this process, which has the modules loaded. Return its pid.

    The child works in the folder, and appends its output to `log` there. Like a command, it exits with
    code 2 after an error of autoprune.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        # Line by line, so that nothing is lost if the child is killed.
        sys.stdout = sys.stderr = open("log", "a", buffering=1)  # noqa: SIM115
        for stream in (1, 2):
            os.dup2(sys.stdout.fileno(), stream)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        call()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except AutopruneError as error:
        print(f"Error: {error}")
        code = 2
    finally:
        for each in (sys.stdout, sys.stderr):
            each.flush()
        os._exit(code)


def start_real(words: Sequence[str], folder: Path) -> int:
    """Run a command line in a new interpreter, as engines with workers need it. Return its pid."""
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "autoprune", *words],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    process.returncode = 0  # whoever waits for the pid does so himself
    return process.pid


def has_ended(pid: int) -> int | None:
    """Return the exit code of a child, minus the signal if one ended it, or None while it runs."""
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def is_running(pid: int) -> bool:
    """Return whether a child runs. Its exit code can still be read."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def end_of(pid: int) -> int:
    """Wait for the end of a child and return its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill(pid: int) -> None:
    """Send kill -9 to a child and wait for its end."""
    os.kill(pid, signal.SIGKILL)
    end_of(pid)


def adopt_orphans(adopt: bool = True) -> None:
    """Make this process the parent of whatever the children of its children leave behind, or no longer."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0)


def end_orphans(patience_s: float, others: Container[int] = ()) -> int:
    """Wait for the children of this process, orphans included. Kill those that take too long.

    Args:
        patience_s: how long they have.
        others: children that are left alone.

    Returns:
        How many those were.
    """
    deadline = time.monotonic() + patience_s
    while running := [pid for pid in children() if pid not in others and has_ended(pid) is None]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    for pid in running:
        kill(pid)
    return len(running)


def children() -> list[int]:
    """Return the pids of this process's children."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def lease_of(database: Path, number: int) -> str | None:
    """Return the lease of a running trial of an SQLite study, or None if no trial runs."""
    found = _ask(
        database,
        "SELECT value_json FROM trials JOIN trial_system_attributes USING (trial_id) "
        "WHERE number = ? AND state = 'RUNNING' AND key = 'autoprune:trial:lease' AND value_json != 'null'",
        (number,),
    )
    return None if found is None else str(found[0])


def count_trials(database: Path, *states: str) -> int:
    """Count the trials of an SQLite study in some of Optuna's states. Return 0 if there is no study yet."""
    marks = ", ".join("?" * len(states))
    found = _ask(database, f"SELECT COUNT(*) FROM trials WHERE state IN ({marks})", states)
    return 0 if found is None else int(found[0])


def _ask(database: Path, query: str, values: Sequence[object]) -> tuple[Any, ...] | None:
    """Return the first row that a query finds, or None if there is no row or no table yet."""
    if not database.exists():
        return None
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=10)) as file:
            row: tuple[Any, ...] | None = file.execute(query, values).fetchone()
    except sqlite3.OperationalError:
        return None  # its tables are being made
    return row


def records(url: str, study: str) -> list[TrialRecord]:
    """Return the trials of a study."""
    return open_study(url, study).records()


def content(record: TrialRecord) -> tuple[object, ...]:
    """Return the values that must be equal: all except seconds."""
    scores = tuple((score.index, score.score) for score in record.scores)
    proposed = (record.number, record.state, record.ratios, record.widths, record.seed)
    return (*proposed, scores, record.score, record.value)
