"""The output of `inspect`, before any training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import autoprune
from autoprune.config import load_config
from autoprune.errors import ConfigError
from autoprune.latency import LatencySetting
from autoprune.run import CostRange, block_table, inspect, inspection_notes
from autoprune.run._resolving.dense import load_dense
from autoprune.run._resolving.problem import trace_dense
from autoprune.run._resolving.spec import RunSpec
from autoprune.zoo import make_model
from tests.run.resolving.test_latency import small_table


def test_an_inspection_of_the_default() -> None:
    inspection = inspect(load_config("digits"))
    names = [row.name for row in inspection.groups]
    assert names[0] == "conv1"
    assert [row.name for row in inspection.groups if row.frozen] == ["fc"]
    assert inspection.variables == len(names) - 1
    assert inspection.budget is not None
    assert inspection.budget.limits["macs"] == int(inspection.dense_cost.macs) // 4
    assert inspection.in_window
    assert inspection.problem == ""
    assert np.all(inspection.smallest.macs < np.asarray(inspection.budget.limits["macs"]))
    assert inspection.largest == inspection.dense_cost
    assert all(row.params <= inspection.dense_cost.params for row in inspection.groups)
    assert inspection.memory_bytes > 4 * int(inspection.dense_cost.params)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.sampler=TPE", r'search\.sampler: unknown name "TPE"\. Did you mean "tpe"\?'),
        ("search.pruner=medain", r'search\.pruner: unknown name "medain"\. Did you mean "median"\?'),
        ("score.rungs=['10 stesp']", "score.rungs"),
    ],
)
def test_names_that_a_search_would_refuse_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        inspect(load_config("digits", [override]))


def test_a_budget_out_of_reach_is_explained_and_the_rest_is_shown() -> None:
    inspection = inspect(load_config("digits", ["budget.flops=0.1%"]))
    assert f"{inspection.smallest.flops:,} FLOPs is the smallest reachable" in inspection.problem
    assert inspection.budget is not None
    assert not inspection.in_window


@pytest.mark.parametrize(("trials", "few"), [(40, True), (13, False)])
def test_few_distinct_plans_are_counted_before_any_training(trials: int, few: bool) -> None:
    overrides = ["budget.flops=50%", "search.divisor=8", f"search.trials={trials}"]
    inspection = inspect(load_config("digits", overrides))
    assert inspection.plans == 13
    said = "13 distinct plans meet the budget, and search.trials is 40: the search ends"
    assert inspection.few_plans.startswith(said) == few
    assert any(note.startswith(f"Only {said}") for note in inspection_notes(inspection)) == few
    assert ("13 distinct plans meet the budget." in inspection_notes(inspection)) != few


def test_a_larger_batch_and_more_workers_need_more_memory() -> None:
    small = inspect(load_config("digits", ["data.batch_size=32"]))
    large = inspect(load_config("digits", ["data.batch_size=64"]))
    several = inspect(
        load_config("digits", ["data.batch_size=64", "search.engine=processes", "search.workers=3"])
    )
    assert small.memory_bytes < large.memory_bytes
    assert several.memory_bytes == 3 * large.memory_bytes


def test_moments_take_the_square_of_each_layers_inputs() -> None:
    """Of the digits' net: convolutions of 3 x 3 and 1 x 1 pixels, and a linear layer.

    Moments are float64, and the factors of a ranking float32.
    """
    none, repair = "search.warm_starts=[]", "score=repair"
    without = inspect(load_config("digits", [none, "score=calibrate"]))
    repaired = inspect(load_config("digits", [none, repair]))
    spread = ("search.engine=processes", "search.workers=3")
    several = inspect(load_config("digits", [none, repair, *spread]))
    model = make_model("digits_resnet", 10, 1)
    inputs = [weight[0].numel() for weight in model.parameters() if weight.ndim > 1]
    assert repaired.memory_bytes - without.memory_bytes == sum((8 + 4) * size**2 for size in inputs)
    assert several.memory_bytes == 3 * repaired.memory_bytes


class Drawn(Dataset[tuple[Tensor, int]]):
    """Images that are made as they are read: many of them take no memory."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.zeros(1, 8, 8), index % 10


def few() -> tuple[Any, Any]:
    return DataLoader(Drawn(1_000), batch_size=32), DataLoader(Drawn(32), batch_size=32)


def many() -> tuple[Any, Any]:
    return DataLoader(Drawn(100_000_000), batch_size=32), DataLoader(Drawn(32), batch_size=32)


def in_large_batches() -> tuple[Any, Any]:
    return DataLoader(Drawn(1_000), batch_size=128), DataLoader(Drawn(32), batch_size=32)


def memory_of(loaders: Callable[[], tuple[Any, Any]], *overrides: str) -> int:
    values = {"model": {"name": "digits_resnet"}, "budget": {"flops": "50%"}}
    config = {**values, "data": {"loaders": f"{__name__}:{loaders.__name__}"}}
    return inspect(load_config(config, overrides)).memory_bytes


def test_images_that_stream_take_no_memory_and_a_step_takes_their_loaders_batch() -> None:
    assert memory_of(many) == memory_of(few) == memory_of(few, "data.batch_size=64")
    in_memory = inspect(load_config("digits", ["data.batch_size=32"])).memory_bytes
    assert in_memory - memory_of(few) == 1797 * 64  # one byte for each pixel of the digits
    assert memory_of(in_large_batches) > memory_of(few)


def test_the_divisor_is_relaxed_for_small_groups() -> None:
    inspection = inspect(load_config("digits", ["search.divisor=16"]))
    steps = {row.name: row.relaxed_step for row in inspection.groups}
    assert steps["conv1"] is not None
    assert steps["layer2.0.conv1"] is None


def test_several_objectives_need_no_budget() -> None:
    values = {"model": {"name": "digits_resnet"}, "data": {"name": "digits"}}
    inspection = inspect(load_config({**values, "search": {"objectives": ["score", "size", "flops"]}}))
    assert inspection.budget is not None
    assert inspection.budget.limits.keys() == {"macs", "size_bytes"}
    assert inspection.budget.limits["macs"] == inspection.dense_cost.macs
    assert inspection.in_window
    assert inspection.variables == 6
    assert inspection.costs.keys() == {"size_bytes", "macs"}
    macs = inspection.costs["macs"]
    assert (macs.smallest, macs.dense) == (inspection.smallest.macs, inspection.dense_cost.macs)
    size = inspection.costs["size_bytes"]
    assert 0 < size.smallest < size.largest == size.dense


def test_an_inspection_shows_the_reachable_latency(tmp_path: Path) -> None:
    """From a table in the output folder that is twice as fast for every candidate."""
    probe = "tests.run.resolving.test_latency:by_parameters"
    values = {"model": {"name": "digits_resnet"}, "data": {"name": "digits"}, "budget": {"latency": "60%"}}
    config = load_config(
        {**values, "latency": {"probe": probe}, "search": {"divisor": 4}, "output": {"folder": str(tmp_path)}}
    )
    spec = RunSpec.of(config)
    prunable = trace_dense(load_dense(spec, trained=False), spec)
    table = dataclasses.replace(small_table(prunable.fingerprint), setting=LatencySetting(probe))
    table.save(tmp_path / "latency-tests.run.resolving.test_latency-by_parameters-1.json")
    assert inspect(config).costs == {"latency_ms": CostRange(2.0, 2.0, 4.0)}


def dropping(classes: int, in_channels: int) -> nn.Module:
    """Make a net whose training draws random numbers."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 16, 3),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, classes),
    )


def test_the_global_random_state_stays() -> None:
    values = {"model": {"factory": f"{__name__}:dropping"}, "data": {"name": "digits"}}
    before = torch.get_rng_state()
    inspect(load_config({**values, "budget": {"flops": "50%"}}))
    assert torch.equal(torch.get_rng_state(), before)


def test_why_nothing_can_be_searched_is_shown_with_the_groups() -> None:
    config = load_config("digits", ["model.frozen=['conv1', 'layer1', 'layer2']"])
    inspection = inspect(config)
    assert "no group is left to search" in inspection.problem
    assert all(row.frozen for row in inspection.groups)
    assert (inspection.variables, inspection.budget, inspection.costs) == (0, None, {})
    assert inspection.smallest == inspection.largest == inspection.dense_cost


class FailsInTraining(nn.Module):
    """As a net whose auxiliary head is too deep for small images."""

    def __init__(self, classes: int, in_channels: int) -> None:
        super().__init__()
        self.net = dropping(classes, in_channels)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training:
            raise RuntimeError("Kernel size can't be greater than actual input size")
        logits: torch.Tensor = self.net(images)
        return logits


def test_a_model_that_fails_in_training_is_one_line() -> None:
    values = {"model": {"factory": f"{__name__}:FailsInTraining"}, "data": {"name": "digits"}}
    with pytest.raises(ConfigError, match=r"model: its forward pass failed in training mode .*Kernel size"):
        inspect(load_config({**values, "budget": {"flops": "50%"}}))


@pytest.mark.parametrize("depth", [False, True])
def test_droppable_blocks_are_listed_with_what_they_save(depth: bool) -> None:
    inspection = inspect(load_config("digits", [f"search.depth={str(depth).lower()}"]))
    plain = inspect(load_config("digits"))
    assert [row.name for row in inspection.blocks] == [
        "layer1.0:branch",
        "layer1.1:branch",
        "layer2.1:branch",
    ]
    prunable = autoprune.trace(make_model("digits_resnet", 10, 1), torch.zeros(1, 1, 8, 8))
    for row in inspection.blocks:
        assert row.groups == (f"{row.name.removesuffix(':branch')}.conv1",)
        left = prunable.cost({row.name: 0})
        assert prunable.cost().macs - left.macs == row.macs
        assert prunable.cost().params - left.params == row.params
    assert inspection.variables == plain.variables
    assert ("Blocks may be dropped too." in inspection_notes(inspection)) == depth
    assert (inspection.smallest.macs < plain.smallest.macs) == depth
    assert block_table(inspection).row_count == 3
