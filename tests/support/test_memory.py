"""Freed memory goes back to the system after trials, and stays while passes are timed."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from autoprune.support.memory import release_freed_memory


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


FAULTS_OF_PASSES = """
import resource
from autoprune.support.memory import kept_memory

def fewest_faults():
    found = []
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        b"x" * (100 * 2**20)  # above what malloc keeps by itself
        found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(found)

print(fewest_faults())
with kept_memory():
    with kept_memory():
        print(fewest_faults())
    print(fewest_faults())
print(fewest_faults())
"""


@pytest.mark.skipif(
    not (sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "mallopt")),
    reason="only glibc can be told to keep what is freed",
)
def test_keeps_what_is_freed_until_the_outermost_block_ends() -> None:
    """In a process of its own, whose heap has no hole that would hold a large block anyway."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS_OF_PASSES], capture_output=True, text=True, check=True
    )
    before, nested, outer, after = map(int, done.stdout.split())
    assert min(before, after) > 40  # some 50 huge pages if the system has them, else 25,600 pages
    assert max(nested, outer) < 10
