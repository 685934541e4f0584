"""Headers of studies, short and long: they read back, and every attribute fits a server's column."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest

from autoprune.errors import StudyError
from autoprune.study import create_study, open_study, study_state
from autoprune.study._header import (
    HEADER,
    Header,
    read_header,
    replace_config,
    write_header,
)
from autoprune.study._long_values import IN_PARTS, PART_CHARS
from tests.engines.toy import FACTS, IDENTITY, new_study

LIMIT = 60 * 1024
"""Bytes; a column of type TEXT takes 65,535 on MySQL and MariaDB."""

CONFIG = {"search": {"trials": 3}}
SHORT = Header(config=CONFIG, identity=IDENTITY, chosen=FACTS)
TABLE = {"operators": [f"layer{n}.conv" for n in range(18_000)]}
LONG_FACTS = FACTS.model_copy(update={"latency": TABLE, "dense_costs": {"latency_ms": 4.25}})
LONG = Header(config=CONFIG, identity=IDENTITY, chosen=LONG_FACTS)


def stored(header: Header, **version: int) -> dict[str, Any]:
    """Return what a study stores of a header; the facts of earlier versions name no version."""
    chosen = {key: value for key, value in header.chosen.to_json().items() if key != "version"}
    return {**header.model_dump(), "chosen": chosen | version}


def attributes_in(path: Path) -> dict[str, str]:
    """Return the attributes of the one study in a file, as the storage keeps them."""
    with sqlite3.connect(path) as file:
        return dict(file.execute("SELECT key, value_json FROM study_user_attributes"))


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(study_name="toy", direction="maximize")


def test_a_header_of_300_kb_reads_back_and_no_attribute_is_too_long(tmp_path: Path) -> None:
    assert len(json.dumps(TABLE)) > 300_000
    path = tmp_path / "study.db"
    create_study(f"sqlite:///{path}", "toy", config=CONFIG, identity=IDENTITY, facts=LONG_FACTS)
    opened = open_study(f"sqlite:///{path}", "toy")
    assert (opened.config, opened.identity, opened.facts) == (CONFIG, IDENTITY, LONG_FACTS)
    assert opened.dense_ms == 4.25
    assert study_state(f"sqlite:///{path}", "toy") == "ours"
    stored = attributes_in(path)
    assert len(stored) > 10
    assert max(len(value.encode()) for value in stored.values()) <= LIMIT


@pytest.mark.parametrize("letter", ['"', "\\", "\n", "é", "\U0001f40d"])
def test_letters_that_need_escapes_make_no_attribute_too_long(tmp_path: Path, letter: str) -> None:
    path = tmp_path / "study.db"
    facts = FACTS.model_copy(update={"stairs": {"notes": letter * 200_000}})
    create_study(f"sqlite:///{path}", "toy", config=CONFIG, identity=IDENTITY, facts=facts)
    assert max(len(value.encode()) for value in attributes_in(path).values()) <= LIMIT
    assert open_study(f"sqlite:///{path}", "toy").facts == facts


def test_a_short_header_stays_whole_as_earlier_versions_know_it(study: optuna.Study) -> None:
    write_header(study, SHORT)
    assert study.user_attrs == {HEADER: stored(SHORT, version=3)}
    assert read_header(study) == SHORT


def test_a_long_header_that_an_earlier_version_kept_whole_is_read(study: optuna.Study) -> None:
    study.set_user_attr(HEADER, stored(LONG))
    assert read_header(study) == LONG.model_copy(
        update={"chosen": LONG_FACTS.model_copy(update={"version": 1})}
    )


def test_a_changed_config_adds_the_last_part_only(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    created = create_study(url, "toy", config=CONFIG, identity=IDENTITY, facts=LONG_FACTS)
    before = created.optuna.user_attrs
    changed = {"search": {"trials": 5}}
    created.store_config(changed)
    assert created.config == changed
    again = open_study(url, "toy")
    assert (again.config, again.facts) == (changed, LONG_FACTS)
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
        replace_config(study, {"search": {"trials": 5}})
    assert read_header(study) == LONG


def test_a_study_killed_between_the_parts_of_its_header_is_made_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    made = optuna.create_study(storage=url, study_name="toy", direction="maximize")
    made.set_user_attr("autoprune:part:0123", "x" * PART_CHARS)
    assert study_state(url, "toy") == "none"
    with pytest.raises(StudyError, match="toy: not a study of this version"):
        open_study(url, "toy")
    assert new_study(url).identity == IDENTITY


@pytest.mark.parametrize("header", [None, "text", {}, {"format": IN_PARTS + 1, "parts": []}])
def test_a_header_not_of_this_version_reads_as_none(study: optuna.Study, header: Any) -> None:
    study.set_user_attr(HEADER, header)
    assert read_header(study) is None


CHOSEN: dict[str, Any] = {
    "setting": {"device": "cpu", "dtype": "float32", "channels_last": False, "threads": 1},
    "ranking": {"conv0": "eJw="},
    "dense_score": 0.9,
    "dense_macs": 1000,
    "budget_macs": 500,
    "dense_widths": {"conv0": 16},
    "relaxed": {"conv0": 2},
    "stairs": None,
    "rankings": {},
    "latency": None,
    "statistics": {"kl": {"conv0": 0.1}},
    "warm_starts": {"trials": [{"origin": "uniform", "levels": [3]}], "seconds": {"uniform": 1.0}},
    "environment": {"torch": "2.14.1"},
    "strengths": [],
    "version": 2,
}
WHOLE = {**stored(SHORT), "chosen": CHOSEN}

DAMAGES: dict[str, tuple[tuple[str, ...], Any]] = {
    "config is a list": (("config",), []),
    "no config": (("config",), ...),
    "identity of numbers": (("identity", "model"), 5),
    "no identity": (("identity",), ...),
    "chosen is a text": (("chosen",), "x"),
    "no chosen": (("chosen",), ...),
    "objectives is a text": (("objectives",), "score"),
    "no objective": (("objectives",), []),
    "more objectives than directions": (("objectives",), ["score", "macs"]),
    "version is a text": (("chosen", "version"), "2"),
    "version is a share": (("chosen", "version"), 1.5),
    "setting is a list": (("chosen", "setting"), [1]),
    "no setting": (("chosen", "setting"), ...),
    "no ranking": (("chosen", "ranking"), None),
    "no score": (("chosen", "dense_score"), ...),
    "ranking of numbers": (("chosen", "ranking", "conv0"), 3),
    "score is a text": (("chosen", "dense_score"), "0.9"),
    "score is NaN": (("chosen", "dense_score"), math.nan),
    "score is huge": (("chosen", "dense_score"), 10**400),
    "cost is negative": (("chosen", "dense_macs"), -1),
    "cost is NaN": (("chosen", "dense_macs"), math.nan),
    "limit is a text": (("chosen", "budget_macs"), "50%"),
    "limit is infinite": (("chosen", "budget_macs"), math.inf),
    "width is a share": (("chosen", "dense_widths", "conv0"), 0.5),
    "step is null": (("chosen", "relaxed", "conv0"), None),
    "stairs is a number": (("chosen", "stairs"), 1),
    "latency is a list": (("chosen", "latency"), []),
    "statistic is infinite": (("chosen", "statistics", "kl", "conv0"), -math.inf),
    "statistics of lists": (("chosen", "statistics", "kl"), [1.0]),
    "warm starts is a list": (("chosen", "warm_starts"), []),
    "warm starts without trials": (("chosen", "warm_starts", "trials"), ...),
    "warm start without levels": (("chosen", "warm_starts", "trials"), [{"origin": "uniform"}]),
    "level is a text": (("chosen", "warm_starts", "trials"), [{"origin": "a", "levels": ["1"]}]),
}


def with_damage(values: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """Return a copy with another value at a path, or without it for "..."."""
    key, *rest = path
    changed = with_damage(values[key], rest, value) if rest else value
    return {name: each for name, each in {**values, key: changed}.items() if each is not ...}


def test_a_whole_header_with_all_facts_is_read(study: optuna.Study) -> None:
    study.set_user_attr(HEADER, WHOLE)
    header = read_header(study)
    assert header is not None
    assert header.chosen.dense_costs == {"macs": 1000}
    assert header.chosen.limits == {"macs": 500}
    known = {key: value for key, value in header.chosen.to_json().items() if value is not None}
    assert known == {key: value for key, value in CHOSEN.items() if value is not None}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_header_is_one_line(study: optuna.Study, damage: str) -> None:
    path, value = DAMAGES[damage]
    study.set_user_attr(HEADER, with_damage(WHOLE, path, value))
    named = rf"^toy: its header is damaged: .*({path[-1]}|objectives).*\. Restore the storage from a copy"
    with pytest.raises(StudyError, match=named) as caught:
        read_header(study)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ("abc", "parts: got 'abc'"),
        ([1], r"parts\.0: got 1"),
        (["autoprune:part:0"], "its part autoprune:pa.* is missing"),
        (["autoprune:part:1"], "its parts are no JSON"),
        (["autoprune:part:2"], "its part .* is missing"),
        (["autoprune:part:3"], "its parts are no JSON"),
    ],
)
def test_damaged_parts_are_one_line(study: optuna.Study, parts: Any, message: str) -> None:
    study.set_user_attr("autoprune:part:1", '{"format": 1')
    study.set_user_attr("autoprune:part:2", 5)
    study.set_user_attr("autoprune:part:3", "[" * 100_000)
    study.set_user_attr(HEADER, {"format": IN_PARTS, "parts": parts})
    with pytest.raises(StudyError, match=f"toy: its header is damaged: {message}"):
        read_header(study)


@pytest.mark.parametrize("text", ["{", "", "[" * 100_000, '{"format": 1' + "0" * 10_000 + "}", "\x00"])
def test_an_attribute_that_is_no_json_is_one_line(tmp_path: Path, text: str) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    new_study(url)
    with closing(sqlite3.connect(tmp_path / "study.db")) as file:
        file.execute("UPDATE study_user_attributes SET value_json = ? WHERE key = ?", (text, HEADER))
        file.commit()
    for use in (open_study, study_state):
        with pytest.raises(
            StudyError, match=r"toy: its header is damaged: .*\. Restore the storage"
        ) as caught:
            use(url, "toy")
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        {},
        {"latency_ms": "4"},
        {"latency_ms": 4.0, "interval_ms": [1.0], "ratio": 0.5, "ratio_interval": [0.4, 0.6], "met": None},
    ],
)
def test_a_damaged_measurement_is_one_line(tmp_path: Path, values: Any) -> None:
    study = new_study(f"sqlite:///{tmp_path}/study.db")
    study.store_note("autoprune:measured:3", values)
    with pytest.raises(StudyError, match=r"toy: autoprune:measured:3 is damaged: .*\. Restore the storage"):
        study.records()


def test_facts_of_a_later_version_are_refused(study: optuna.Study) -> None:
    """Whatever else the later version changed: its facts are not checked against this version's schema."""
    study.set_user_attr(HEADER, {**WHOLE, "chosen": {"version": 4, "ranking": []}})
    message = "^toy: a later version of autoprune made this study .*version 4, .* up to 3.*. Update autoprune"
    with pytest.raises(StudyError, match=message):
        read_header(study)
