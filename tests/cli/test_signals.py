"""Ctrl-C and SIGTERM at any moment of a command: an exit code, no traceback, and how to go on."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

import pytest
import typer

from autoprune import cli
from autoprune.cli import commands
from autoprune.cli.signals import Terminated, caught_signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_an_import_ends_the_command_with_its_code(
    number: signal.Signals, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Even where a half-done import turns the interrupt into an error of its own."""

    def importing() -> NoReturn:
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            raise ImportError("numpy failed to import") from None
        raise AssertionError

    monkeypatch.setattr(cli, "_run", importing)
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == code
    assert capsys.readouterr() == ("", "")
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_other_errors_stay_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> NoReturn:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "_run", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main()


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "Interrupted"), (signal.SIGTERM, 143, "Terminated")]
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
    with pytest.raises(typer.Exit) as left, caught_signals(), commands._resumable(commands._same_command):
        os.kill(os.getpid(), number)
    assert left.value.exit_code == code
    out = capsys.readouterr().out
    assert out.startswith(f"{word}; what is finished is kept.")
    assert "autoprune train run.toml --set " in out
    assert "score.rungs=[" in out


def test_termination_unwinds_like_an_interrupt() -> None:
    with caught_signals() as caught:
        with pytest.raises(Terminated):
            os.kill(os.getpid(), signal.SIGTERM)
        assert issubclass(Terminated, KeyboardInterrupt)
        assert caught == [143]
