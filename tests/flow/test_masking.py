"""Masks as a stage of a flow: they hold in every later stage and file, and whole filters are cut."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import autoprune
from autoprune.config import load_config
from autoprune.errors import AutopruneError, CheckpointError
from autoprune.execution import Setting
from autoprune.exporting import read_recipe
from autoprune.flow import FlowState, Workbench
from autoprune.flow._masking import training_mask
from autoprune.masks import Masks, load_masks, make_masks, save_masks
from autoprune.run import FlowResult
from autoprune.score import calibrate
from autoprune.space import SpaceSpec
from autoprune.support.events import EpochDone, Event, Stage
from autoprune.training import Moment, Task, weights_hash
from tests.flow.nets import DATA, masked, net, residual


def are_zero(model: nn.Module, masks: Masks) -> bool:
    return all(not bool(parameter[zero].any()) for parameter, zero in masks.placed(model))


def kept(result: FlowResult, stage: str) -> tuple[nn.Module, Masks]:
    """Return the model and the masks that a stage wrote."""
    folder = result.folder / stage
    return autoprune.load_pruned(folder, residual), load_masks(folder / "masks.safetensors")


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> FlowResult:
    """A flow of two passes of masks, whose second pass also cuts channels from the masked model."""
    stages = {"stages": ["select", "repair", "mask", "finetune"], "passes": 2}
    finetune = {"ema": 0.5, "optimizer": "adam", "learning_rate": 0.01}
    folder = tmp_path_factory.mktemp("masks")
    config = masked(folder, flow=stages, select={"by": "uniform"}, budget={"macs": "60%"}, finetune=finetune)
    return autoprune.prune(residual(), DATA, config)


def test_masked_weights_are_zero_in_every_file_from_the_mask_on(flow: FlowResult) -> None:
    written = sorted(path.parent.name for path in flow.folder.glob("*/masks.safetensors"))
    assert written == ["1-finetune", "1-mask", "2-finetune", "2-mask", "2-rebuild", "2-repair"]
    for stage in written:
        assert are_zero(*kept(flow, stage))
    masks = load_masks(flow.folder / "masks.safetensors")
    assert masks == kept(flow, "2-finetune")[1]
    assert are_zero(flow.model, masks)
    moving = dict(kept(flow, "2-mask")[0].named_parameters())
    assert any(not torch.equal(p, moving[name]) for name, p in flow.model.named_parameters())


def test_each_pass_leaves_the_same_share_and_what_is_left_is_recorded(flow: FlowResult) -> None:
    for stage, sparsity in (("1-mask", 1 - 0.25**0.5), ("2-mask", 0.75)):
        for mask in kept(flow, stage)[1].values():
            assert int((~mask).sum()) == round(sparsity * mask.numel())
    zeros = sum(int((~mask).sum()) for mask in load_masks(flow.folder / "masks.safetensors").values())
    total = sum(each.numel() for each in flow.model.parameters())
    assert flow.remaining is not None
    assert (flow.remaining.weights, flow.remaining.dense_weights) == (total - zeros, total)
    assert flow.remaining.macs < flow.remaining.dense_macs == flow.cost.macs
    assert read_recipe(flow.folder).extra["remaining"]["weights"] == total - zeros
    assert "zeros alone do not run faster" in str(flow.remaining)


def test_whole_filters_are_cut_and_the_model_computes_the_same(tmp_path: Path) -> None:
    config = masked(
        tmp_path,
        flow={"stages": ["mask", "finetune", "rebuild"]},
        mask={"granularity": "filter", "sparsity": 0.5, "skip": ["fc"]},
    )
    result = autoprune.prune(residual(), DATA, config)
    trained, rebuilt = result.stages[-2:]
    assert rebuilt.stage == "rebuild"
    assert rebuilt.score == trained.score == result.val_score
    assert result.cost.macs < result.dense_cost.macs
    assert read_recipe(result.folder).plan.widths["block.0"] == 4
    model, masks = kept(result, "1-finetune")
    inputs = torch.randn(8, 1, 8, 8)
    torch.testing.assert_close(result.model(inputs), model.eval()(inputs), rtol=1e-4, atol=1e-5)
    left = load_masks(result.folder / "masks.safetensors")  # a stream keeps filters that one layer alone lost
    assert set(left) < set(masks)
    assert are_zero(result.model, left)


@pytest.mark.parametrize("mask", [{"granularity": "kernel"}, {"score": "gradient", "scope": "global"}])
def test_masks_grow_over_the_passes_and_end_at_their_sparsity(tmp_path: Path, mask: dict[str, Any]) -> None:
    given = {"schedule": "cubic", "images": 64, **mask}
    result = autoprune.prune(residual(), DATA, masked(tmp_path, flow={"passes": 2}, mask=given))
    assert result.stages[0].score is None  # they begin with the finetune
    first, last = (kept(result, f"{number}-finetune")[1] for number in (1, 2))
    weights = list(make_masks(residual(), 0.5))
    shares = [Masks({name: each[name] for name in weights}).sparsity for each in (first, last)]
    assert shares == pytest.approx([0.5, 0.75], abs=0.02)
    assert all(not bool((last[name] & ~first[name]).any()) for name in first)
    assert are_zero(result.model, last)


@pytest.mark.parametrize(
    ("stages", "share"), [(["mask", "finetune"], 0.5), (["mask", "finetune", "rebuild"], 0.25)]
)
def test_masks_grow_from_those_of_the_pass_before_unless_it_has_cut_them(
    tmp_path: Path, stages: list[str], share: float
) -> None:
    prunable = autoprune.trace(residual().eval(), torch.zeros(1, 1, 8, 8))
    mask = {"granularity": "filter", "schedule": "cubic", "sparsity": 0.75}
    bench = Workbench(
        config=load_config(masked(tmp_path, flow={"stages": stages, "passes": 2}, mask=mask)),
        stages=tuple(stages),
        origin=prunable,
        data=DATA,
        task=Task(),
        setting=Setting(),
        space=SpaceSpec(),
        cost=lambda prunable: prunable.cost,
        known=prunable.cost,
        folder=tmp_path,
    )
    left = make_masks(prunable, 0.25, granularity="filter")
    hook = training_mask(bench, FlowState(2, prunable, masks=left), grows=True)
    assert hook is not None
    model = copy.deepcopy(prunable.model)
    hook.begin(model)
    hook.after_step(model, Moment(0, 100, 0.1))
    assert Masks({"": hook.masks["stem.0.weight"]}).sparsity == share
    assert all(not bool((hook.masks[name] & ~mask).any()) for name, mask in left.items())


def test_masks_of_a_file_hold_in_another_training(tmp_path: Path) -> None:
    masks = make_masks(residual(), 0.6)
    save_masks(masks, tmp_path / "masks.safetensors")
    given = {"file": str(tmp_path / "masks.safetensors")}
    result = autoprune.prune(residual(), DATA, masked(tmp_path / "out", mask=given))
    assert load_masks(result.folder / "masks.safetensors") == masks
    assert are_zero(result.model, masks)


def test_a_stopped_flow_of_masks_ends_with_the_same_weights(tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, EpochDone):
            raise KeyboardInterrupt

    whole, broken = (
        masked(tmp_path / name, flow={"passes": 2}, mask={"schedule": "cubic"})
        for name in ("whole", "broken")
    )
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            autoprune.prune(residual(), DATA, broken, watch=stop)
    ends = [autoprune.prune(residual(), DATA, config) for config in (whole, broken)]
    assert weights_hash(ends[0].model) == weights_hash(ends[1].model)
    files = [load_masks(end.folder / "masks.safetensors") for end in ends]
    assert files[0] == files[1]


def test_masks_that_the_flow_did_not_write_are_refused(tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if "pass 1 of 1: finetune" in str(event):
            raise KeyboardInterrupt

    config = masked(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        autoprune.prune(residual(), DATA, config, watch=stop)
    path = tmp_path / "flow" / "1-mask" / "masks.safetensors"
    save_masks(make_masks(residual(), 0.1), path)
    with pytest.raises(CheckpointError, match=r"masks.safetensors: holds other masks than those of the flow"):
        autoprune.prune(residual(), DATA, config)


FOURS = {"granularity": "2:4", "sparsity": 0.5}
CUT_FIRST = {"flow": {"stages": ["select", "mask"]}, "budget": {"macs": "60%"}, "mask": FOURS}
OTHER = {"stem.0.weight": torch.ones(8, 3, 3, 3, dtype=torch.bool)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": {"granularity": "2:4", "sparsity": 0.5}}, r'"2:4": .* does not in stem.0.weight \(1 inp'),
        ({**CUT_FIRST, "select": {"by": "uniform"}}, r"in stem.0.weight \(1 inp"),
        (
            {**CUT_FIRST, "select": {"by": "uniform"}, "mask": {**FOURS, "skip": ["stem"]}},
            "may leave other widths of .*which block.*weight reads. Set search.divisor = 4",
        ),
        (
            {
                **CUT_FIRST,
                "flow": {"stages": ["mask", "select"], "passes": 2},
                "select": {"by": "global-threshold"},
                "search": {"divisor": 4},
                "mask": {**FOURS, "skip": ["stem"]},
            },
            "may leave other widths of .*which block.*weight reads",
        ),
        ({"mask": {"granularity": "2:4"}}, 'got 0.75, but "2:4" keeps half of the weights'),
        (
            {"mask": {"file": "other.safetensors"}},
            r"stem.0.weight: the masks are of another model: got a mask",
        ),
        (
            {"mask": {"file": "other.safetensors"}, "flow": {"stages": ["mask", "rebuild"], "passes": 2}},
            'mask.file: got masks of one model, but each pass has another one, since .* has "rebuild"',
        ),
        ({"mask": {"file": "none.safetensors"}}, "masks .*none.safetensors: cannot be read"),
        ({"mask": {"granularity": "kernels"}}, 'mask.granularity: unknown .*"kernel"'),
        ({"mask": {"score": "magnitud"}}, 'mask.score: unknown .*"magnitude"'),
        ({"mask": {"skip": ["head"]}}, 'mask.skip: unknown module "head"'),
        ({"mask": {"schedule": "cubic"}, "finetune": {"epochs": 0}}, 'no "finetune" with epochs follows'),
        ({"mask": {"schedule": "cubic", "granularity": "2:4", "sparsity": 0.5}}, "has one sparsity only"),
        (
            {
                "flow": {"stages": ["mask", "rebuild", "finetune"]},
                "mask": {"schedule": "cubic", "granularity": "filter"},
            },
            '"rebuild" cuts the masked filters before it. Use "one-shot"',
        ),
        ({"flow": {"stages": ["mask", "rebuild"]}}, 'mask.granularity is "weight". Use "filter"'),
        ({"flow": {"stages": ["finetune"]}}, 'expected "select" or "mask" among them'),
        ({"flow": {"stages": ["select", "mask", "repair"]}}, '"repair" must come before "mask"'),
        ({"flow": {"stages": ["mask", "sparsify"]}}, '"sparsify" must come before "mask"'),
        ({"flow": {"stages": ["mask", "rebuild", "select"]}}, '"select" must come before "rebuild"'),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    save_masks(Masks(OTHER), tmp_path / "other.safetensors")
    with pytest.raises(AutopruneError, match=message) as caught:
        autoprune.prune(residual(), DATA, masked(tmp_path / "out", **changes))
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["other.safetensors"]


def test_widths_that_four_divides_can_have_masks_of_two_of_four(tmp_path: Path) -> None:
    changes = {**CUT_FIRST, "mask": {**FOURS, "skip": ["stem"]}, "search": {"divisor": 4}}
    result = autoprune.prune(residual(), DATA, masked(tmp_path, **changes, select={"by": "uniform"}))
    assert result.cost.macs < result.dense_cost.macs
    for name, mask in load_masks(result.folder / "masks.safetensors").items():
        assert mask.shape[1] % 4 == 0, name
        assert bool((mask.movedim(1, -1).reshape(-1, 4).sum(1) == 2).all())


def test_batchnorm_is_measured_behind_masked_weights(flow: FlowResult) -> None:
    model, masks = kept(flow, "2-repair")
    assert masks
    again = copy.deepcopy(model)
    calibrate(again, DATA, 20, Setting(), seed=0)
    for name, value in model.state_dict().items():
        if "running" in name:
            torch.testing.assert_close(again.state_dict()[name], value)


def test_settings_that_no_stage_reads_are_reported(tmp_path: Path) -> None:
    events: list[Event] = []
    config = masked(tmp_path, budget={"macs": "1%"}, finetune={"epochs": 0}, report={"trackers": ["mlflow"]})
    autoprune.prune(net(), DATA, config, watch=events.append)
    assert any('[budget] is set, but flow.stages has no "select"' in str(event) for event in events)
    assert Stage("report.trackers is set, but a flow logs to no tracker") in events
    record = json.loads((tmp_path / "flow" / "flow.json").read_text())
    assert record["config"]["budget"]["macs"] is None
