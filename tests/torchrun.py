"""Commands and functions under torchrun, in two real processes on this machine that talk by gloo.

printed = torchrun("-m", "autoprune", "finetune", "digits", cwd=folder).stdout
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def torchrun(*command: str, cwd: Path, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run a script or a module in two processes, and return what the command printed."""
    return subprocess.run(
        [*_launcher(), *options, *command], cwd=cwd, capture_output=True, text=True, env=_environment()
    )


def started(*command: str, cwd: Path) -> subprocess.Popen[str]:
    """Start a script or a module in two processes."""
    return subprocess.Popen(
        [*_launcher(), *command],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(),
    )


def _launcher() -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def _environment() -> dict[str, str]:
    # A process that ends by a signal prints where it was.
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"}
