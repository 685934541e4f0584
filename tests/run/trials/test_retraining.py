"""The full training of a candidate, and the cool-down after which a stopped one is scored."""

from __future__ import annotations

import copy
import dataclasses

import pytest

from autoprune.data import load
from autoprune.execution import Setting
from autoprune.run._resolving.dense import Dense
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._trials.retraining import COOL_DOWN, cool_down
from autoprune.training import Task, fit
from tests.flow.nets import net

DATA = load("digits", batch_size=64)
AFTER = 1


@pytest.mark.parametrize(("best_score", "rate"), [(0.4, 0.1), (0.6, 0.02)])
def test_a_cool_down_begins_at_the_rate_that_the_score_gives(best_score: float, rate: float) -> None:
    finetune = {"epochs": 8, "learning_rate": 0.1, "rate_by_score": [[0.5, 0.02]], "teacher": "none"}
    spec, task, setting = RunSpec.of({"finetune": finetune}), Task(), Setting()
    dense = Dense(net(), DATA, task, "cpu")
    found = cool_down(net(), dense, spec, setting, after=AFTER, best_score=best_score)
    assert found.steps == round(COOL_DOWN * AFTER * len(DATA.train))
    falling = dataclasses.replace(
        spec.finetune_schedule,
        epochs=None,
        steps=found.steps,
        learning_rate=rate,
        schedule="one-cycle",
        warmup=0.0,
        rate_by_score=(),
    )
    by_hand = fit(copy.deepcopy(net()), DATA, falling, setting, task, seed=AFTER).records[-1]
    assert (found.learning_rate, found.loss, found.score) == (rate, by_hand.loss, by_hand.score)
