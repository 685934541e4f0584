"""Memory of candidates: predicted bytes equal those of the rebuilt model, saved and running."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.fx import Interpreter, Node
from torch.utils import _pytree as pytree

from autoprune.cost.memory import peak_memory_bytes, size_bytes
from autoprune.exporting import save_pruned
from autoprune.graph import Plan, Prunable
from autoprune.graph.capture import ExampleInputs, capture
from autoprune.rebuilding import rebuild
from autoprune.tracing import trace
from autoprune.zoo import make_model
from tests.cost.test_formula import random_plan
from tests.models import CASES, image
from tests.residual import BLOCK_CASES


def storages(values: object) -> dict[int, int]:
    """Return {storage: its bytes} of all tensors in a tree."""
    tensors = [leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, Tensor)]
    return {each.untyped_storage()._cdata: each.untyped_storage().nbytes() for each in tensors}


class Watched(Interpreter):
    """Runs a graph with real tensors, drops each after its last use, and counts what lives at once."""

    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.peak = 0
        self.resident: dict[int, int] = {}

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if n.op == "placeholder":
            self.resident |= storages(result)
        else:
            used = {node: value for node, value in self.env.items() if node.users}
            alive = self.resident | storages(list(used.values())) | storages(result)
            self.peak = max(self.peak, sum(alive.values()))
        return result


def measured(model: nn.Module, inputs: ExampleInputs) -> tuple[int, int]:
    """Return (bytes of parameters and buffers, bytes at the fullest moment of a forward)."""
    state = storages([*model.parameters(), *model.buffers()])
    captured = capture(model, inputs, training=False)
    watched = Watched(captured.program.graph_module)
    tensors = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    leaves = iter(pytree.tree_leaves(inputs))
    given: list[object] = []
    for node in captured.nodes:
        if node.op == "placeholder":
            name = captured.states.get(node.name)
            known = tensors[name] if name is not None else captured.constants.get(node.name)
            given.append(next(leaves) if known is None else known)
    with torch.no_grad():
        watched.run(*given)
    assert watched.resident.items() >= state.items()
    return sum(state.values()), watched.peak


def predicted(prunable: Prunable, widths: Mapping[str, int]) -> tuple[int, int]:
    row = np.array([[widths.get(group.name, group.width) for group in prunable.groups]], dtype=np.int64)
    return int(size_bytes(prunable)(row)[0]), int(peak_memory_bytes(prunable)(row)[0])


@pytest.mark.parametrize("name", CASES)
def test_predicted_bytes_equal_those_of_the_rebuilt_model(name: str) -> None:
    case = CASES[name]
    prunable = trace(case.make(), case.inputs)
    plan = random_plan(prunable, 0)
    small = rebuild(prunable, plan).eval()
    assert predicted(prunable, plan.widths) == measured(small, prunable.example_inputs)


def test_a_net_that_is_searched_costs_what_it_is_saved_with(tmp_path: Path) -> None:
    prunable = trace(make_model("digits_resnet", 10, 1), torch.zeros(1, 1, 8, 8))
    assert predicted(prunable, {}) == measured(prunable.model.eval(), prunable.example_inputs)
    plan = random_plan(prunable, 1)
    small = rebuild(prunable, plan).eval()
    size, peak = measured(small, prunable.example_inputs)
    assert predicted(prunable, plan.widths) == (size, peak)
    save_pruned(small, plan, tmp_path)
    written = (tmp_path / "model.safetensors").stat().st_size
    header = written - size
    assert 0 < header < 200 * len(small.state_dict())  # names, shapes and offsets, as text


def test_closed_form() -> None:
    """A map of 4 x 4: the input, what the convolution made and what the ReLU makes of it live at once."""
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    prunable = trace(net, torch.zeros(1, 3, 4, 4))
    for width in (8, 5, 1):
        size, peak = predicted(prunable, {"0": width})
        assert size == 4 * ((3 * width + width) + (2 * width + 2))
        assert peak == size + 4 * 16 * max(3 + 2 * width, 3 + width + 2)


class Reversed(nn.Module):
    """The halves of a map change places: what each half holds depends on which channels are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(torch.cat([x[:, 5:], x[:, :5].clone()], 1))  # type: ignore[no-any-return]  # as modules do


def test_a_part_of_a_group_counts_as_whole() -> None:
    prunable = trace(Reversed(), image())
    assert predicted(prunable, {}) == measured(Reversed().eval(), prunable.example_inputs)
    for group in prunable.searchable:
        for width in range(1, group.width + 1):
            plan = Plan({group.name: np.arange(width)})
            size, peak = predicted(prunable, plan.widths)
            true_size, true_peak = measured(rebuild(prunable, plan).eval(), prunable.example_inputs)
            assert size == true_size
            assert peak >= true_peak


def test_bytes_never_fall_if_a_width_grows_and_many_equal_one_by_one() -> None:
    prunable = trace(make_model("digits_resnet", 10, 1), torch.zeros(1, 1, 8, 8))
    full = np.array([group.width for group in prunable.groups], dtype=np.int64)
    free = [prunable.position[group.name] for group in prunable.searchable]
    rows = np.repeat(full[None], 50, axis=0)
    rows[:, free] = np.random.default_rng(0).integers(1, full[free] + 1, size=(50, len(free)))
    for measure in (size_bytes(prunable), peak_memory_bytes(prunable)):
        many = measure(rows)
        assert many.tolist() == [int(measure(row[None])[0]) for row in rows]
        for column in free:
            wider = rows.copy()
            wider[:, column] = np.minimum(rows[:, column] + 1, full[column])
            assert (measure(wider) >= many).all()


@pytest.mark.parametrize("name", [name for name, case in BLOCK_CASES.items() if case.blocks])
def test_bytes_of_models_without_blocks(name: str) -> None:
    case = BLOCK_CASES[name]
    prunable = trace(case.make(), case.inputs)
    plan = Plan({block.name: np.empty(0, np.int64) for block in prunable.blocks})
    row = prunable.row(plan.widths)
    size, peak = measured(rebuild(prunable, plan), case.inputs)
    assert size_bytes(prunable)(row)[0] == size
    # The zero that the layer scale multiplies has 32 bytes. A sum in place counts from the end of its branch
    # on, while the input of a projection still lives: 2,048 bytes.
    below, above = {"next": (32, 0), "projection": (0, 2048)}.get(name, (0, 0))
    assert peak - below <= peak_memory_bytes(prunable)(row)[0] <= peak + above
    whole = prunable.row({})
    for measure in (size_bytes(prunable), peak_memory_bytes(prunable)):
        assert measure(whole)[0] == measure(whole[:, : len(prunable.groups)])[0]
