"""What a study that goes on takes from how it began: the device and the threads of its trials."""

from __future__ import annotations

import pytest
import torch

from autoprune.config import load_config
from autoprune.pipeline.stored import on_device_of, threads_of
from autoprune.precision import Setting
from autoprune.threads import cpu_threads


def test_data_go_where_the_trials_ran_whatever_auto_would_be_here() -> None:
    config = load_config("digits")
    assert config.search.device == "auto"
    assert on_device_of(Setting("cuda:3"), config).search.device == "cuda:3"
    assert config.search.device == "auto"


@pytest.mark.parametrize(("engine", "threads"), [("serial", 1), ("processes", 3), ("ray", 3)])
def test_a_process_that_leaves_the_trials_to_workers_has_its_own_threads(engine: str, threads: int) -> None:
    with cpu_threads(3):
        with threads_of(engine, Setting(threads=1)):
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == 3
