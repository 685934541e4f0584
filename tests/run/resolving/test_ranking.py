"""Rankings as a search measures, writes and reads them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autoprune.criteria import CRITERIA
from autoprune.data import load
from autoprune.execution import Setting
from autoprune.run import Dense
from autoprune.run._resolving.ranking import decode_ranking, encode_ranking, rank_channels
from autoprune.run._resolving.resolve import trace_run
from autoprune.run._resolving.run import Run
from autoprune.run._resolving.spec import RunSpec
from autoprune.training import Task
from autoprune.zoo import make_model


@pytest.fixture(scope="module")
def run() -> Run:
    torch.manual_seed(0)
    data = load("digits", batch_size=64, val_fraction=0.2)
    dense = Dense(make_model("digits_resnet", 10, 1).eval(), data, Task(), "cpu")
    return trace_run(dense, RunSpec.of({"budget": {"flops": "40%"}}), Setting("cpu"))


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_search_ranks_by_every_criterion_and_reads_the_same_order_again(run: Run, criterion: str) -> None:
    measured = rank_channels(run, criterion)
    read = decode_ranking(encode_ranking(measured))
    assert read.keys() == {group.name for group in run.prunable.groups if group.frozen is None}
    for name, values in measured.items():
        order = np.argsort(-values, kind="stable")
        np.testing.assert_array_equal(np.argsort(-read[name], kind="stable"), order)
