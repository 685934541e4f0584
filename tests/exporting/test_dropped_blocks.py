"""Models without some of their blocks, saved and exported: nothing of the branches is left."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from autoprune.criteria import make_plan
from autoprune.errors import CheckpointError
from autoprune.exporting import RECIPE, export, load_pruned, read_recipe, save_pruned
from autoprune.graph import Plan
from autoprune.rebuilding import rebuild
from autoprune.tracing import trace
from tests.residual import BLOCK_CASES, BlockCase, Net


def cut(case: BlockCase, blocks: int | None = None) -> tuple[nn.Module, Plan]:
    """Return the net without some blocks, by default without any."""
    torch.manual_seed(0)
    prunable = trace(case.make(), case.inputs)
    plan = make_plan(
        prunable, {prunable.searchable[0].name: 4} | {block.name: 0 for block in prunable.blocks[:blocks]}
    )
    return rebuild(prunable, plan).eval(), plan


@pytest.mark.parametrize("name", ["basic", "projection", "next", "twice"])
def test_a_saved_model_is_loaded_without_its_blocks(name: str, tmp_path: Path) -> None:
    case = BLOCK_CASES[name]
    small, plan = cut(case)
    save_pruned(small, plan, tmp_path)
    loaded = load_pruned(tmp_path, case.make)
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(loaded(images), small(images))
    assert [*loaded.state_dict()] == [*small.state_dict()]
    assert read_recipe(tmp_path).plan == plan
    assert [each.path for each in read_recipe(tmp_path).dropped] == [
        path for _, paths in case.blocks.values() for path in paths
    ]


def test_only_recipes_with_dropped_blocks_have_a_new_version(tmp_path: Path) -> None:
    for blocks, version in ((0, 1), (1, 2)):
        small, plan = cut(BLOCK_CASES["basic"], blocks)
        save_pruned(small, plan, tmp_path)
        values = json.loads((tmp_path / RECIPE).read_text())
        assert values["version"] == version
        assert ("dropped" in values) == (blocks > 0)


def test_another_architecture_and_a_wrong_recipe_are_refused(tmp_path: Path) -> None:
    small, plan = cut(BLOCK_CASES["basic"])
    save_pruned(small, plan, tmp_path)
    with pytest.raises(CheckpointError, match=r"has no module blocks\.0\.conv1, which the stored one leaves"):
        load_pruned(tmp_path, Net)
    values = json.loads((tmp_path / RECIPE).read_text())
    values["dropped"][0][1] = "everything"
    (tmp_path / RECIPE).write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"dropped\.0\.gives"):
        load_pruned(tmp_path, BLOCK_CASES["basic"].make)


@pytest.mark.parametrize(
    "name", ["basic", *(pytest.param(name, marks=pytest.mark.slow) for name in ("inverted", "encoder"))]
)
def test_nothing_of_a_dropped_branch_is_in_an_onnx_file(name: str, tmp_path: Path) -> None:
    case = BLOCK_CASES[name]
    counted = []
    for blocks in (0, None):
        small, _ = cut(case, blocks)
        export(small, tmp_path / "small.onnx")  # compares the outputs
        counted.append(Counter(node.op_type for node in onnx.load(tmp_path / "small.onnx").graph.node))
    whole, left = counted
    assert whole["Conv"] + whole["MatMul"] > left["Conv"] + left["MatMul"] == 1
    assert left["Add"] == left["Expand"] == 0
    assert left.total() < whole.total()


def test_the_layer_scale_of_a_dropped_branch_stays_a_parameter(tmp_path: Path) -> None:
    small, _ = cut(BLOCK_CASES["next"])
    assert "blocks.0.scale" in small.state_dict()
    export(small, tmp_path / "small.pt2", "pt2")
