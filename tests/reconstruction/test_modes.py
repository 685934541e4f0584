"""The public function, and what becomes of a repaired model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import autoprune
from autoprune.errors import PlanError
from tests.reconstruction.nets import Residual, images, traced, trained_like
from tests.residual import Basic, Net


def test_moments_or_images_give_the_same_closed_repair() -> None:
    prunable = traced(trained_like(Residual()))
    plan = autoprune.make_plan(prunable, 0.5, criterion="obs", data=[images()])
    small = autoprune.rebuild(prunable, plan)
    measured = autoprune.moments(prunable, [images()])
    first, second = (autoprune.repair(prunable, plan, small, source) for source in (measured, [images()]))
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
    assert not torch.equal(first.get_parameter("head.weight"), small.get_parameter("head.weight"))


def test_unknown_modes_and_sources_are_one_line() -> None:
    prunable = traced(trained_like(Residual()))
    plan = autoprune.make_plan(prunable, 0.5)
    small = autoprune.rebuild(prunable, plan)
    with pytest.raises(PlanError, match=r'repair: mode: unknown name "closd"\. Did you mean "closed"\?'):
        autoprune.repair(prunable, plan, small, [images()], mode="closd")
    measured = autoprune.moments(prunable, [images()])
    with pytest.raises(PlanError, match='mode "sequential" needs images, got moments'):
        autoprune.repair(prunable, plan, small, measured, mode="sequential")
    with pytest.raises(
        PlanError, match=r"repair: plan: got a dict, expected the result of autoprune\.make_plan"
    ):
        autoprune.repair(prunable, {}, small, measured)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("mode", ["closed", "sequential"])
def test_a_repaired_model_survives_saving_and_export(mode: str, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    batch = images(1).float()
    prunable = autoprune.trace(trained_like(Residual()).float(), batch)
    plan = autoprune.make_plan(prunable, 0.5)
    small = autoprune.repair(
        prunable, plan, autoprune.rebuild(prunable, plan), [images().float()], mode=mode
    ).eval()
    with torch.no_grad():
        expected = small(batch)
    autoprune.save_pruned(small, plan, tmp_path / "small")
    loaded = autoprune.load_pruned(tmp_path / "small", Residual)
    with torch.no_grad():
        assert torch.equal(loaded(batch), expected)
    autoprune.export(small, tmp_path / "small.onnx", format="onnx")
    session = ort.InferenceSession(tmp_path / "small.onnx", providers=["CPUExecutionProvider"])
    (given,) = session.run(None, {session.get_inputs()[0].name: batch.numpy()})
    torch.testing.assert_close(torch.from_numpy(given), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["closed", "sequential"])
def test_dropped_blocks_are_not_refitted_and_the_other_layers_are(mode: str) -> None:
    torch.manual_seed(0)
    prunable = autoprune.trace(trained_like(Net(Basic(), Basic())).float(), torch.zeros(1, 3, 8, 8))
    first, second = (block.name for block in prunable.blocks)
    batch = torch.randn(64, 3, 8, 8)
    target = prunable.model(batch).detach()
    errors = []
    for widths in ({first: 0}, {first: 0, "stem": 4, "blocks.1.conv1": 3}, {first: 0, second: 0, "stem": 4}):
        plan = autoprune.make_plan(prunable, widths)
        small = autoprune.rebuild(prunable, plan)
        repaired = autoprune.repair(prunable, plan, small, [batch], mode=mode).eval()
        assert [*repaired.state_dict()] == [*small.state_dict()]
        outputs = [model(batch).detach() for model in (small.eval(), repaired)]
        errors.append([float((each - target).square().mean()) for each in outputs])
    before, after = np.array(errors).T
    assert (after[1:] < before[1:]).all()
    assert after[0] <= before[0] * (1 + 1e-6)
