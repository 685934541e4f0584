"""Own what becomes of freed memory: handed back to the system between trials, kept between timed passes.

`score` hands back before it builds a trial's model, so that a search of hundreds of models of different sizes
does not keep the holes that each of them leaves in the heap. `latency` keeps while it times.

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
"""The names of these settings in glibc's malloc.h; mallopt(3) tells what they do."""

_NEVER = -1
_MOST_MAPPED = 65536
"""As glibc begins with."""

_LARGEST_THRESHOLD = 32 * 2**20
"""Bytes that glibc raises the size of mapped blocks to by itself, where a program frees such blocks."""


def release_freed_memory() -> None:
    """Return free pages of the C heap to the system where the C library can (glibc); else do nothing."""
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def kept_memory() -> AbstractContextManager[None]:
    """Keep what is freed inside the block for what is allocated next, where the C library can (glibc).

    Otherwise glibc returns large tensors to the system or keeps them, by where in the heap they happen to
    lie. Where it returns them each forward pass takes its memory anew, page by page: the same model runs up
    to 1.5 times as long in one process as in another, which says nothing about its widths.

    Blocks may be nested; at the end of the outermost one all that is free is returned. From then on tensors
    of up to 32 MiB come from the heap, which glibc's own adjustment ends at, too, and cannot be told to go
    on with.
    """
    return _KEEPERS


class _Keepers(AbstractContextManager[None]):
    """Counts the blocks that want freed memory kept; the first one begins it, the last one ends it."""

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
    """Return a function of the C library, or None where it has none of that name."""
    if not sys.platform.startswith("linux"):
        return None
    function: Callable[..., int] | None = getattr(ctypes.CDLL(None), name, None)
    return function
