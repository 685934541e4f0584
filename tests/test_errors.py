"""What errors say of other errors, in one line."""

from __future__ import annotations

import errno

import pytest

from autoprune.errors import abridged, reason_of, suggest, summary_of, unknown


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("\n  too wide  \nsee the manual"), "too wide"),
        (ValueError(), "ValueError"),
        (OSError(errno.ENOSPC, "No space left on device", "/data/net.pt"), "No space left on device"),
        (OSError("disk on fire"), "disk on fire"),
    ],
)
def test_the_reason_is_the_first_line_without_the_path(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason


@pytest.mark.parametrize(
    ("error", "summary"),
    [
        (
            ValueError("size mismatch:\n\tgot 3,\n\texpected 4"),
            "ValueError: size mismatch: got 3, expected 4",
        ),
        (KeyError("auc"), "KeyError: 'auc'"),
        (AssertionError(), "AssertionError"),
        (RuntimeError("x" * 1000), f"RuntimeError: {'x' * 486}"),
    ],
)
def test_the_summary_is_type_and_text_in_one_line(error: Exception, summary: str) -> None:
    assert summary_of(error) == summary


def test_the_nearest_name_is_suggested() -> None:
    assert suggest("cosin", ["linear", "cosine"]) == ' Did you mean "cosine"?'
    assert suggest("nothing like it", ["linear", "cosine"]) == ""


def test_an_unknown_name_gets_the_nearest_or_else_all() -> None:
    known = ("linear", "cosine")
    assert (
        unknown("train.schedule", "cosin", known)
        == 'train.schedule: unknown name "cosin". Did you mean "cosine"?'
    )
    assert (
        unknown("[train]", "xyz", iter(known), kind="key")
        == '[train]: unknown key "xyz". Known: linear, cosine.'
    )


def test_long_values_are_abridged() -> None:
    assert [abridged(value) for value in (0.1, None, "01234567" * 5)] == ["0.1", "missing", "012345670123..."]
