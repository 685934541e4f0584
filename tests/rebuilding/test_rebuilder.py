"""Rebuilding: whole plans are bit-identical, small models train, the dense one is never touched."""

from __future__ import annotations

import copy
import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from autoprune.errors import PlanError, TraceError
from autoprune.graph import Plan
from autoprune.rebuilding import clone_structure, rebuild
from autoprune.tracing import trace
from tests.cost.test_formula import random_plan
from tests.models import CASES, Case, Depthwise, Residual, Twice, image


def inputs_of(case: Case, batch: int) -> tuple[tuple[object, ...], dict[str, object]]:
    """Return random positional and keyword inputs of another batch size."""
    torch.manual_seed(1)
    random = pytree.tree_map(lambda value: torch.randn(batch, *value.shape[1:]), case.inputs)
    return ((), random) if isinstance(random, dict) else (random, {})


def leaves(outputs: object) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]


@pytest.mark.parametrize("name", CASES)
def test_keeping_all_is_bit_identical(name: str) -> None:
    case = CASES[name]
    model = case.make().eval()
    prunable = trace(model, case.inputs)
    same = rebuild(prunable, Plan({group.name: np.arange(group.width) for group in prunable.groups}))
    args, kwargs = inputs_of(case, 3)
    for mine, theirs in zip(leaves(same(*args, **kwargs)), leaves(model(*args, **kwargs)), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("name", CASES)
def test_small_model_trains_and_dense_stays(name: str) -> None:
    case = CASES[name]
    model = case.make()
    prunable = trace(model, case.inputs)
    before = copy.deepcopy(model.state_dict())
    small = rebuild(prunable, random_plan(prunable, 0)).train()
    assert type(small) is type(model)
    optimizer = torch.optim.SGD(small.parameters(), 1e-4)
    args, kwargs = inputs_of(case, 3)
    for _ in range(2):
        optimizer.zero_grad()
        sum(leaf.square().sum() for leaf in leaves(small(*args, **kwargs))).backward()  # type: ignore[union-attr]  # never empty
        optimizer.step()
    small.eval()
    assert all(torch.isfinite(leaf).all() for leaf in leaves(small(*args, **kwargs)))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_structure_survives() -> None:
    model = Residual().train()
    model.stem.weight.requires_grad_(False)
    model.bn.eval()
    model.tag = {"list": [1, 2]}  # type: ignore[assignment]  # a plain attribute of the user's own
    prunable = trace(model, image())
    small = rebuild(prunable, Plan({"stem": np.array([0, 2, 5])}))
    assert isinstance(small, Residual)
    assert small.stem.weight.requires_grad is False
    assert small.bn.training is False
    assert small.training is True
    assert small.tag == model.tag
    assert small.tag is not model.tag
    assert (small.stem.out_channels, small.bn.num_features, small.head.in_features) == (3, 3, 3)
    assert torch.equal(small.stem.weight, model.stem.weight[[0, 2, 5]])
    assert torch.equal(small.head.weight, model.head.weight[:, [0, 2, 5]])
    again = copy.deepcopy(small)
    again.load_state_dict(small.state_dict())


def test_grouped_convolutions_lose_whole_groups() -> None:
    prunable = trace(Depthwise(), image())
    small = rebuild(prunable, Plan({"up": np.array([1, 4]), "middle": np.array([0, 1, 3])}))
    assert isinstance(small, Depthwise)
    assert (small.deep.groups, small.deep.in_channels, small.deep.out_channels) == (2, 2, 4)
    assert (small.grouped.groups, small.grouped.in_channels, small.grouped.out_channels) == (3, 12, 6)


def test_shared_tensors_and_modules_stay_shared() -> None:
    prunable = trace(Twice(), torch.zeros(1, 4))
    small = rebuild(prunable, Plan({"up": np.array([0, 1])}))
    assert isinstance(small, Twice)
    assert small.left.weight is small.right.weight
    assert small.left.weight.shape == (2, 4)


def test_shares_no_memory_with_the_dense_model() -> None:
    model = Residual()
    small = rebuild(trace(model, image()), Plan({"stem": np.arange(8), "inner1": np.arange(2)}))
    with torch.no_grad():
        for tensor in small.state_dict().values():
            tensor.zero_()
    assert all(parameter.abs().sum() > 0 for parameter in model.parameters() if parameter.ndim > 1)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"stemm": [0]}, 'stemm: no such channel group. Did you mean "stem"'),
        ({"stem": []}, r"stem: got keep index \[\], expected at least one of 0..7"),
        ({"stem": [8]}, r"stem: got keep index \[8\], expected at least one of 0..7"),
        ({"head": [0]}, r"head: got 1 channels, expected 5: the group is frozen \(the model's output\)"),
    ],
)
def test_plans_that_do_not_fit_are_refused(keep: dict[str, list[int]], message: str) -> None:
    prunable = trace(Residual(), image())
    with pytest.raises(PlanError, match=message):
        rebuild(prunable, Plan({name: np.array(index, dtype=np.int64) for name, index in keep.items()}))


def test_attributes_that_modules_share_stay_shared() -> None:
    model = Residual()
    notes: list[int] = []
    model.stem.notes, model.head.notes = notes, notes  # type: ignore[assignment]  # plain attributes
    small = rebuild(trace(model, image()), Plan({"stem": np.arange(4)}))
    assert isinstance(small, Residual)
    assert small.stem.notes is small.head.notes
    assert small.stem.notes is not model.stem.notes


def test_channels_last_survives() -> None:
    model = Residual().to(memory_format=torch.channels_last)
    small = rebuild(trace(model, image()), Plan({"stem": np.arange(4), "inner1": np.arange(3)}))
    assert isinstance(small, Residual)
    assert small.stem.weight.is_contiguous(memory_format=torch.channels_last)


def test_what_changes_after_tracing_is_what_is_rebuilt() -> None:
    model = Residual()
    prunable = trace(model, image())
    plan = Plan({"stem": np.array([1, 4])})
    rebuild(prunable, plan)
    model.eval()
    model.bn.eps = 0.5
    model.stem.weight = nn.Parameter(torch.ones_like(model.stem.weight), requires_grad=False)
    small = rebuild(prunable, plan)
    assert isinstance(small, Residual)
    assert (small.training, small.bn.training, small.bn.eps) == (False, False, 0.5)
    assert torch.equal(small.stem.weight, torch.ones(2, 3, 3, 3))
    assert small.stem.weight.requires_grad is False


def test_hooks_survive_on_both() -> None:
    calls: list[str] = []
    model = Residual()
    model.head.register_forward_hook(lambda module, *_: calls.append(type(module).__name__))
    small = rebuild(trace(model, image()), Plan({"stem": np.arange(4)}))
    calls.clear()
    small(*image())
    assert calls == ["Linear"]


def test_a_module_with_its_own_way_of_copying() -> None:
    class Counting(nn.Conv2d):
        copies = 0

        def __deepcopy__(self, memo: dict[int, object]) -> Counting:
            Counting.copies += 1
            clone = Counting(self.in_channels, self.out_channels, 1)
            memo[id(self)] = clone
            for name, parameter in self.named_parameters():
                clone.register_parameter(name, memo[id(parameter)])  # type: ignore[arg-type]  # a Parameter
            return clone

    model = nn.Sequential(Counting(3, 8, 1), nn.Conv2d(8, 5, 1))
    small = rebuild(trace(model, image()), Plan({"0": np.arange(4)}))
    assert Counting.copies > 0
    assert small(*image()).shape == (1, 5, 8, 8)


class Holder:
    """Holds a lock, which Python cannot copy, and a module."""

    def __init__(self, module: nn.Module | None) -> None:
        self.lock, self.module = threading.Lock(), module


def test_only_the_parts_of_an_attribute_that_python_cannot_copy_are_shared() -> None:
    model: Any = nn.Sequential(nn.Conv2d(3, 8, 1))
    tensor, holder = torch.ones(2), Holder(None)
    model.cache = {"held": [holder, (holder, tensor)], "scale": tensor, "weight": model[0].weight}
    model.cache["itself"] = model.cache
    cut = nn.Parameter(torch.zeros(4, 3, 1, 1))
    clone: Any = clone_structure(model, {id(model[0].weight): cut, id(model[0].bias): None})
    cache = clone.cache
    assert cache is not model.cache
    assert cache["itself"] is cache
    assert cache["held"][0] is cache["held"][1][0] is holder
    assert cache["weight"] is clone[0].weight is cut
    assert cache["held"][1][1] is cache["scale"] is not tensor
    assert torch.equal(cache["scale"], tensor)


def test_a_module_that_python_cannot_copy_is_not_shared() -> None:
    model: Any = nn.Sequential(nn.Conv2d(3, 8, 1))
    model.held = {"by": Holder(model[0])}
    with pytest.raises(
        TraceError, match=r"^model: Sequential\.held holds .*lock.*\. Give Holder a method __deepcopy__"
    ):
        clone_structure(model, {id(parameter): parameter for parameter in model.parameters()})


def test_an_attribute_that_python_cannot_copy_is_shared() -> None:
    class Locked(Residual):
        def __init__(self) -> None:
            super().__init__()
            self.guards = [threading.Lock()]

    model = Locked()
    small = rebuild(trace(model, image()), Plan({"stem": np.arange(4)}))
    assert isinstance(small, Locked)
    assert small.guards[0] is model.guards[0]
    assert small.guards is not model.guards
    assert small.stem.out_channels == 4
