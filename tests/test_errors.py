"""Errors describe their causes in one line."""

from __future__ import annotations

import errno
from collections import OrderedDict

import pytest

from autoprune.errors import (
    a_kind,
    abridged,
    is_lost_gpu,
    is_out_of_memory,
    one_line,
    printable,
    reason_of,
    shown_url,
    shown_value,
    suggest,
    summary_of,
    unknown,
)


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
        (RuntimeError("x" * 1000), f"RuntimeError: {'x' * 483}..."),
    ],
)
def test_the_summary_is_type_and_text_in_one_line(error: Exception, summary: str) -> None:
    assert summary_of(error) == summary


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, 50 % µ ö \u2500", "plain text, 50 % µ ö \u2500"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("a\x00b\x1b[31mred\x07\r", r"a\x00b\x1b[31mred\x07\r"),
        ("\x9b31m \u202eabc \udcff", r"\x9b31m \u202eabc \udcff"),
    ],
)
def test_a_text_cannot_steer_the_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_message_is_one_line_with_beginning_and_end() -> None:
    assert one_line(" a\n\tb \x1b") == r"a b \x1b"
    line = one_line(f"run.toml: {'x' * 3_000_000}: rename it.")
    assert line.startswith("run.toml: xxx")
    assert line.endswith("x: rename it.")
    assert 1000 < len(line) < 2000


def test_a_shown_value_is_bounded_in_every_direction() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    for value in ("x" * 3_000_000, 10**5000, deep, list(range(10**6)), {"a": "b" * 10**6}):
        assert len(shown_value(value)) <= 200
    assert [shown_value(value) for value in ("a", 3, [1, "b"])] == ["'a'", "3", "[1, 'b']"]


def test_the_nearest_name_is_suggested() -> None:
    assert suggest("cosine" * 100_000, ["linear", "cosine"]) == ""
    assert suggest("cosin", ["linear", "cosine"]) == ' Did you mean "cosine"?'
    assert suggest("nothing like it", ["linear", "cosine"]) == ""
    assert suggest("LINEAR", ["linear", "cosine"]) == ' Did you mean "linear"?'
    assert suggest("macs", ["MACs", "params"]) == ' Did you mean "MACs"?'


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


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://user:secret@host:5432/db?sslmode=require", "user:***@host:5432/db?sslmode=require"),
        ("postgresql+psycopg://me@azure:secret@host/db", "me@azure:***@host/db"),
        ("mysql://user:sec:r?t/@host/db", "user:***@host/db"),
        ("mysql://user:se@cre@t@host/db", "user:***@host/db"),
        ("mysql://user:se@cr/e@t@host/db?a=b@c", "user:***@host/db?a=b@c"),
        ("sqlite+pysqlcipher://:secret@//my/a.db", ":***@//my/a.db"),
        ("postgresql://user:***@host/db", "user:***@host/db"),
        ("postgresql://host/db?user=me&password=secret&a=b", "host/db?user=me&password=***&a=b"),
        ("postgresql://host/db?sslPassword=secret", "host/db?sslPassword=***"),
        ("mysql://host/db?passwd=secret", "host/db?passwd=***"),
        ("mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3Dsecret", "/?odbc_connect=***"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    scheme = url.partition("//")[0]
    assert shown_url(url) == f"{scheme}//{shown}"
    assert shown_url(f"search.storage='{url}'") == f"search.storage='{scheme}//{shown}'"


def test_of_a_text_that_is_no_url_any_more_nothing_behind_the_scheme_is_shown() -> None:
    assert shown_url("postgresql://me:" + "secret" * 100_000) == "postgresql..."
    assert shown_url("x?password=" + "secret" * 100_000) == "x..."
    assert shown_url("://a:" * 1_000_000) == "..."


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////my:dir/a@b.db?timeout=5",
        "sqlite:///C:\\runs\\a@b.db",
        "journal:///my:dir/a@b.log",
        "postgresql://user@host:5432/db",
        "postgresql://[::1]:5432/db",
        "my runs/a.db",
        "search.trials=20",
    ],
)
def test_what_holds_no_password_is_shown_as_it_is(url: str) -> None:
    assert shown_url(url) == url


def test_memory_that_ran_out_is_known_by_the_texts_of_all_libraries() -> None:
    for text in (
        "CUDA out of memory. Tried to allocate",
        "CUBLAS_STATUS_ALLOC_FAILED when calling",
        "[enforce] not enough memory",
    ):
        assert is_out_of_memory(RuntimeError(text))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_a_gpu_is_lost_after_some_errors_of_cuda_only() -> None:
    assert is_lost_gpu("AcceleratorError: CUDA error: device-side assert triggered")
    assert is_lost_gpu("CUDA error: an illegal memory access was encountered")
    assert not is_lost_gpu("CUDA error: out of memory")
    assert not is_lost_gpu("my CUDA error: unknown words")


@pytest.mark.parametrize(
    ("value", "text"),
    [(1, "an int"), ([], "a list"), (OrderedDict(), "an OrderedDict"), (None, "a NoneType")],
)
def test_a_kind_has_its_article(value: object, text: str) -> None:
    assert a_kind(value) == text
