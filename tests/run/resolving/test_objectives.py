"""Objectives in a config, and the settings that several objectives exclude."""

from __future__ import annotations

import pytest

from autoprune.config import load_config
from autoprune.config.settings import SearchSettings
from autoprune.errors import ConfigError
from autoprune.run import settle
from autoprune.run._checks.checks import check_names
from autoprune.run._resolving.objectives import objective_costs
from autoprune.run._resolving.spec import RunSpec
from autoprune.samplers import SAMPLERS


@pytest.mark.parametrize(
    ("objectives", "costs"),
    [
        ((), ()),
        (("flops",), ("macs",)),
        (("latency", "macs"), ("latency_ms", "macs")),
        (("params", "size", "peak_memory"), ("params", "size_bytes", "peak_memory_bytes")),
    ],
)
def test_names_stand_for_costs(objectives: tuple[str, ...], costs: tuple[str, ...]) -> None:
    assert objective_costs(SearchSettings(objectives=("score", *objectives))) == costs


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        ((), r'got \[\], expected "score" first'),
        (("macs",), r"got \['macs'\], expected \"score\" first, then costs"),
        (("macs", "score"), r'expected "score" first'),
        (("score", "latancy"), r'unknown name "latancy"\. Did you mean "latency"\?'),
        (("score", "watts"), r"Known: flops, macs, params, latency, size, peak_memory"),
        (("score", "score"), r'unknown name "score"'),
        (("score", "flops", "macs"), r'"flops" and "macs" are the same'),
    ],
)
def test_wrong_objectives_get_one_clear_line(objectives: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        objective_costs(SearchSettings(objectives=objectives))
    assert str(caught.value).startswith("search.objectives: ")


def check(*overrides: str) -> None:
    check_names(RunSpec.of(load_config("digits", ['search.objectives=["score", "macs"]', *overrides])))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_of_one_objective_are_refused_before_anything_is_loaded(sampler: str) -> None:
    if SAMPLERS[sampler].several_objectives:
        check(f"search.sampler={sampler}")
        return
    with pytest.raises(
        ConfigError, match=rf'search\.sampler: "{sampler}" takes one .* one of "random", "tpe"'
    ):
        check(f"search.sampler={sampler}")


@pytest.mark.parametrize("pruner", ["percentile", "halving", "asha", "hyperband"])
def test_pruners_by_name_are_refused_and_the_default_is_not_used(pruner: str) -> None:
    check("search.pruner=none")
    check()
    with pytest.raises(ConfigError, match=rf'search\.pruner: "{pruner}" judges by the score alone'):
        check(f"search.pruner={pruner}")


def test_only_a_search_with_several_objectives_goes_without_a_budget() -> None:
    values = {"model": {"name": "digits_resnet"}, "data": {"name": "digits"}}
    several = {**values, "search": {"objectives": ["score", "params", "flops"]}}
    check_names(RunSpec.of(load_config(several)))
    with pytest.raises(ConfigError, match="budget: no limit is given"):
        check_names(RunSpec.of(load_config(values)))
    with pytest.raises(ConfigError, match=r"budget\.macs: got 'half'"):
        check_names(RunSpec.of(load_config({**several, "budget": {"macs": "half"}})))
    assert settle(load_config(several)).search.study == "digits_resnet-digits-params-flops"
