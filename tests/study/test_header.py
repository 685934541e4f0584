"""Headers of studies, short and long: they read back, and no attribute outgrows what a server keeps."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest

from autoprune.errors import StudyError
from autoprune.study import create_study, open_study, study_state
from autoprune.study.header import HEADER, IN_PARTS, PART_CHARS, read_header, write_header
from tests.engines.toy import IDENTITY, new_study

LIMIT = 60 * 1024
"""Bytes; a column of type TEXT takes 65,535 on MySQL and MariaDB."""

CONFIG = {"search": {"trials": 3}}
SHORT: dict[str, Any] = {
    "config": CONFIG,
    "identity": IDENTITY,
    "chosen": {"divisor": 8},
    "objectives": ["score"],
}
LONG = {**SHORT, "chosen": {"table": [f"layer{n}.conv" for n in range(18_000)], "dense_latency_ms": 4.25}}


def attributes_in(path: Path) -> dict[str, str]:
    """Return the attributes of the one study in a file, as the storage keeps them."""
    with sqlite3.connect(path) as file:
        return dict(file.execute("SELECT key, value_json FROM study_user_attributes"))


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(study_name="toy", direction="maximize")


def test_a_header_of_300_kb_reads_back_and_no_attribute_is_too_long(tmp_path: Path) -> None:
    assert len(json.dumps(LONG)) > 300_000
    path = tmp_path / "study.db"
    create_study(f"sqlite:///{path}", "toy", config=CONFIG, identity=IDENTITY, chosen=LONG["chosen"])
    opened = open_study(f"sqlite:///{path}", "toy")
    assert (opened.config, opened.identity, opened.chosen) == (CONFIG, IDENTITY, LONG["chosen"])
    assert opened.dense_ms == 4.25
    assert study_state(f"sqlite:///{path}", "toy") == "ours"
    stored = attributes_in(path)
    assert len(stored) > 10
    assert max(len(value.encode()) for value in stored.values()) <= LIMIT


@pytest.mark.parametrize("letter", ['"', "\\", "\n", "é", "\U0001f40d"])
def test_letters_that_need_escapes_make_no_attribute_too_long(tmp_path: Path, letter: str) -> None:
    path = tmp_path / "study.db"
    chosen = {"notes": letter * 200_000}
    create_study(f"sqlite:///{path}", "toy", config=CONFIG, identity=IDENTITY, chosen=chosen)
    assert max(len(value.encode()) for value in attributes_in(path).values()) <= LIMIT
    assert open_study(f"sqlite:///{path}", "toy").chosen == chosen


def test_a_short_header_stays_whole_as_earlier_versions_know_it(study: optuna.Study) -> None:
    write_header(study, SHORT)
    assert study.user_attrs == {HEADER: {"format": 1, **SHORT}}
    assert read_header(study) == {"format": 1, **SHORT}


def test_a_long_header_that_an_earlier_version_kept_whole_is_read(study: optuna.Study) -> None:
    study.set_user_attr(HEADER, {"format": 1, **LONG})
    assert read_header(study) == {"format": 1, **LONG}


def test_a_changed_config_adds_the_last_part_only(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    created = create_study(url, "toy", config=CONFIG, identity=IDENTITY, chosen=LONG["chosen"])
    before = created.optuna.user_attrs
    changed = {"search": {"trials": 5}}
    created.store_config(changed)
    assert created.config == changed
    again = open_study(url, "toy")
    assert (again.config, again.chosen) == (changed, LONG["chosen"])
    after = again.optuna.user_attrs
    assert len(after) == len(before) + 1
    assert before[HEADER]["parts"][:-1] == after[HEADER]["parts"][:-1]


def test_a_kill_before_the_list_of_parts_leaves_the_header_as_it_was(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_header(study, LONG)
    store = study.set_user_attr

    def die_at_the_list(key: str, value: Any) -> None:
        if key == HEADER:
            raise KeyboardInterrupt
        store(key, value)

    monkeypatch.setattr(study, "set_user_attr", die_at_the_list)
    with pytest.raises(KeyboardInterrupt):
        write_header(study, {**LONG, "config": {"search": {"trials": 5}}})
    assert read_header(study) == {"format": 1, **LONG}


def test_a_study_killed_between_the_parts_of_its_header_is_made_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    made = optuna.create_study(storage=url, study_name="toy", direction="maximize")
    made.set_user_attr("autoprune:part:0123", "x" * PART_CHARS)
    assert study_state(url, "toy") == "none"
    with pytest.raises(StudyError, match="toy: not a study of this version"):
        open_study(url, "toy")
    assert new_study(url).identity == IDENTITY


@pytest.mark.parametrize("header", [None, "text", {}, {"format": IN_PARTS + 1, "parts": []}])
def test_what_is_no_header_of_this_version_is_none(study: optuna.Study, header: Any) -> None:
    study.set_user_attr(HEADER, header)
    assert read_header(study) is None
