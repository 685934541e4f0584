"""The plan: keep indices become sorted integers, and other values are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from autoprune.errors import PlanError
from autoprune.graph import Plan


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_keep_indices_are_sorted_and_read_only_whatever_integers_they_were(dtype: str) -> None:
    given: Any = np.array([5, 0, 3], dtype=dtype)
    plan = Plan({"conv": given})
    np.testing.assert_array_equal(plan["conv"], [0, 3, 5])
    assert plan["conv"].dtype == np.int64
    assert not plan["conv"].flags.writeable
    assert given.flags.writeable
    assert plan.widths == {"conv": 3}
    assert plan == Plan({"conv": np.array([0, 3, 5])})
    ranked = Plan({"conv": np.array([3, 5, 0])}, {"conv": np.array([5, 0, 3, 1, 2, 4])})
    assert ranked == plan
    assert hash(ranked) == hash(plan)


@pytest.mark.parametrize("order", [[0, 5, 1, 2, 4, 3], [5, 0, 3], [5, 0, 3, 3, 3, 3]])
def test_a_ranking_orders_all_channels_with_the_kept_ones_first(order: list[int]) -> None:
    with pytest.raises(
        PlanError, match="conv: got a ranking that is no order of all channels with the 3 kept"
    ):
        Plan({"conv": np.array([0, 3, 5])}, {"conv": np.array(order)})


@pytest.mark.parametrize("mask", [np.array([True, False, True, True]), torch.tensor([True, False, True])])
def test_a_mask_is_refused_with_what_to_pass(mask: Any) -> None:
    with pytest.raises(PlanError, match=r"conv: got a bool mask\. Pass np.flatnonzero\(mask\)"):
        Plan({"conv": mask})


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (np.array([0.0, 1.9]), r"conv: got a keep index of float64 \[2\], expected integers"),
        ([], r"conv: got a keep index of float64 \[0\], expected integers"),
        (np.array([[0, 1], [2, 3]]), r"conv: got a keep index of int64 \[2, 2\], expected integers"),
        (np.array(3), r"conv: got a keep index of int64 \[\], expected integers"),
        (np.array([0, 4, 4, 5]), "conv: got a keep index that names channel 4 more than once"),
    ],
)
def test_what_would_be_cast_or_merged_is_refused(index: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Plan({"conv": index})


def test_a_plan_prints_its_first_widths() -> None:
    plan = Plan({f"conv{number}": np.arange(100 + number) for number in range(9)})
    assert repr(plan) == "<Plan of 9 groups: conv0: 100, conv1: 101, conv2: 102, conv3: 103, 5 more>"
    assert str(Plan({"fc": np.arange(3)})) == "<Plan of 1 group: fc: 3>"
    assert repr(Plan({})) == "<Plan of 0 groups>"


def test_a_second_plan_is_relative_to_the_model_that_the_first_leaves() -> None:
    first = Plan({"a": np.array([1, 3, 5, 7]), "b": np.array([0, 2])})
    second = Plan({"a": np.array([0, 3]), "c": np.array([4])})
    composed = first.then(second)
    expected = {"a": np.array([1, 7]), "b": np.array([0, 2]), "c": np.array([4])}
    assert composed == Plan(expected)
    assert Plan({}).then(first) == first.then(Plan({})) == first
    third = Plan({"a": np.array([1]), "b": np.array([1])})
    assert first.then(second).then(third) == first.then(second.then(third))


def test_a_second_plan_for_another_model_is_refused() -> None:
    with pytest.raises(PlanError, match=r"a: got keep index \[0, 2\] in a second pass, expected some of"):
        Plan({"a": np.array([1, 3])}).then(Plan({"a": np.array([0, 2])}))
