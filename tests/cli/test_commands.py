"""What the command line says next: the step that a study of this kind needs."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path

import pytest

from autoprune.cli.commands import _print_search, _same_command
from autoprune.pipeline import SearchResult
from autoprune.report import StudySummary
from autoprune.report.tables import next_command
from tests.report.test_tables import RECORD, SUMMARY


def last_line(summary: StudySummary, capsys: pytest.CaptureFixture[str], storage: str) -> str:
    step = f"Next: {next_command(summary, storage)}"
    _print_search(SearchResult("s", storage, Path("runs"), summary, step))
    return capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("rungs", "command"),
    [
        (("calibrate", "50 steps"), "Next: autoprune finetune s --storage sqlite:///s.db"),
        (
            ("supernet",),
            "Next: autoprune export s --storage sqlite:///s.db --format onnx (or finetune it before)",
        ),
    ],
)
def test_a_search_ends_with_the_next_step(
    rungs: tuple[str, ...], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = dataclasses.replace(SUMMARY, rungs=rungs)
    assert last_line(summary, capsys, "sqlite:///s.db") == command


@pytest.mark.parametrize(
    ("objectives", "rungs", "option"),
    [
        (("score", "macs"), ("calibrate",), "--flops"),
        (("score", "latency_ms", "macs"), ("calibrate",), "--latency"),
        (("score", "peak_memory_bytes"), ("supernet",), "--peak-memory"),
    ],
)
def test_a_front_is_picked_from_by_a_limit_that_half_of_it_keeps(
    objectives: tuple[str, ...],
    rungs: tuple[str, ...],
    option: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    costs = dict.fromkeys(objectives[1:], 0.0)
    front = tuple(
        dataclasses.replace(RECORD, number=number, costs={cost: 100 * share for cost in costs})
        for number, share in enumerate((0.2, 0.414, 0.8))
    )
    summary = dataclasses.replace(
        SUMMARY, objectives=objectives, rungs=rungs, front=front, dense_costs=dict.fromkeys(costs, 100.0)
    )
    line = last_line(summary, capsys, "sqlite:////my runs/s [1].db")
    words = shlex.split(line.removeprefix("Next: "))
    assert words == ["autoprune", "best", "s", "--storage", "sqlite:////my runs/s [1].db", option, "42%"]


def test_the_next_step_and_the_same_command_hide_the_password(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "postgresql://user:secret@host/db"
    shown = "'postgresql://user:***@host/db'"
    assert last_line(SUMMARY, capsys, url) == f"Next: autoprune finetune s --storage {shown}"
    assert "secret" not in repr(SearchResult("s", url, Path("runs"), SUMMARY))
    for words, hidden in (
        (["resume", "s", "--storage", url], f"resume s --storage {shown}"),
        (
            ["search", "digits", "--set", f"search.storage={url}"],
            "--set 'search.storage=postgresql://user:***@",
        ),
    ):
        monkeypatch.setattr(sys, "argv", ["autoprune", *words])
        assert hidden in _same_command()
        assert "secret" not in _same_command()
