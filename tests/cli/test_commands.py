"""What the command line says next: the step that a study of this kind needs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from autoprune.cli.commands import _print_search
from autoprune.pipeline import SearchResult
from tests.report.test_tables import SUMMARY


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
    _print_search(SearchResult("s", "sqlite:///s.db", Path("runs"), summary))
    assert capsys.readouterr().out.splitlines()[-1] == command
