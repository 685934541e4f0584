"""Droppable blocks: each residual net shows those that it must, and a rebuild without them is exact."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.criteria import make_plan
from autoprune.errors import PlanError
from autoprune.graph import Plan, Prunable
from autoprune.rebuilding import rebuild, verify
from autoprune.tracing import trace
from tests.cost.test_formula import counted, random_plan
from tests.residual import BLOCK_CASES, Basic, Net


@cache
def traced(name: str) -> Prunable:
    torch.manual_seed(0)
    case = BLOCK_CASES[name]
    return trace(case.make(), case.inputs)


def without(*blocks: str, keep: Mapping[str, NDArray[np.int64]] | None = None) -> Plan:
    """Return a plan that drops blocks and perhaps keeps only some channels."""
    return Plan({**(keep or {}), **dict.fromkeys(blocks, np.empty(0, np.int64))})


DROPPABLE = [name for name, case in BLOCK_CASES.items() if case.blocks]


@pytest.mark.parametrize("name", BLOCK_CASES)
def test_shows_the_blocks_it_must(name: str) -> None:
    found = {
        block.name: (block.groups, tuple(each.path for each in block.stand_ins))
        for block in traced(name).blocks
    }
    assert found == BLOCK_CASES[name].blocks


@pytest.mark.parametrize("name", DROPPABLE)
@pytest.mark.parametrize("narrowed", [False, True])
def test_costs_and_outputs_without_the_blocks_are_exact(name: str, narrowed: bool) -> None:
    prunable = traced(name)
    keep = dict(random_plan(prunable, 1, crossing=False)) if narrowed else {}
    for count in range(1, len(prunable.blocks) + 1):
        plan = without(*(block.name for block in prunable.blocks[:count]), keep=keep)
        small = rebuild(prunable, plan)
        proof = verify(prunable, plan, small)
        assert proof.verdict == "exact", proof
        cost = prunable.cost(plan.widths)
        assert (cost.macs, cost.params) == counted(small, BLOCK_CASES[name].inputs)


@pytest.mark.parametrize("name", DROPPABLE)
def test_a_model_without_its_blocks_trains_and_is_traced_again(name: str) -> None:
    prunable = traced(name)
    inputs = torch.randn(2, *BLOCK_CASES[name].inputs[0].shape[1:])
    small = rebuild(prunable, without(*(block.name for block in prunable.blocks))).train()
    small(inputs).square().mean().backward()
    assert all(p.grad is not None for name, p in small.named_parameters() if "scale" not in name)
    again = trace(small.eval(), BLOCK_CASES[name].inputs)
    assert not again.blocks
    gone = {group for block in prunable.blocks for group in block.groups}
    left = [group for group in prunable.searchable if group.name not in gone]
    assert len(again.searchable) == len(left)


def test_costs_of_many_candidates_at_once() -> None:
    prunable = traced("basic")
    rng = np.random.default_rng(0)
    groups = np.array([group.width for group in prunable.groups])
    free = np.array([group.frozen is None for group in prunable.groups])
    widths = np.where(free, rng.integers(1, groups + 1, (20, len(groups))), groups)
    kept = rng.integers(0, 2, (20, 2))
    rows = np.hstack([widths, kept])
    together = prunable.cost(rows)
    names = [*(group.name for group in prunable.groups), *(block.name for block in prunable.blocks)]
    for place, row in enumerate(rows.tolist()):
        alone = prunable.cost(dict(zip(names, row, strict=True)))
        assert alone.known() == {name: np.asarray(cost)[place] for name, cost in together.known().items()}
    assert np.array_equal(
        prunable.cost(widths).macs, prunable.cost(np.hstack([widths, np.ones_like(kept)])).macs
    )


def test_wrong_widths_and_plans_of_blocks_are_refused() -> None:
    prunable = traced("basic")
    name = prunable.blocks[0].name
    with pytest.raises(PlanError, match=r"blocks\.0:branch: got width 2\.\.2, expected 0\.\.1"):
        prunable.cost({name: 2})
    with pytest.raises(PlanError, match=r"blocks\.0:branch: got keep index \[1\], expected \[\] to drop"):
        rebuild(prunable, Plan({name: np.array([1])}))
    with pytest.raises(PlanError, match=r'block\.0:branch: no such .* Did you mean "blocks\.0:branch"'):
        rebuild(prunable, without("block.0:branch"))
    with pytest.raises(PlanError, match=r"stem: got keep index \[\]"):
        rebuild(prunable, without("stem"))
    kept = rebuild(prunable, Plan({name: np.array([0])}))
    assert [*kept.state_dict()] == [*prunable.model.state_dict()]


def test_a_wrong_rebuild_is_seen() -> None:
    prunable = traced("basic")
    plan = without(prunable.blocks[0].name)
    small = rebuild(prunable, plan)
    assert verify(prunable, plan, small).right
    small.get_submodule("blocks.0").bn2 = _One()
    assert not verify(prunable, plan, small).right


class _One(nn.Module):
    def forward(self, x: Tensor) -> float:
        return 1.0


def test_resnet20_without_two_blocks() -> None:
    from autoprune.zoo import make_model

    prunable = trace(make_model("resnet20", classes=10, in_channels=1), torch.zeros(1, 1, 28, 28))
    names = [block.name for block in prunable.blocks]
    assert names == [f"layer{stage}.{block}:branch" for stage in (1, 2, 3) for block in range(stage > 1, 3)]
    plan = without(names[1], names[-1], keep=random_plan(prunable, 0))
    small = rebuild(prunable, plan)
    assert verify(prunable, plan, small) <= 1e-9
    cost = prunable.cost(plan.widths)
    assert (cost.macs, cost.params) == counted(small, (torch.zeros(1, 1, 28, 28),))
    assert not [name for name in small.state_dict() if name.startswith(("layer1.1", "layer3.2"))]


def test_a_block_with_a_stride_keeps_its_branch() -> None:
    assert [block.name for block in trace(Net(Basic(8, 8, 2)), BLOCK_CASES["basic"].inputs).blocks] == []


def test_a_plan_from_widths_drops_blocks_and_leaves_out_the_groups_inside() -> None:
    prunable = traced("basic")
    first, second = (block.name for block in prunable.blocks)
    widths = {"stem": 4, "blocks.0.conv1": 2, "blocks.1.conv1": 3, first: 0, second: 1}
    plan = make_plan(prunable, widths)
    assert plan.widths == {"stem": 4, "blocks.1.conv1": 3, first: 0}
    assert plan.dropped == (first,)
    assert prunable.cost(widths) == prunable.cost(plan.widths)
    with pytest.raises(PlanError, match=r'Block "blocks\.0:branch": got 2, expected 0 to drop it'):
        make_plan(prunable, {first: 2})
    with pytest.raises(PlanError, match=r'no such group\. Did you mean "blocks\.0:branch"'):
        make_plan(prunable, {"block.0:branch": 0})
