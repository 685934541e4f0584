"""Rankings as a search measures, writes and reads them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autoprune.config import load_config
from autoprune.criteria import CRITERIA
from autoprune.data import load
from autoprune.run import Dense
from autoprune.run._problem import Problem, pose
from autoprune.run._ranking import decode_ranking, encode_ranking, rank_channels
from autoprune.train import Task
from autoprune.zoo import make_model


@pytest.fixture(scope="module")
def posed() -> tuple[Dense, Problem]:
    torch.manual_seed(0)
    data = load("digits", batch_size=64, val_fraction=0.2)
    dense = Dense(make_model("digits_resnet", 10, 1).eval(), data, Task(), "cpu")
    return dense, pose(dense, load_config({"budget": {"flops": "40%"}}))


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_search_ranks_by_every_criterion_and_reads_the_same_order_again(
    posed: tuple[Dense, Problem], criterion: str
) -> None:
    dense, problem = posed
    measured = rank_channels(dense, problem, criterion, 0)
    read = decode_ranking(encode_ranking(measured))
    assert read.keys() == {group.name for group in problem.prunable.groups if group.frozen is None}
    for name, values in measured.items():
        order = np.argsort(-values, kind="stable")
        np.testing.assert_array_equal(np.argsort(-read[name], kind="stable"), order)
