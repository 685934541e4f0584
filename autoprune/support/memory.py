"""Control freed memory in glibc: return it to the system, or keep it for the next allocation.

Between trials it is returned. Otherwise hundreds of models of different sizes would fragment the heap, and
the process would grow. During timed passes it is kept, because fresh pages would slow some of them down.

    release_freed_memory()
    with kept_memory():
        run()
"""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
"""Parameters of mallopt(3), from glibc's malloc.h."""

_NEVER = -1
_MOST_MAPPED = 65536
"""glibc's default for M_MMAP_MAX."""

_LARGEST_THRESHOLD = 32 * 2**20
"""glibc's own limit, in bytes, for its dynamic mmap threshold. Larger blocks are always mapped."""


def release_freed_memory() -> None:
    """Return free pages of the C heap to the system. Without glibc, do nothing."""
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def kept_memory() -> AbstractContextManager[None]:
    """Keep memory that is freed inside the block for later allocations. Without glibc, do nothing.

    By default, glibc returns the memory of large tensors to the system or keeps it, depending on their place
    in the heap. If it returns the memory, each forward pass faults its pages in again. The same model then
    takes up to 1.5 times as long in one process as in another.

    Blocks may be nested. The end of the outermost block returns all free memory. After it, tensors of up to
    32 MiB come from the heap: glibc's dynamic threshold has the same limit, and setting a threshold switches
    the dynamic one off.
    """
    return _KEEPERS


class _Keepers(AbstractContextManager[None]):
    """Counts open blocks. The first one changes glibc's settings, the last one changes them back."""

    def __init__(self) -> None:
        self._blocks = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            if self._blocks == 0:
                _set_malloc({_MMAP_MAX: 0, _TRIM_THRESHOLD: _NEVER})
            self._blocks += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._blocks -= 1
            if self._blocks == 0:
                thresholds = {_MMAP_THRESHOLD: _LARGEST_THRESHOLD, _TRIM_THRESHOLD: 2 * _LARGEST_THRESHOLD}
                _set_malloc({_MMAP_MAX: _MOST_MAPPED, **thresholds})
                release_freed_memory()


_KEEPERS = _Keepers()


def _set_malloc(settings: dict[int, int]) -> None:
    mallopt = _function("mallopt")
    if mallopt is not None:
        for name, value in settings.items():
            mallopt(name, value)


@functools.cache
def _function(name: str) -> Callable[..., int] | None:
    """Return a function of the C library, or None if it does not exist."""
    if not sys.platform.startswith("linux"):
        return None
    function: Callable[..., int] | None = getattr(ctypes.CDLL(None), name, None)
    return function
