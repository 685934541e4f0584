"""A search whose trials choose the criterion of each keep ratio, from its config to the finetuned model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import autoprune
from autoprune.criteria import importance, mixed, plan_from_importance
from autoprune.data import VisionData, load
from autoprune.errors import ConfigError
from autoprune.exporting import read_recipe
from autoprune.tracing import trace
from autoprune.zoo import make_model

CONFIG: dict[str, dict[str, Any]] = {
    "budget": {"flops": "50%"},
    "search": {
        "trials": 3,
        "study": "own",
        "sampler": "random",
        "setting": "float32 contiguous",
        "criterion": ["l1", "random", "fpgm"],
        "warm_starts": ["uniform"],
    },
    "score": {"rungs": ["calibrate"], "calibration_batches": 2},
    "race": {"entrants": 1},
    "finetune": {"epochs": 0},
}


@pytest.fixture(scope="module")
def data() -> VisionData:
    return load("digits", batch_size=64, val_fraction=0.2)


def test_the_saved_model_has_the_channels_that_its_trials_criteria_keep(
    data: VisionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = make_model("digits_resnet", 10, 1)
    begun = autoprune.search(model, data, CONFIG)
    result = autoprune.resume("own", model=model, data=data, overrides=["search.trials=4"])
    assert list(result.summary.records[:3]) == list(begun.summary.records)
    warm, *proposed = result.summary.records
    assert (warm.origin, set(warm.criteria.values())) == ("uniform", {"l1"})
    assert {name for each in proposed for name in each.criteria.values()} == {"l1", "random", "fpgm"}
    trial = proposed[-1]
    tuned = autoprune.finetune("own", model=model, data=data, trial=trial.number)
    prunable = trace(model, torch.zeros(1, *data.input_shape))
    ranked = {name: importance(prunable, name) for name in ("l1", "random", "fpgm")}
    expected = plan_from_importance(prunable, trial.widths, mixed(ranked["l1"], ranked, trial.criteria))
    for name, index in read_recipe(tuned.folder).plan.items():
        np.testing.assert_array_equal(index, expected[name])
    assert tuned.val_score == pytest.approx(trial.score)


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("search", {"criterion": ["l1", "l7"]}, r"search\.criterion: unknown"),
        (
            "search",
            {"criterion": ["l1", "l1"]},
            'got "l1", "l1", expected each criterion once',
        ),
        ("search", {"criterion": []}, r"search\.criterion: got \[\], expected"),
        ("score", {"rungs": ["supernet"]}, "sub-models of a supernet are all cut by one"),
    ],
)
def test_lists_that_cannot_be_searched_are_one_line(
    data: VisionData, section: str, change: dict[str, Any], message: str
) -> None:
    config = {**CONFIG, section: {**CONFIG[section], **change}}
    with pytest.raises(ConfigError, match=message):
        autoprune.search(make_model("digits_resnet", 10, 1), data, config)
