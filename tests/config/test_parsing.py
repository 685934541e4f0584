"""Checking settings: what a mapping of sections and a `--set` may hold."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from autoprune.config import load_config, parse_override, parse_settings
from autoprune.config.settings import RunConfig
from autoprune.errors import ConfigError


def test_a_config_survives_the_way_through_json() -> None:
    config = load_config("digits", ["search.trials=7", "budget.params=40%", "model.frozen=['fc*']"])
    stored = json.loads(json.dumps(dataclasses.asdict(config)))
    assert parse_settings(stored) == config


def test_the_design_keys_exist() -> None:
    sections = {spec.name for spec in dataclasses.fields(RunConfig)}
    assert sections >= {"model", "data", "task", "budget", "search", "score", "finetune"}
    assert parse_settings({"budget": {"latency": "4 ms"}}).budget.latency == "4 ms"


def test_a_word_for_the_score_stands_for_its_rungs() -> None:
    assert parse_settings({"score": "50 steps"}).score.rungs == ("50 steps",)
    assert parse_settings({"score": ["calibrate", "50 steps"]}).score.rungs == ("calibrate", "50 steps")


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("search.trials=20", ("search.trials", 20)),
        (" search.trials = 20 ", ("search.trials", 20)),
        ("search.sampler=tpe", ("search.sampler", "tpe")),
        ("search.storage=sqlite:///a=b.db", ("search.storage", "sqlite:///a=b.db")),
        ("score.rungs=['calibrate', '25 steps']", ("score.rungs", ["calibrate", "25 steps"])),
        ("budget.flops=50%", ("budget.flops", "50%")),
        ("score=supernet", ("score.rungs", ["supernet"])),
        ("score='supernet'", ("score.rungs", ["supernet"])),
        ("score=50 steps", ("score.rungs", ["50 steps"])),
        ("search.ray.address=auto", ("search.ray.address", "auto")),
        ("search.address=auto", ("search.ray.address", "auto")),
        ("evolution.population=9", ("search.evolution.population", 9)),
        ("score=['calibrate', '25 steps']", ("score.rungs", ["calibrate", "25 steps"])),
        ("budget.flops=none", ("budget.flops", None)),
        ("search.space='none'", ("search.space", None)),
        ("finetune.teacher=none", ("finetune.teacher", "none")),
        ("search.pruner=none", ("search.pruner", "none")),
        ("budget.flop=none", ("budget.flop", "none")),
    ],
)
def test_an_override_is_a_section_a_key_and_a_toml_value(override: str, parts: tuple[str, Any]) -> None:
    assert parse_override(override) == parts


def test_keys_of_earlier_versions_are_still_read() -> None:
    """In config files, and in studies that stored them; if both are there, the new key counts."""
    old = {
        "evolution": {"population": 9, "crossover": 0.1},
        "supernet": {"epochs": 3},
        "search": {"address": "auto", "gpus_per_trial": 0.5, "evolution": {"crossover": 0.2}},
        "score": "supernet",
    }
    config = parse_settings(old)
    assert (config.search.evolution.population, config.search.evolution.crossover) == (9, 0.2)
    assert (config.search.ray.address, config.search.ray.gpus_per_trial) == ("auto", 0.5)
    assert (config.score.rungs, config.score.supernet.epochs) == (("supernet",), 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"search": {"ray": {"adress": "auto"}}},
            r'\[search\.ray\]: unknown key "adress"\. Did you mean "address"',
        ),
        ({"search": {"ray": 3}}, r"search\.ray: got 3, expected a section \[search\.ray\] of keys"),
        ({"evolution": 3}, r"search\.evolution: got 3, expected a section"),
        ({"search": {"ray": {"gpus_per_trial": -1}}}, r"search\.ray\.gpus_per_trial: got -1, expected"),
    ],
)
def test_mistakes_in_a_section_of_a_section_are_named_with_their_path(values: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^config: {message}"):
        parse_settings(values)


def test_the_first_mistake_is_shown_and_the_rest_are_counted() -> None:
    with pytest.raises(ConfigError, match=r"^study 7: data\.augment: got 3, .*\(2 more like this\)$"):
        parse_settings({"search": {"trials": 0, "seed": -1}, "data": {"augment": 3}}, where="study 7")
