"""The proof: right rebuilds agree to rounding, planted faults do not pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import VerificationError
from autoprune.graph import Plan
from autoprune.rebuild import rebuild
from autoprune.tracing import trace
from autoprune.verify import TOLERANCE, verify
from tests.models import CASES, HandAttention, Residual, image
from tests.test_cost import random_plan


@pytest.mark.parametrize("name", CASES)
def test_rebuilt_equals_masked_reference(name: str) -> None:
    case = CASES[name]
    prunable = trace(case.make(), case.inputs)
    for seed in range(3):
        plan = random_plan(prunable, seed, crossing=False)
        assert verify(prunable, plan, rebuild(prunable, plan), seed=seed) <= TOLERANCE


@pytest.mark.parametrize("name", CASES)
def test_all_groups_narrowed_run_and_are_the_named_slices(name: str) -> None:
    case = CASES[name]
    prunable = trace(case.make(), case.inputs)
    plan = random_plan(prunable, 0)
    assert np.isfinite(verify(prunable, plan, rebuild(prunable, plan)))


def test_crossing_a_norm_is_seen_as_a_difference() -> None:
    prunable = trace(CASES["norms"].make(), image())
    plan = Plan({"fc": np.arange(4)})
    assert prunable.group("fc").crosses == "ln (layer_norm)"
    assert verify(prunable, plan, rebuild(prunable, plan)) > TOLERANCE


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
    with pytest.raises(VerificationError, match=r"inner1\.bias: is in one of the two models only"):
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
        VerificationError, match=r"inner1\.weight: shape \[3, 8, 1, 1\], the plan gives \[4, 8, 1, 1\]"
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
