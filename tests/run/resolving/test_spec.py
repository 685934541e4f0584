"""Parsed settings: each is parsed when it is first read, once, and is never sent to a worker."""

from __future__ import annotations

import ast
import dataclasses
import pickle
from pathlib import Path

import pytest

import autoprune.run
from autoprune.config import load_config
from autoprune.config.settings import RunConfig
from autoprune.errors import ConfigError
from autoprune.run._resolving.rungs import parse_rungs
from autoprune.run._resolving.spec import RunSpec, named_setting

READERS = {"objects_of", "with_objects"}
"""The functions that look for objects in a config of the caller. Verbs take any source of a config."""


def test_a_setting_is_parsed_once_when_it_is_read() -> None:
    spec = RunSpec.of("digits")
    assert "rungs" not in vars(spec)
    assert spec.rungs is spec.rungs
    assert spec.rungs == parse_rungs(load_config("digits").score)
    assert RunSpec.of(spec) is spec


def test_a_wrong_setting_is_refused_as_it_is_read_and_no_sooner() -> None:
    spec = RunSpec.of({"score": {"rungs": ["calibrat"]}, "search": {"setting": "float8"}})
    with pytest.raises(ConfigError, match=r'score\.rungs: got "calibrat"'):
        _ = spec.rungs
    with pytest.raises(ConfigError, match=r'search\.setting: unknown name "float8"'):
        _ = spec.named_setting


def test_other_settings_are_parsed_afresh() -> None:
    spec = RunSpec.of({"search": {"setting": "float32 contiguous", "device": "cpu"}})
    assert spec.named_setting == named_setting("float32 contiguous", "cpu")
    assert spec.with_search(setting="auto").named_setting is None


def test_rungs_train_with_the_optimiser_of_the_finetune_at_a_share_of_its_learning_rate() -> None:
    spec = RunSpec.of({"finetune": {"optimizer": "adamw", "learning_rate": 0.001}})
    assert (spec.rung_schedule.optimizer, spec.rung_schedule.learning_rate) == ("adamw", 0.0004)
    assert RunSpec().rung_schedule.learning_rate == 0.02
    own = RunSpec.of({"score": {"optimizer": "adam", "learning_rate": 0.01}})
    assert (own.rung_schedule.optimizer, own.rung_schedule.learning_rate) == ("adam", 0.01)
    with pytest.raises(ConfigError, match=r'score\.optimizer: unknown name "adamm".*"adam"'):
        _ = RunSpec.of({"score": {"optimizer": "adamm"}}).rung_schedule
    with pytest.raises(ConfigError, match=r'finetune\.optimizer: unknown name "adm"'):
        _ = RunSpec.of({"finetune": {"optimizer": "adm"}}).rung_schedule


def test_a_study_names_the_recipe_of_its_rungs_since_its_finetune_may_change() -> None:
    spec = RunSpec.of({"finetune": {"optimizer": "adam", "learning_rate": 0.07}})
    named = spec.with_rung_recipe()
    assert (named.score.optimizer, named.score.learning_rate) == ("adam", 0.028)
    assert named.with_learning_rate(0.5).rung_schedule == spec.rung_schedule
    assert named.without_rung_recipe() == spec, "a new search follows its own finetune again"
    assert named.with_learning_rate(0.5).without_rung_recipe().rung_schedule == spec.rung_schedule
    untrained = RunSpec.of({"score": {"rungs": ["repair"]}})
    assert untrained.with_rung_recipe() == untrained, "nothing reads a recipe"


def test_what_was_parsed_stays_here_as_a_spec_travels() -> None:
    spec = RunSpec.of("digits")
    assert spec.loss_and_metric.metric is spec.loss_and_metric.metric
    travelled = pickle.loads(pickle.dumps(spec))
    assert travelled == spec
    assert vars(travelled).keys() == {section.name for section in dataclasses.fields(RunConfig)}


def test_functions_take_a_spec_or_a_run_which_are_parsed_already() -> None:
    found = set()
    for path in Path(autoprune.run.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                arguments = [*node.args.args, *node.args.kwonlyargs]
                if any(each.annotation and "RunConfig" in ast.unparse(each.annotation) for each in arguments):
                    found.add(node.name)
    assert found == READERS
