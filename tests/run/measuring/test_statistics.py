"""Statistics of each variable: which cuts are measured, and that a group with dead channels stands out."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import autoprune
from autoprune.config import load_config
from autoprune.data import VisionData, endless, load
from autoprune.errors import PlanError
from autoprune.execution import Setting
from autoprune.run import Counted, Dense, Event, Stage, Watcher, resume
from autoprune.run._measuring.expected_time import Pace
from autoprune.run._measuring.heuristics import WARM_STARTS, Proposer
from autoprune.run._measuring.statistics import (
    MeasurementContext,
    lower_share,
    measure_sensitivity,
    measure_statistics,
)
from autoprune.run._measuring.warm_starts import choose_warm_starts
from autoprune.run._resolving.ranking import rank_channels
from autoprune.run._resolving.resolve import trace_run
from autoprune.run._resolving.spec import RunSpec
from autoprune.study import open_study
from autoprune.training import Schedule, Task, Trainer
from autoprune.zoo import make_model

DEAD = "layer2.0.conv1"
SETTING = Setting("cpu")


@pytest.fixture(scope="module")
def data() -> VisionData:
    return load("digits", batch_size=64, val_fraction=0.2)


@pytest.fixture(scope="module")
def model(data: VisionData) -> nn.Module:
    """A net trained for a few seconds, with three quarters of one group's channels dead from the start."""
    torch.manual_seed(0)
    made = make_model("digits_resnet", 10, 1)
    kept = torch.zeros(32)
    kept[:8] = 1

    def kill() -> None:
        with torch.no_grad():
            made.get_submodule(DEAD).weight.mul_(kept[:, None, None, None])  # type: ignore[operator]  # conv
            made.get_submodule(DEAD.replace("conv", "bn")).bias.mul_(kept)  # type: ignore[operator]  # norm

    kill()
    trainer = Trainer(made, Schedule(steps=60, learning_rate=0.1), SETTING, Task(), total_steps=60)
    trainer.run(endless(data.train, 0), 60)
    kill()
    return made.eval()


def make_context(model: nn.Module, data: VisionData, *overrides: str) -> MeasurementContext:
    settings = {"budget": {"flops": "40%"}, "search": {"sensitivity_evaluations": 25}}
    spec = RunSpec.of(load_config(settings, overrides))
    run = trace_run(Dense(model, data, Task(), "cpu"), spec, SETTING)
    return MeasurementContext(run, rank_channels(run, spec.search.criteria[0]))


def changed(context: MeasurementContext, watch: Watcher, **search: Any) -> MeasurementContext:
    """Return the context with another watcher, and other settings in [search]."""
    run = dataclasses.replace(context.run, spec=context.run.spec.with_search(**search), watch=watch)
    return dataclasses.replace(context, run=run)


def paced(model: nn.Module, data: VisionData, told: list[Event], image_s: float) -> MeasurementContext:
    """Return a context whose search is expected to take 1,000 s, and a forward pass of an image `image_s`."""
    overrides = ["search.trials=10", "score.rungs=['100 steps']", "score.calibration_batches=1"]
    context = make_context(model, data, *overrides, "search.sensitivity_images=200")
    pace = Pace(step_s=1.0 - 4.15 * image_s, image_s=image_s)  # 128 images recalibrate, 287 are evaluated
    assert pace.search_s(context.run.spec, data) == pytest.approx(1000, rel=0.01)
    return dataclasses.replace(changed(context, told.append), pace=pace)


@pytest.mark.parametrize(
    ("image_s", "evaluations", "images"),
    [(0.001, 25, 200), (0.0095, 25, 100), (0.013, 21, 100), (0.04, 7, 100)],
)
def test_the_sensitivity_takes_a_tenth_of_the_expected_time_at_most(
    model: nn.Module, data: VisionData, image_s: float, evaluations: int, images: int
) -> None:
    """Each evaluation sees 256 training images too; first images become fewer, then evaluations."""
    told: list[Event] = []
    measured = measure_sensitivity(paced(model, data, told, image_s))
    assert measured.evaluations <= evaluations
    assert f"{measured.evaluations} evaluations on {images} validation images" in str(told[0])
    assert measured.evaluations * (256 + images) * image_s <= 100
    assert all(len(ratios) for ratios in measured.ratios)


def test_a_sensitivity_without_time_is_left_out(model: nn.Module, data: VisionData) -> None:
    told: list[Event] = []
    context = paced(model, data, told, 0.09)
    with pytest.raises(PlanError, match=f"^{SHORT_OF_TIME}$"):
        measure_sensitivity(context)
    chosen = choose_warm_starts(changed(context, told.append, warm_starts=("sensitivity", "uniform")))
    assert [each.origin for each in chosen.trials] == ["uniform"]
    assert Stage(f"warm start sensitivity is left out: {SHORT_OF_TIME}") in told


SHORT_OF_TIME = "it would take more than 10% of the search, which takes up to 17 min."


@pytest.mark.parametrize("enough", [True, False])
def test_neighbours_that_are_cut_together_are_reported(
    model: nn.Module, data: VisionData, enough: bool
) -> None:
    """As many evaluations as the line asks for are enough; with one less some variables share their cuts."""
    told: list[Event] = []
    context = make_context(model, data)
    needed = 2 * len(context.run.space.variables) + 1
    evaluations = needed if enough else needed - 1
    context = changed(context, told.append, sensitivity_evaluations=evaluations, sensitivity_images=16)
    measure_sensitivity(context)
    said = f"To cut each alone, raise search.sensitivity_evaluations to {needed}"
    assert any(isinstance(event, Stage) and said in event.text for event in told) != enough


def test_the_group_with_dead_channels_is_cut_first(model: nn.Module, data: VisionData) -> None:
    context = make_context(model, data, "search.low=0.2")
    found = measure_sensitivity(context)
    assert found.evaluations == 25
    assert found.baseline > 0.8
    place = found.variables.index(DEAD)
    worst = [scores.min() for scores in found.scores]
    assert found.baseline - found.scores[place][found.ratios[place] >= 0.25].min() < 0.01
    assert found.baseline - np.median(worst) > 0.05
    read = json.loads(json.dumps(found.to_json()))
    assert read["scores"][DEAD] == [
        list(pair) for pair in zip(found.ratios[place], found.scores[place], strict=True)
    ]
    levels = WARM_STARTS["sensitivity"].propose(Proposer(context, context.run.space))
    ratios = context.run.space.ladder.ratios(levels[None])[0]
    assert ratios[place] == ratios.min() < 0.35


@pytest.mark.parametrize("statistic", ["kl", "importance"])
def test_a_statistic_is_lowest_for_a_group_that_can_lose_half_its_channels(
    model: nn.Module, data: VisionData, statistic: str
) -> None:
    context = make_context(model, data, f"search.sampler={statistic}")
    found = measure_statistics(context, context.run.spec.search.sampler)
    assert found.keys() == {statistic}
    values = found[statistic]
    assert values.keys() == {variable.name for variable in context.run.space.variables}
    assert min(values, key=lambda name: values[name]) == DEAD
    assert values[DEAD] == pytest.approx(0.0, abs=1e-6)
    assert all(math.isfinite(value) and value > 0.01 for name, value in values.items() if name != DEAD)


@pytest.mark.parametrize("sampler", ["kl", pytest.param("importance", marks=pytest.mark.slow)])
def test_a_search_draws_by_the_statistic_that_it_measured(
    model: nn.Module, data: VisionData, sampler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The study keeps it, a resume measures nothing again, and the group with dead channels is cut most."""
    monkeypatch.chdir(tmp_path)
    events: list[Event] = []
    settings = {
        "budget": {"flops": "60%"},
        "search": {"trials": 12, "study": "own", "sampler": sampler, "warm_starts": [], "pruner": "none"},
        "score": {"rungs": ["calibrate"], "calibration_batches": 1},
        "race": {"entrants": 1},
    }
    result = autoprune.search(model, data, settings, watch=events.append)
    study = open_study(result.storage, "own")
    table = study.facts.statistics
    assert table is not None
    assert table.keys() == {sampler}
    counted = [event for event in events if isinstance(event, Counted) and event.what != "searching"]
    assert [event.done for event in counted] == (
        list(range(1, len(table["kl"]) + 1)) if sampler == "kl" else []
    )
    events.clear()
    overrides = ["search.trials=16"]
    more = resume("own", result.storage, model=model, data=data, overrides=overrides, watch=events.append)
    assert {event.what for event in events if isinstance(event, Counted)} == {"searching"}
    assert len(more.summary.records) == 16
    kept = {
        name: np.mean([record.ratios[name] for record in more.summary.records]) for name in table[sampler]
    }
    assert min(kept, key=lambda name: kept[name]) == DEAD
    assert np.corrcoef([*table[sampler].values()], [*kept.values()])[0, 1] > 0


def test_samplers_that_need_no_statistic_measure_none(model: nn.Module, data: VisionData) -> None:
    assert measure_statistics(make_context(model, data), "tpe") == {}


@pytest.mark.parametrize("scale", [1.0, 1e-6, 50.0])
def test_the_lower_share_has_no_unit(scale: float) -> None:
    assert lower_share(scale * np.ones(8)) == pytest.approx(0.5)
    assert lower_share(scale * np.array([0.0, 3.0, 0.0, 1.0])) == 0.0
    assert lower_share(scale * np.array([4.0, 3.0, 2.0, 1.0])) == pytest.approx(0.3)
    assert lower_share(scale * np.array([2.0, 3.0, 1.0])) == pytest.approx(1 / 6)
    assert lower_share(np.zeros(4)) == 0.0
    assert lower_share(np.array([-1.0, 1.0])) == 0.0
