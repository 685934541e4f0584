"""The examples of experiments/examples/tasks, each run from its dense training to the small model."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

import autoprune
from experiments.examples.tasks.runner import measure

NEEDS = {
    "detection": "torchmetrics",
    "hugging_face": "transformers",
    "two_inputs": "sklearn",
    "segmentation": "torchvision",
    "super_resolution": "torch",
    "own_loop": "sklearn",
    "timm_model": "timm",
    "lightning_module": "lightning",
}
"""{example: the package that it needs}."""


@pytest.mark.slow
@pytest.mark.parametrize("name", NEEDS)
def test_an_example_runs_to_its_row(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(NEEDS[name])
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    row = measure(importlib.import_module(f"experiments.examples.tasks.{name}").make(True), tiny=True)
    assert row.task == name
    assert 0.4 < float(row.macs_share) <= 0.5
    assert 0 < float(row.latency_low) <= float(row.latency_share) <= float(row.latency_high)
    assert all(torch.isfinite(torch.tensor(float(each))) for each in (row.dense, row.repaired, row.finetuned))
    assert row.part == ("backbone" if name == "detection" else "whole")


@pytest.mark.slow
def test_a_small_model_of_transformers_is_read_from_a_folder_with_its_config(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from experiments.examples.tasks.hugging_face import load_small, make, save_small

    model = make(True).model.eval()
    images = {"pixel_values": torch.randn(2, 1, 16, 16)}
    prunable = autoprune.trace(model, images)
    plan = autoprune.make_plan(prunable, 0.5)
    small = autoprune.rebuild(prunable, plan)
    assert float(autoprune.verify(prunable, plan, small).kept_whole) < 1e-9
    save_small(small, plan, tmp_path / "small")
    loaded = load_small(tmp_path / "small")
    with torch.no_grad():
        assert torch.equal(loaded(**images).logits, small.eval()(**images).logits)
