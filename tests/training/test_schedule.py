"""Schedules: learning rates in closed form, values checked."""

from __future__ import annotations

import math

import pytest
from torch import nn

from autoprune.errors import ConfigError
from autoprune.training import OPTIMIZERS, Schedule, learning_rate_at
from autoprune.training._schedule import make_optimizer


def rates(schedule: Schedule, total: int) -> list[float]:
    return [learning_rate_at(schedule, step, total) for step in range(total)]


def test_cosine_without_warmup() -> None:
    got = rates(Schedule(steps=4, learning_rate=1.0, warmup=0.0), 4)
    assert got == pytest.approx([1.0, 0.853553, 0.5, 0.146447], abs=1e-6)


def test_warmup_rises_to_the_highest_rate_and_falls_from_it() -> None:
    got = rates(Schedule(steps=100, learning_rate=0.4, warmup=0.2, schedule="one-cycle"), 100)
    assert got.index(max(got)) == 20
    assert max(got) == 0.4
    assert got[:20] == sorted(got[:20])
    assert got[20:] == sorted(got[20:], reverse=True)
    assert got[60] == pytest.approx(0.2)


def test_constant_stays() -> None:
    assert rates(Schedule(steps=3, learning_rate=0.1, warmup=0.0, schedule="constant"), 3) == [0.1] * 3


def test_step_falls_to_a_tenth_at_half_and_at_three_quarters() -> None:
    got = rates(Schedule(steps=8, learning_rate=1.0, warmup=0.0, schedule="step"), 8)
    assert got == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_a_rate_by_score_holds_from_its_score_on() -> None:
    schedule = Schedule(steps=9, learning_rate=0.2, warmup=0.0, rate_by_score=((0.8, 0.1), (0.9, 0.01)))
    got = [learning_rate_at(schedule, 5, 9, best) for best in (-math.inf, 0.79, 0.8, 0.89, 0.9, 1.0)]
    assert got == [0.2, 0.2, 0.1, 0.1, 0.01, 0.01]
    with pytest.raises(ConfigError, match=r"schedule.rate_by_score: .* is out of its range"):
        Schedule(steps=1, rate_by_score=((0.9, 0.1), (0.8, 0.01)))


def test_length_in_epochs_or_steps() -> None:
    assert Schedule(epochs=3).total_steps(7) == 21
    assert Schedule(steps=5).total_steps(7) == 5
    with pytest.raises(ConfigError, match=r"Give exactly one of the two"):
        Schedule()
    with pytest.raises(ConfigError, match=r"Give exactly one of the two"):
        Schedule(epochs=1, steps=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.0}, "schedule.learning_rate: 0.0 is out of its range"),
        ({"ema": 1.0}, "schedule.ema: 1.0"),
        ({"optimizer": "sdg"}, 'unknown name "sdg". Did you mean "sgd"'),
        ({"schedule": "cosin"}, 'unknown name "cosin". Did you mean "cosine"'),
    ],
)
def test_wrong_values_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Schedule(epochs=1, **changes)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_only_matrices_and_kernels_decay(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))
    optimizer = make_optimizer(model, Schedule(steps=1, optimizer=name, weight_decay=0.1))
    decaying, plain = optimizer.param_groups
    assert (decaying["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert [parameter.ndim for parameter in decaying["params"]] == [4, 2]
    assert len(plain["params"]) == 4
