"""Sparse training on digits: scales fall, the dense model stays, a killed training goes on bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import autoprune
from autoprune.criteria import scale_members
from autoprune.data import load, seeded
from autoprune.errors import ConfigError
from autoprune.execution import Setting
from autoprune.graph import Prunable
from autoprune.sparsity import Sparsified, StrengthTrial, choose, sparsify, threshold_plan
from autoprune.training import EpochRecord, Schedule, Task, evaluate, weights_hash

DATA = load("digits", batch_size=256)
SCHEDULE = Schedule(epochs=3, learning_rate=0.1)


def net() -> nn.Module:
    with seeded(0):
        layers = [nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
        layers += [nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10))


def traced() -> Prunable:
    return autoprune.trace(net(), torch.zeros(1, 1, 8, 8))


def run(prunable: Prunable, **arguments: Any) -> Sparsified:
    schedule = arguments.pop("schedule", SCHEDULE)
    return sparsify(prunable, DATA, schedule, Setting(), Task(), **arguments)


@pytest.mark.parametrize(
    ("penalty", "strength"),
    [("bn-l1", 3e-2), ("bn-l1-proximal", 0.3), ("polarization", 3e-2), ("group-lasso", 1e-2)],
)
def test_a_penalty_lowers_what_it_penalises_and_leaves_the_dense_model(penalty: str, strength: float) -> None:
    prunable = traced()
    before = weights_hash(prunable.model)
    free, penalised = (run(prunable, penalty=penalty, strength=each) for each in (0.0, strength))
    assert weights_hash(prunable.model) == before
    assert penalised.history.last.mean() < 0.9 * free.history.last.mean()
    assert penalised.history.steps == tuple(len(DATA.train) * epoch for epoch in range(4))
    np.testing.assert_array_equal(penalised.history.scales[0], free.history.scales[0])


def test_growing_takes_the_channels_of_a_plan_alone_to_zero() -> None:
    prunable = traced()
    plan = autoprune.make_plan(prunable, 0.5)
    sparse = run(
        prunable, penalty="growing", strength=5.0, plan=plan, schedule=Schedule(epochs=6, momentum=0.0)
    )
    sizes = dict(zip(["0", "3"], np.split(sparse.history.last, 2), strict=True))
    for name, kept in plan.items():
        gone = np.setdiff1d(np.arange(8), kept)
        assert sizes[name][gone].max() < 0.2 * sizes[name][kept].min()


def test_the_proximal_step_takes_scales_to_zero_exactly_under_adam() -> None:
    schedule = Schedule(epochs=4, learning_rate=0.01, optimizer="adamw")
    sparse = run(traced(), penalty="bn-l1-proximal", strength=10.0, schedule=schedule)
    assert float(np.mean(sparse.history.last == 0)) > 0.2
    subgradient = run(traced(), penalty="bn-l1", strength=10.0, schedule=schedule)
    assert float(np.mean(subgradient.history.last == 0)) == 0


def test_a_threshold_cuts_the_trained_model() -> None:
    sparse = run(traced(), strength=1e-3)
    plan = threshold_plan(sparse.prunable, share=0.25, floor=1)
    small = autoprune.rebuild(sparse.prunable, plan)
    assert autoprune.verify(sparse.prunable, plan, small).right
    assert sum(plan.widths.get(name, 8) for name in ("0", "3")) == 12
    assert 0 < evaluate(small, DATA.val, Task(), Setting()) <= 1


@pytest.mark.parametrize("penalty", ["bn-l1", "bn-l1-proximal"])
def test_an_interrupted_training_continues_bit_for_bit(tmp_path: Path, penalty: str) -> None:
    def stop(record: EpochRecord) -> None:
        raise KeyboardInterrupt

    arguments: dict[str, Any] = {"penalty": penalty, "strength": 1e-2}
    whole = run(traced(), **arguments)
    with pytest.raises(KeyboardInterrupt):
        run(traced(), **arguments, checkpoint=tmp_path / "state.pt", on_epoch=stop)
    torch.rand(3)
    resumed = run(traced(), **arguments, checkpoint=tmp_path / "state.pt")
    assert weights_hash(resumed.model) == weights_hash(whole.model)
    assert resumed.history.steps == whole.history.steps
    np.testing.assert_array_equal(resumed.history.scales, whole.history.scales)


def test_several_strengths_are_tried_and_the_best_after_the_cut_is_trained_in_full(tmp_path: Path) -> None:
    short = Schedule(epochs=1)
    arguments: dict[str, Any] = {"strength": [1e-4, 1e-2], "short": short, "share": 0.5}
    sparse = run(traced(), **arguments, checkpoint=tmp_path / "state.pt")
    assert [trial.strength for trial in sparse.trials] == [1e-4, 1e-2]
    assert sparse.strength == choose(sparse.trials).strength
    alone = run(traced(), strength=sparse.strength)
    assert weights_hash(sparse.model) == weights_hash(alone.model)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "state-strength-1.pt",
        "state-strength-2.pt",
        "state.pt",
    ]
    again = run(traced(), **arguments, checkpoint=tmp_path / "state.pt")
    assert [trial.cut_score for trial in again.trials] == [trial.cut_score for trial in sparse.trials]


def test_of_equal_scores_after_the_cut_the_weaker_strength_wins() -> None:
    history = run(traced(), schedule=Schedule(steps=1)).history
    trials = [
        StrengthTrial(strength, 1.0, cut_score, None, history)
        for strength, cut_score in ((1e-2, 0.9), (1e-3, 0.9), (1e-4, 0.8))
    ]
    assert choose(trials).strength == 1e-3


def test_scales_start_where_they_are_set() -> None:
    sparse = run(traced(), initial_scale=0.5, schedule=Schedule(steps=1))
    np.testing.assert_array_equal(sparse.history.scales[0], np.full(16, 0.5))


def test_only_batch_norms_of_searchable_groups_are_penalised() -> None:
    layers = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    with seeded(0):
        model = nn.Sequential(*layers, nn.Linear(8, 10), nn.BatchNorm1d(10))
    prunable = autoprune.trace(model, torch.zeros(2, 1, 8, 8))
    (group,) = prunable.searchable
    assert [member.parameter for member in scale_members(model, group)] == ["1.weight"]
    sparse = run(prunable, initial_scale=0.5, schedule=Schedule(steps=1))
    assert len(sparse.history.last) == 8
    assert float(sparse.model.get_parameter("5.weight").detach().min()) > 0.8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"penalty": "bn_l1"}, r'sparsify.penalty: unknown name "bn_l1"\. Did you mean "bn-l1"'),
        ({"strength": -1.0}, "sparsify.strength: got -1.0, expected a number of 0 or more"),
        ({"strength": []}, r"sparsify.strength: got \[\], expected"),
        ({"strength": [1e-3, 1e-3]}, "or a list of different ones"),
        ({"penalty": "growing"}, '"growing" acts on the channels that a plan cuts. Give plan'),
        (
            {"penalty": "polarization", "options": {"tt": 1.0}},
            r'unknown option "tt"\. Did you mean "t"|unknown option "tt"\. Known: t',
        ),
        ({"options": {"t": 1.0}}, 'sparsify.options: got "t", but "bn-l1" has none'),
    ],
)
def test_bad_arguments_are_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(traced(), **arguments)


def test_a_penalty_on_scales_of_a_model_without_batch_norm_is_one_line() -> None:
    layers = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)]
    prunable = autoprune.trace(nn.Sequential(*layers), torch.zeros(1, 1, 8, 8))
    with pytest.raises(ConfigError, match=r'does not fit: it has no BatchNorm\. Use "group-lasso"'):
        run(prunable)
    frozen = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10))
    with pytest.raises(ConfigError, match="has no channel group to narrow"):
        run(autoprune.trace(frozen, torch.zeros(2, 1, 8, 8)))
