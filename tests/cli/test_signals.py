"""Ctrl-C and SIGTERM at any moment of a command: an exit code, no traceback, and how to go on."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

import pytest
import typer

from autoprune import cli
from autoprune.cli import _signals as signals
from autoprune.cli._resumable import resumable, same_command
from autoprune.cli._signals import Terminated, caught_signals
from autoprune.errors import StudyError

pytestmark = pytest.mark.usefixtures("hang_ups")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_in_an_import_ends_the_command_with_its_code(
    number: signal.Signals, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Even if a half-done import turns the interrupt into an error of its own."""

    def importing() -> NoReturn:
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            raise ImportError("numpy failed to import") from None
        raise AssertionError

    monkeypatch.setattr(cli, "_run", importing)
    handlers = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == code
    assert capsys.readouterr() == ("", "")
    assert [signal.getsignal(each) for each in SIGNALS] == handlers


def test_other_errors_stay_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> NoReturn:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "_run", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main()


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGINT, 130, "Interrupted"),
        (signal.SIGTERM, 143, "Terminated"),
        (signal.SIGHUP, 129, "Hung up"),
    ],
)
def test_the_command_to_go_on_with_is_named_as_it_was_typed(
    number: signal.Signals,
    code: int,
    word: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["/usr/bin/autoprune", "train", "run.toml", "--set", "score.rungs=['a b']"]
    )
    with pytest.raises(typer.Exit) as left, caught_signals(), resumable(same_command):
        os.kill(os.getpid(), number)
    assert left.value.exit_code == code
    out = capsys.readouterr().out
    assert out.startswith(f"{word}. Finished work is kept.")
    assert "autoprune train run.toml --set " in out
    assert "score.rungs=[" in out


def test_nothing_is_promised_before_a_study_exists(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/autoprune", "search", "run.toml"])
    with pytest.raises(typer.Exit), caught_signals(), resumable(lambda: None):
        os.kill(os.getpid(), signal.SIGTERM)
    printed = capsys.readouterr().out
    assert printed == "Terminated before the study was created. Run again: autoprune search run.toml\n"


def test_termination_unwinds_like_an_interrupt() -> None:
    with caught_signals() as caught:
        with pytest.raises(Terminated):
            os.kill(os.getpid(), signal.SIGTERM)
        assert issubclass(Terminated, KeyboardInterrupt)
        assert caught == [143]


def press(times: int, number: signal.Signals = signal.SIGINT) -> None:
    for _ in range(times):
        os.kill(os.getpid(), number)


def test_three_interrupts_keep_the_command_to_go_on_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second comes as trials are queued again, the third as the command is looked up."""
    monkeypatch.setattr(sys, "argv", ["autoprune", "resume", "digits"])
    unwound = []

    def interrupted_twice() -> None:
        try:
            press(1)
        finally:
            press(1)
            unwound.append(True)

    def go_on() -> str:
        press(1)
        return same_command()

    with pytest.raises(typer.Exit) as left, caught_signals() as caught, resumable(go_on):
        interrupted_twice()
    assert (left.value.exit_code, caught, unwound) == (130, [130], [True])
    assert capsys.readouterr().out.endswith("Resume with: autoprune resume digits\n")


def test_an_interrupt_that_was_swallowed_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "GRACE_S", 0.0)
    with caught_signals() as caught:
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                press(1)
        assert caught == [130, 130]


def test_the_command_is_named_though_the_storage_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def go_on() -> NoReturn:
        raise StudyError("locked by another process")

    monkeypatch.setattr(sys, "argv", ["autoprune", "search", "digits"])
    with pytest.raises(typer.Exit), caught_signals(), resumable(go_on):
        press(1)
    assert "Resume with: autoprune search digits" in capsys.readouterr().out


def test_a_hang_up_that_is_ignored_stays_ignored() -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with caught_signals() as caught:
            press(1, signal.SIGHUP)
        assert caught == []
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
