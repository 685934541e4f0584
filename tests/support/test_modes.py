"""Blocks that draw numbers or change modes leave both as they were."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from autoprune.support.modes import draws_kept


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_draws_in_the_block_change_no_later_one(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    model = nn.Linear(2, 2).to(device)
    torch.manual_seed(0)
    expected = torch.rand(3, device=device)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns if it starts CUDA on several GPUs
        with draws_kept(model):
            torch.rand(5, device=device)
    assert torch.equal(torch.rand(3, device=device), expected)
