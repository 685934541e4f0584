"""Profiles: they fill keys from a config, and replace keys from the command line."""

from __future__ import annotations

import itertools
from dataclasses import fields

import pytest

from autoprune.config import find_profile, load_config, parse_settings, profiles
from autoprune.config.settings import RunConfig, ScoreSettings
from autoprune.errors import ConfigError


def test_a_profile_fills_the_keys_that_a_config_leaves_out() -> None:
    config = load_config({"search": {"profile": "thorough", "trials": 7}})
    assert config.search.trials == 7
    assert config.race.entrants == profiles()["thorough"].sections["race"]["entrants"]


def test_from_the_command_line_it_replaces_them_and_set_replaces_it() -> None:
    source = {"search": {"trials": 500}, "finetune": {"epochs": 90, "learning_rate": 0.3}}
    config = load_config(source, ["finetune.epochs=2"], "smoke")
    assert (config.search.trials, config.search.profile) == (2, "smoke")
    assert (config.finetune.epochs, config.finetune.learning_rate) == (2, 0.3)
    assert source == {"search": {"trials": 500}, "finetune": {"epochs": 90, "learning_rate": 0.3}}


def test_a_method_fills_only_what_the_profile_leaves_out() -> None:
    config = load_config({"search": {"profile": "balanced"}, "flow": {"method": "network-slimming"}})
    assert config.finetune.epochs == profiles()["balanced"].sections["finetune"]["epochs"]
    assert config.sparsify.penalty == "bn-l1"


def test_profiles_become_longer_and_balanced_is_the_defaults() -> None:
    assert [name for name, each in profiles().items() if each.is_trial_run] == ["smoke"]
    runs = [parse_settings(dict(each.sections)) for each in profiles().values()]
    for shorter, longer in itertools.pairwise(runs):
        assert shorter.search.trials < longer.search.trials
        assert shorter.finetune.epochs < longer.finetune.epochs
        assert shorter.race.entrants < longer.race.entrants
    assert parse_settings(dict(profiles()["balanced"].sections)) == RunConfig()
    assert {each.name for each in fields(ScoreSettings)} >= set(profiles()["thorough"].sections["score"])


def test_an_unknown_profile_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r'search\.profile: unknown profile "ballanced"\. Did you'):
        load_config({"search": {"profile": "ballanced"}})
    with pytest.raises(ConfigError, match=r"--profile: unknown profile"):
        find_profile("fast", "--profile")
