"""Searches that may drop residual blocks: warm starts, kill and resume, the winner, and what is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from torch import nn

import autoprune
from autoprune.config import load_config
from autoprune.data import VisionData, load
from autoprune.errors import ConfigError, StudyError
from autoprune.execution import Setting
from autoprune.exporting import read_recipe
from autoprune.run import Dense, SearchResult, TrialDone, finetune, resume
from autoprune.run._measuring.statistics import MeasurementContext
from autoprune.run._measuring.warm_starts import choose_warm_starts
from autoprune.run._resolving.ranking import rank_channels
from autoprune.run._resolving.resolve import trace_run
from autoprune.run._resolving.spec import RunSpec
from autoprune.samplers import distributions, make_sampler
from autoprune.space import DepthSpace
from autoprune.study import open_study
from autoprune.training import Task
from autoprune.zoo import make_model
from tests.records import comparable

CONFIG: dict[str, dict[str, Any]] = {
    "budget": {"flops": "40%"},
    "search": {
        "trials": 9,
        "study": "deep",
        "setting": "float32 contiguous",
        "pruner": "none",
        "sampler": "tpe",
        "depth": True,
        "warm_starts": ["uniform", "l1"],
        "sensitivity_images": 100,
        "sensitivity_batches": 1,
    },
    "score": {"rungs": ["repair", "2 steps"], "calibration_batches": 1, "moment_images": 64},
    "race": {"entrants": 1},
    "finetune": {"epochs": 0},
}
BLOCKS = ["layer1.0:branch", "layer1.1:branch", "layer2.1:branch"]


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return make_model("digits_resnet", 10, 1).eval()


@pytest.fixture(scope="module")
def data() -> VisionData:
    return load("digits", batch_size=64, val_fraction=0.2)


def make_context(data: VisionData, *overrides: str, model: nn.Module | None = None) -> MeasurementContext:
    spec = RunSpec.of(load_config(CONFIG, overrides))
    run = trace_run(Dense(model or make_net(), data, Task(), "cpu"), spec, Setting("cpu"))
    return MeasurementContext(run, rank_channels(run, "l1"))


@pytest.fixture(scope="module")
def searched(data: VisionData, tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    folder = tmp_path_factory.mktemp("deep")
    return autoprune.search(make_net(), data, placed(folder))


def placed(folder: Path) -> dict[str, dict[str, Any]]:
    search = {**CONFIG["search"], "storage": f"journal:///{folder}/deep.log"}
    return {**copy.deepcopy(CONFIG), "search": search, "output": {"folder": str(folder)}}


def test_warm_starts_keep_all_blocks_except_the_one_that_drops_some(data: VisionData) -> None:
    context = make_context(data)
    space = context.run.space
    assert isinstance(space, DepthSpace)
    chosen = choose_warm_starts(context)
    assert [entry.origin for entry in chosen.trials] == ["uniform", "depth", "l1"]
    assert set(chosen.measured["blocks"]["falls"]) == set(BLOCKS)
    for entry in chosen.trials:
        levels = np.array([entry.levels])
        widths = space.ladder.widths(levels)
        assert 0.98 <= space.usage(widths)[0] <= 1
        np.testing.assert_array_equal(space.decode(space.ladder.ratios(levels)), widths)
        dropped = int((widths[0, -len(BLOCKS) :] == 0).sum())
        assert (dropped > 0) == (entry.origin == "depth")


def test_trials_drop_blocks_within_the_budget(searched: SearchResult) -> None:
    records = searched.summary.records
    assert [record.origin for record in records[:3]] == ["uniform", "depth", "l1"]
    assert all(record.state == "complete" for record in records)
    assert all(set(BLOCKS) < set(record.widths) for record in records)
    shares = [searched.summary.share(record, "macs") for record in records]
    assert all(0.98 * 0.4 <= share <= 0.4 for share in shares)
    by_sampler = [record.widths[name] for record in records[3:] for name in BLOCKS]
    assert 0 in by_sampler
    assert 1 in by_sampler


def test_a_killed_search_goes_on_as_it_would_have(
    searched: SearchResult, data: VisionData, tmp_path: Path
) -> None:
    def interrupt(event: object) -> None:
        if isinstance(event, TrialDone) and event.done in (2, 5):
            raise KeyboardInterrupt

    config = placed(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        autoprune.search(make_net(), data, config, watch=interrupt)
    url = config["search"]["storage"]
    with pytest.raises(KeyboardInterrupt):
        resume("deep", url, model=make_net(), data=data, watch=interrupt)
    resumed = resume("deep", url, model=make_net(), data=data)
    assert list(map(comparable, resumed.summary.records)) == list(map(comparable, searched.summary.records))


def test_a_finetuned_trial_has_the_blocks_of_its_widths(searched: SearchResult, data: VisionData) -> None:
    trial = next(each for each in searched.summary.records if each.widths["layer1.1:branch"] == 0)
    result = finetune("deep", searched.storage, trial=trial.number, model=make_net(), data=data)
    small = autoprune.load_pruned(result.folder, make_net)
    assert not any(name.startswith("layer1.1") for name in small.state_dict())
    assert result.cost.params == sum(each.numel() for each in small.parameters())
    assert result.cost.macs == trial.costs["macs"]


def test_a_study_without_depth_is_another_search(searched: SearchResult) -> None:
    study = open_study(searched.storage, "deep")
    assert study.identity["depth"] == ", ".join(BLOCKS)
    assert {name: study.facts.dense_widths[name] for name in BLOCKS} == dict.fromkeys(BLOCKS, 1)
    with pytest.raises(StudyError, match="depth is"):
        study.require({**study.identity, "depth": ""})


def test_depth_needs_a_model_with_blocks(data: VisionData) -> None:
    plain = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    with pytest.raises(ConfigError, match=r"search\.depth: Sequential has no residual block that can be"):
        make_context(data, model=plain)


@pytest.mark.parametrize(
    "sampler", ["random", "gp", "cmaes", "nsga2", "evolution", "ddpg", "policy_gradient"]
)
def test_every_sampler_proposes_plans_with_and_without_blocks(data: VisionData, sampler: str) -> None:
    run = make_context(data).run
    shapes = {name: tuple(each.shape) for name, each in run.prunable.model.named_parameters()}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    wrapped = make_sampler(sampler, seed=0, trials=12, space=run.space, shapes=shapes)
    study = optuna.create_study(direction="maximize", sampler=wrapped)
    found = []
    for _ in range(12):
        trial = study.ask({**distributions(run.space.variables)})
        widths = run.space.decode(np.array([trial.params[each.name] for each in run.space.variables]))
        assert 0.98 <= run.space.usage(widths)[0] <= 1
        found.append(widths)
        study.tell(trial, -float(widths[-len(BLOCKS) :].sum()))
    kept = np.array(found)[:, -len(BLOCKS) :]
    assert 0 < kept.mean() < 1
    assert len(np.unique(np.array(found), axis=0)) == 12


def test_a_flow_whose_pass_is_a_search_drops_blocks_too(data: VisionData, tmp_path: Path) -> None:
    # Widths alone cannot meet the budget of a pass.
    search = {**CONFIG["search"], "trials": 2, "warm_starts": [], "sampler": "random", "low": 0.9}
    config = {
        **CONFIG,
        "budget": {"flops": "60%"},
        "search": search,
        "flow": {"stages": ["select", "rebuild"], "passes": 2},
        "select": {"by": "search"},
        "score": {"rungs": ["calibrate"], "calibration_batches": 1},
        "output": {"folder": str(tmp_path)},
    }
    result = autoprune.prune(make_net(), data, config)
    pages = [path.relative_to(result.folder).as_posix() for path in result.folder.rglob("report.html")]
    assert sorted(pages) == ["1-select/report.html", "2-select/report.html"]
    recipe = read_recipe(result.folder)
    loaded = autoprune.load_pruned(result.folder, make_net)
    prunable = autoprune.trace(make_net(), torch.zeros(1, 1, 8, 8))
    assert recipe.plan.dropped
    cost = prunable.cost(recipe.plan.widths)
    assert (cost.macs, cost.params) == (result.cost.macs, sum(each.numel() for each in loaded.parameters()))
