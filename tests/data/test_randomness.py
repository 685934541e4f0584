"""Random states are restored on machines with fewer GPUs than they were taken on."""

from __future__ import annotations

import torch

from autoprune.data import random_states, restore_random_states


def test_states_of_gpus_that_are_not_here_are_left_out() -> None:
    states = random_states()
    expected = torch.rand(3)
    here = [torch.cuda.get_rng_state(number) for number in range(torch.cuda.device_count())]
    restore_random_states({**states, "cuda": [*here, torch.zeros(16, dtype=torch.uint8)]})
    assert torch.equal(torch.rand(3), expected)
