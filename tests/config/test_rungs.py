"""The words that name rungs: which of them recalibrate, and after which an export needs no finetune."""

from __future__ import annotations

import pytest

from autoprune.config.rungs import recalibrates, scores_the_export, uses_repair


@pytest.mark.parametrize(
    ("rungs", "expected"),
    [
        (["calibrate", "5 steps"], [True, False]),
        (["5 steps", "1 epoch"], [True, False]),
        (["repair", "5 steps"], [True, False]),
        (["repair", "calibrate", "5 steps"], [False, True, False]),
        (["supernet", "repair", "5 steps"], [True, True, False]),
        (["supernet", "repair", "calibrate"], [True, False, True]),
    ],
)
def test_every_cut_is_recalibrated_once(rungs: list[str], expected: list[bool]) -> None:
    assert [recalibrates(rungs, index) for index in range(len(rungs))] == expected


@pytest.mark.parametrize(
    ("rungs", "expected"),
    [
        (["calibrate"], False),
        (["supernet"], True),
        (["repair"], True),
        ([" repair ", "calibrate"], True),
        (["supernet", "repair"], True),
        (["repair", "5 steps"], False),
        (["5 steps"], False),
    ],
)
def test_an_export_needs_a_finetune_after_training_or_bare_cuts(rungs: list[str], expected: bool) -> None:
    assert scores_the_export(rungs) is expected
    assert uses_repair(rungs) is any("repair" in rung for rung in rungs)
