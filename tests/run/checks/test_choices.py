"""The tables whose rows a config names, and a warm start of the user's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from autoprune.config import load_config
from autoprune.config.settings import RunConfig
from autoprune.errors import ConfigError
from autoprune.run import Event, Stage, choices
from autoprune.run._checks.checks import check_names
from autoprune.run._checks.choices import FLOW_TABLES, TABLES
from autoprune.run._measuring import heuristics
from autoprune.run._resolving.spec import RunSpec
from autoprune.study import open_study
from tests.own_rows import install_example, tiny_search


def test_every_row_has_one_line_about_it() -> None:
    for key, rows in choices().items():
        for name, about in rows.items():
            assert about, f"{key}: {name}"
            assert "\n" not in about
            assert len(about) <= 100
            assert not about.endswith(".")


def keys_of(config: Any, prefix: str = "") -> Iterator[str]:
    """Yield all keys and sections."""
    for field in fields(config):
        yield f"{prefix}{field.name}"
        if is_dataclass(content := getattr(config, field.name)):
            yield from keys_of(content, f"{prefix}{field.name}.")


def test_rows_are_read_by_keys_that_exist() -> None:
    known = set(keys_of(RunConfig()))
    assert {*TABLES, *FLOW_TABLES} <= known
    assert {key for rows in TABLES.values() for row in rows.values() for key in row.reads} <= known


def test_defaults_name_rows() -> None:
    for key, rows in {**TABLES, **FLOW_TABLES}.items():
        named = attrgetter(key)(RunConfig())
        first = [named] if isinstance(named, str) else (named or ())[:1]
        assert set(first) <= set(rows), key


def test_a_warm_start_of_the_users_own_is_the_first_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{install_example(heuristics, tmp_path, monkeypatch)}:late"
    result = tiny_search(warm_starts=[name], trials=3)
    first, *others = result.summary.records
    assert first.origin == name
    assert all(record.origin == "sampler" for record in others)
    dense = open_study(result.storage, result.name).facts.dense_widths
    shares = [first.widths[name] / width for name, width in dense.items()]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > shares[-1]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise ValueError('no idea')", "ValueError: no idea"),
        ("return 'wide'", "ValueError: invalid literal for int() with base 10: 'wide'"),
        ("return [1, 2, 3, 4, 5]", "got [1, 2, 3, 4, 5], expected a level of each variable."),
        ("return [-1, 0, 0]", "got [-1, 0, 0], expected a level of each variable."),
    ],
)
def test_one_that_fails_is_left_out_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, reason: str
) -> None:
    (tmp_path / "broken_starts.py").write_text(f"def start(given): {source}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "broken_starts", raising=False)
    monkeypatch.chdir(tmp_path)
    events: list[Event] = []
    tiny_search(warm_starts=["broken_starts:start"], trials=3, watch=events.append)
    said = [event.text for event in events if isinstance(event, Stage)]
    assert [f"warm start broken_starts:start is left out: {reason}"] == [
        text for text in said if "left out" in text
    ]


def test_one_that_does_not_exist_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty_starts.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r'search\.warm_starts: module "empty_starts" has no "start"'):
        check_names(RunSpec.of(load_config("digits", ["search.warm_starts=['empty_starts:start']"])))
