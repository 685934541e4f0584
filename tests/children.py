"""Functions and commands in processes of their own, which signals end at a known moment.

The processes are forked from a server that has the package loaded, so they start at once. Autograd has never
run there: a fork of a process in which it has cannot train.

    code, printed = run_child(send_at, "EpochDone(epoch=1,", signal.SIGKILL, "train", "digits", cwd=folder)
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from autoprune.cli import main
from autoprune.config.rungs import RungScore
from autoprune.engines import Job, TrialRunner
from autoprune.progress import Screen
from autoprune.support.events import Event

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["autoprune.cli.commands", "autoprune.run", "torch.export._trace"])


def run_child(function: Callable[..., object], *arguments: object, cwd: Path) -> tuple[int | None, str]:
    """Call a function in a process of its own, in a folder.

    Returns:
        The exit code, or minus the number of the signal that ended it, and all that was printed.
    """
    with tempfile.NamedTemporaryFile() as printed:
        given = (function, arguments, str(cwd), printed.name, dict(os.environ))
        process = CONTEXT.Process(target=_call, args=given)
        process.start()
        process.join()
        return process.exitcode, printed.read().decode()


def _call(
    function: Callable[..., object],
    arguments: tuple[object, ...],
    cwd: str,
    printed: str,
    environment: dict[str, str],
) -> None:
    file = os.open(printed, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    function(*arguments)


def send_at(moment: str, number: signal.Signals, *arguments: str) -> None:
    """Run a command of autoprune in this process, and send a signal to it at a moment.

    Args:
        moment: part of the text of an event that has just been shown, or "rung of trial 2".
        number: the signal.
        arguments: of the command.
    """
    show, report = Screen.__call__, TrialRunner.report

    def meet(text: str) -> None:
        if moment in text:
            os.kill(os.getpid(), number)

    def shown(self: Screen, event: Event) -> None:
        show(self, event)
        meet(str(event))

    def reported(self: TrialRunner, job: Job, rung: RungScore) -> bool:
        goes_on = report(self, job, rung)
        meet(f"rung of trial {job.number}")
        return goes_on

    Screen.__call__ = shown  # type: ignore[method-assign]  # the process ends with the command
    TrialRunner.report = reported  # type: ignore[method-assign]  # as above
    sys.argv = ["autoprune", *arguments]
    main()
