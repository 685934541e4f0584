"""How a process ended, in words."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from autoprune.support.exits import describe_exit


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_names_the_signal_of_a_real_process(number: signal.Signals) -> None:
    code = f"import os; os.kill(os.getpid(), {int(number)})"
    ended = subprocess.run([sys.executable, "-c", code], check=False)
    assert describe_exit(ended.returncode) == f"killed by {number.name} (signal {int(number)})"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (0, "exit code 0"),
        (3, "exit code 3"),
        (-9, "killed by SIGKILL (signal 9), perhaps because memory ran out"),
        (-40, "killed by signal 40"),
        (None, "it does not end"),
    ],
)
def test_says_what_is_known(code: int | None, said: str) -> None:
    assert describe_exit(code) == said
