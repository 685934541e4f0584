"""Structured batches and parts of a model, together with flows, criteria, worker processes and latencies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import autoprune
from autoprune.errors import ConfigError
from tests.run.test_tasks import (
    CONFIG,
    Detector,
    Near,
    Pair,
    detection_loaders,
    keyword_batches,
    prepare,
)

pytestmark = pytest.mark.slow

PART: dict[str, dict[str, Any]] = {
    "model": {"target": "backbone"},
    "task": {"loss": "model", "metric": Near, "prepare": prepare},
    "search": {"setting": "float32 contiguous"},
    "finetune": {"epochs": 1, "teacher": "none"},
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder, from weights that are always the same."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


FLOWS: dict[str, dict[str, Any]] = {
    "activation": {"flow": {"passes": 2}, "select": {"criterion": "activation"}, "repair": {"images": 8}},
    "chip": {"select": {"criterion": "chip", "by": "uniform"}},
    "obs": {"select": {"criterion": "obs"}, "repair": {"images": 8}},
    "slimming": {"flow": {"method": "network-slimming"}, "sparsify": {"epochs": 1, "strength": 1e-3}},
}


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_narrows_a_part_of_a_detector(name: str) -> None:
    config = {**PART, "budget": {"flops": "50%"}, **FLOWS[name]}
    result = autoprune.prune(Detector(), detection_loaders(), config, watch=None)
    assert 0.3 < result.cost.macs / result.dense_cost.macs <= 0.5
    small = autoprune.load_pruned(result.folder, Detector)
    assert len(small([torch.rand(1, 8, 8)] * 3)) == 3


def test_masks_of_a_flow_stay_within_the_part() -> None:
    config = {
        **PART,
        "flow": {"method": "magnitude-masks"},
        "mask": {"sparsity": 0.5},
        "output": {"formats": ["onnx"]},
    }
    result = autoprune.prune(Detector(), detection_loaders(), config, watch=None)
    weights = {name: each for name, each in result.model.named_parameters() if each.ndim > 1}
    zeros = {name: float((weight == 0).float().mean()) for name, weight in weights.items()}
    assert zeros == {"backbone.0.weight": 0.5, "backbone.3.weight": 0.5, "box.weight": 0, "score.weight": 0}
    assert (result.folder / "model.onnx").is_file()  # of the part


@pytest.mark.parametrize("criterion", ["activation", "apoz", "hrank", "chip"])
def test_a_criterion_of_maps_ranks_the_part_of_a_detector_in_a_search(criterion: str) -> None:
    search = {**CONFIG["search"], "criterion": criterion}
    config = {**CONFIG, **PART, "search": search}
    result = autoprune.search(Detector(), detection_loaders(), config, watch=None)
    assert {record.state for record in result.summary.records} == {"complete"}


def test_a_criterion_of_gradients_needs_a_loss_of_outputs_and_targets() -> None:
    config = {**PART, "budget": {"flops": "50%"}, "select": {"criterion": "taylor"}}
    with pytest.raises(ConfigError, match=r'criterion "taylor": reads gradients of a loss function'):
        autoprune.prune(Detector(), detection_loaders(), config, watch=None)


def keyword_loaders() -> tuple[Any, Any]:
    return keyword_batches(4), keyword_batches(2)


@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_workers_score_batches_of_keywords(engine: str) -> None:
    if engine == "ray":
        pytest.importorskip("ray")
    config = {
        **CONFIG,
        "task": {"loss": "model", "prepare": "tests.run.test_tasks:split"},
        "search": {**CONFIG["search"], "engine": engine, "workers": 2, "trials": 3},
        "finetune": {"epochs": 0},
    }
    result = autoprune.search(Pair(), keyword_loaders(), config, watch=None)
    assert {record.state for record in result.summary.records} == {"complete"}


def make_first() -> Pair:
    small = autoprune.load_pruned("first", Pair)
    assert isinstance(small, Pair)
    return small


def test_a_saved_small_model_is_the_dense_model_of_a_second_search() -> None:
    inputs = {"wide": torch.randn(4, 6), "narrow": torch.randn(4, 3)}
    prunable = autoprune.trace(Pair(), inputs)
    plan = autoprune.make_plan(prunable, 0.75)
    autoprune.save_pruned(autoprune.rebuild(prunable, plan), plan, "first")
    config = {
        **CONFIG,
        "model": {"factory": f"{__name__}:make_first"},
        "data": {"loaders": f"{__name__}:keyword_loaders"},
        "task": {"loss": "model", "prepare": "tests.run.test_tasks:split"},
    }
    result = autoprune.search(config=config, watch=None)
    assert result.summary.dense_widths == {"first": 12}
    tuned = autoprune.finetune(result, watch=None)
    assert tuned.plan.widths["first"] < 12
    for make in (Pair, make_first):  # the class of the first dense model is enough
        loaded = autoprune.load_pruned(tuned.folder, make)
        assert torch.equal(loaded(**inputs)["logits"], tuned.model.cpu()(**inputs)["logits"])
