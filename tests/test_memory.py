"""Freed memory goes back to the system, where the C library can give it."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest
import torch

from autoprune.memory import release_freed_memory


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[1])
    return pages * 4096


@pytest.mark.skipif(
    not (sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "malloc_trim")),
    reason="only glibc keeps freed memory below a block in use, and can be told to give it back",
)
def test_gives_back_what_lies_below_a_block_in_use() -> None:
    blocks = [torch.ones(16 * 1024) for _ in range(2000)]  # 64 KiB each: too small to be mapped on their own
    last = blocks[-1]
    blocks.clear()
    before = resident_bytes()
    release_freed_memory()
    assert before - resident_bytes() > 50 * 2**20
    assert float(last.sum()) == 16 * 1024
