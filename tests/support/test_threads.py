"""Cores and threads of this process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from autoprune.support.threads import cpu_threads, usable_cores


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with cpu_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux binds a process to cores")
def test_cores_are_those_that_this_process_may_use() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from autoprune.support.threads import usable_cores; print(usable_cores())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["1"]
