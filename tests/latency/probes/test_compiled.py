from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from autoprune.latency import LatencySetting
from autoprune.latency.probes.compiled import compiled

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="torch.compile takes a C++ compiler"
)


class Scales(nn.Module):
    """One class for all widths, as the candidates of a search are."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, images: Tensor) -> Tensor:
        return (images * self.scale).relu()


@needs_compiler
def test_models_beyond_the_limit_of_compilations_are_compiled_too() -> None:
    with torch._dynamo.config.patch(recompile_limit=1), contextlib.ExitStack() as stack:
        torch._dynamo.utils.counters.clear()
        timed = [
            stack.enter_context(compiled(Scales(width), torch.zeros(1, width), LatencySetting("compile")))
            for width in (2, 3, 4)
        ]
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 3
        assert all(run() > 0 for run in timed)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 3  # none was compiled again


WITHOUT_COMPILER = """
import torch
from autoprune.latency import LatencySetting, prepare
with prepare(torch.nn.Linear(3, 4), torch.zeros(1, 3), LatencySetting("compile")) as timed:
    timed()
"""


@pytest.mark.slow
def test_a_compiler_that_is_missing_is_named(tmp_path: Path) -> None:
    # In a process of its own, as torch remembers its compiler.
    environment = {**os.environ, "PATH": str(tmp_path), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    environment.pop("CXX", None)
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_COMPILER], env=environment, capture_output=True, text=True, check=False
    )
    last = run.stderr.strip().splitlines()[-1]
    assert 'LatencyError: Linear does not run under latency.probe = "compile"' in last
    assert "compiler" in last


@pytest.mark.gpu
def test_cuda_is_timed_too() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    setting = LatencySetting("compile", device="cuda")
    with compiled(Scales(64), torch.zeros(1, 64), setting) as timed:
        assert timed() > 0
