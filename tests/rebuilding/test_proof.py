"""The proof: right rebuilds agree to rounding, planted faults do not pass."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v2  # type: ignore[import-untyped]  # ships no types
from torchvision.ops import FrozenBatchNorm2d  # type: ignore[import-untyped]  # as above

from autoprune.criteria import make_plan
from autoprune.data import seeded
from autoprune.errors import VerificationError
from autoprune.graph import ChannelGroup, Plan, Prunable
from autoprune.rebuilding import rebuild, verify
from autoprune.rebuilding._proof import TOLERANCE, Proof
from autoprune.tracing import trace
from experiments.coverage.checks import age
from tests.cost.test_formula import random_plan
from tests.models import CASES, HandAttention, Residual, image


@pytest.mark.parametrize("name", CASES)
def test_rebuilt_equals_masked_reference(name: str) -> None:
    case = CASES[name]
    prunable = trace(case.make(), case.inputs)
    for seed in range(3):
        plan = random_plan(prunable, seed, crossing=False)
        assert verify(prunable, plan, rebuild(prunable, plan), seed=seed) <= TOLERANCE


@pytest.mark.parametrize("name", CASES)
def test_all_groups_narrowed_are_right_with_those_that_cross_kept_whole(name: str) -> None:
    case = CASES[name]
    prunable = trace(case.make(), case.inputs)
    plan = random_plan(prunable, 0)
    proof = verify(prunable, plan, rebuild(prunable, plan))
    assert np.isfinite(proof)
    assert proof.right


def test_crossing_a_norm_is_seen_as_a_difference() -> None:
    prunable = trace(CASES["norms"].make(), image())
    plan = Plan({"fc": np.arange(4)})
    assert prunable.group("fc").crosses == "ln (layer_norm)"
    proof = verify(prunable, plan, rebuild(prunable, plan))
    assert proof > TOLERANCE
    assert proof.right
    assert proof.crossing == ("fc",)
    assert proof.kept_whole <= TOLERANCE
    assert str(proof).startswith("exact except for 1 group that crosses a normalisation: ")


def test_swapped_channels_are_caught() -> None:
    prunable = trace(Residual(), image())
    plan = Plan({"inner1": np.array([0, 2, 3])})
    small = rebuild(prunable, plan)
    assert isinstance(small, Residual)
    with torch.no_grad():
        small.inner1.weight[[0, 1]] = small.inner1.weight[[1, 0]]
    with pytest.raises(VerificationError, match=r"inner1\.weight: its values are not the slice"):
        verify(prunable, plan, small)


def test_a_forgotten_bias_is_caught() -> None:
    prunable = trace(Residual(), image())
    plan = Plan({"inner1": np.array([0, 2, 3])})
    small = rebuild(prunable, plan)
    assert isinstance(small, Residual)
    small.inner1.bias = None
    with pytest.raises(VerificationError, match=r"inner1\.bias: is in only one of the two models"):
        verify(prunable, plan, small)


def test_a_wrong_head_count_is_caught() -> None:
    prunable = trace(HandAttention(), (torch.zeros(1, 7, 5),))
    plan = Plan({"q": np.array([0, 2]), "v": np.array([1, 3])})
    small = rebuild(prunable, plan)
    assert isinstance(small, HandAttention)
    assert verify(prunable, plan, small) <= TOLERANCE
    small.heads = 4
    assert verify(prunable, plan, small) > 1e-3


def test_another_plans_model_is_caught() -> None:
    prunable = trace(Residual(), image())
    small = rebuild(prunable, Plan({"inner1": np.arange(3)}))
    with pytest.raises(
        VerificationError, match=r"inner1\.weight: got shape \[3, 8, 1, 1\], expected \[4, 8, 1, 1\]"
    ):
        verify(prunable, Plan({"inner1": np.arange(4)}), small)


def test_checks_of_a_tensors_type_are_no_part_of_the_reference() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)
            self.table = nn.Parameter(torch.ones(5, 8))

        def forward(self, x: Tensor) -> Tensor:
            distance = torch.arange(2) * 2.0
            distance += 1
            return self.b(self.a(x) + self.table[distance.long()])  # type: ignore[no-any-return]  # as modules do

    prunable = trace(Positions(), torch.zeros(1, 2, 4))
    plan = Plan({"a": np.arange(3)})
    assert verify(prunable, plan, rebuild(prunable, plan)) <= TOLERANCE


class Bottlenecks(nn.Module):
    """Bottlenecks with BatchNorm and ReLU6, as in MobileNetV2."""

    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.blocks = nn.Sequential(*(self._block() for _ in range(blocks)))
        self.head = nn.Linear(12, 5)

    @staticmethod
    def _block() -> nn.Module:
        layers = (nn.Conv2d(12, 24, 1), nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.Conv2d(24, 12, 1))
        normed = [nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU6()) for layer in layers]
        return nn.Sequential(*normed[:2], *normed[2][:2])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))  # type: ignore[no-any-return]  # as above


def trained(model: nn.Module) -> nn.Module:
    """Return the model with statistics as training leaves them."""
    assert age(model, seed=1)
    return model


@pytest.mark.slow  # test_coverage proves another network with trained statistics
def test_statistics_as_training_leaves_them_raise_no_alarm() -> None:
    with seeded(0):
        model = trained(mobilenet_v2())
    prunable = trace(model, image(size=64))
    for ratio in (0.9, 0.6):
        plan = make_plan(prunable, ratio)
        assert verify(prunable, plan, rebuild(prunable, plan)) <= 1e-12


class FrozenNorm(nn.Module):
    """Normalisations whose scale, offset and statistics are all buffers, as detection backbones have."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, 8, 1), FrozenBatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 8, 1), FrozenBatchNorm2d(8), nn.ReLU()),
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean((2, 3)))  # type: ignore[no-any-return]  # as above


def rolled(prunable: Prunable, group: ChannelGroup, number: int) -> Prunable:
    """Return the prunable with one wrong index: that of a member of the group, rolled by one channel."""
    members = list(group.members)
    members[number] = dataclasses.replace(members[number], index=np.roll(members[number].index, 1, axis=0))
    wrong = dataclasses.replace(group, members=tuple(members))
    groups = tuple(wrong if each is group else each for each in prunable.groups)
    return dataclasses.replace(prunable, groups=groups)


@pytest.mark.parametrize("make", [Bottlenecks, FrozenNorm], ids=["BatchNorm", "frozen norm"])
def test_one_wrong_index_is_caught_in_every_parameter_and_buffer(make: type[nn.Module]) -> None:
    """Rebuilding and slicing agree on the wrong index, so the outputs alone can show it."""
    prunable = trace(trained(make()), image())
    tried = set()
    for group in prunable.searchable:
        plan = Plan({group.name: np.arange(group.width // 2)})
        for number, member in enumerate(group.members):
            mutant = rolled(prunable, group, number)
            assert verify(mutant, plan, rebuild(mutant, plan)) > 1e-5, member.parameter
            tried.add(member.parameter)
    narrowed = {name for name, tensor in prunable.model.state_dict().items() if tensor.ndim}
    assert narrowed - tried == {"head.bias"}


def test_a_wrong_number_is_caught_in_groups_that_cross_a_normalisation() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.norm, self.attention = nn.Linear(5, 8), nn.LayerNorm(8), HandAttention()
            self.into = nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(self.into(self.norm(self.fc(x))))  # type: ignore[no-any-return]  # as above

    prunable = trace(Normed(), (torch.zeros(1, 7, 5),))
    plan = Plan({"fc": np.arange(4), "attention.q": np.array([0, 2]), "attention.v": np.array([1, 3])})
    small = rebuild(prunable, plan)
    assert isinstance(small, Normed)
    assert verify(prunable, plan, small).right
    small.attention.heads = 4
    proof = verify(prunable, plan, small)
    assert not proof.right
    assert str(proof).startswith("wrong: ")


def test_a_proof_is_a_float_that_prints_its_verdict() -> None:
    exact = Proof(1.5e-15)
    wrong = Proof(0.25)
    crossed = Proof(0.25, ["a", "b", "c", "d"], 3e-15)
    assert str(exact) == "exact: the largest relative difference is 1.5e-15"
    assert f"{wrong}" == "wrong: the largest relative difference is 2.5e-01, expected at most 1e-09"
    assert str(crossed) == (
        "exact except for 4 groups that cross a normalisation: the largest relative difference is 3.0e-15 "
        "with a, b, c and 1 more kept whole, 2.5e-01 with all narrowed"
    )
    assert str(Proof(0.25, ["a"], 0.5)) == (
        "wrong: the largest relative difference is 5.0e-01 with a kept whole, expected at most 1e-09"
    )
    assert repr(exact) == f"<{exact}>"
    assert [proof.right for proof in (exact, wrong, crossed, Proof(float("nan")))] == [
        True,
        False,
        True,
        False,
    ]
    assert f"{crossed:.1e}" == "2.5e-01"
    assert json.dumps([wrong]) == "[0.25]"
    for again in (pickle.loads(pickle.dumps(crossed)), copy.deepcopy(crossed)):
        assert (again, again.crossing, again.kept_whole) == (0.25, ("a", "b", "c", "d"), 3e-15)


class Breaks(Residual):
    """Raises in its forward pass once it is broken."""

    broken: BaseException | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.broken is not None:
            raise self.broken
        return super().forward(x)


@pytest.mark.parametrize(
    ("broken", "said"),
    [(RuntimeError("no such\nkernel"), "RuntimeError: no such kernel"), (SystemExit(0), "SystemExit: 0")],
)
def test_a_small_model_that_does_not_run_is_one_line(broken: BaseException, said: str) -> None:
    prunable = trace(Breaks(), image())
    plan = Plan({"inner1": np.array([0, 2, 3])})
    small = rebuild(prunable, plan)
    assert isinstance(small, Breaks)
    small.broken = broken
    with pytest.raises(VerificationError, match=rf"the small model's forward pass failed .*: {said}$"):
        verify(prunable, plan, small)
