"""Own the hand-back of freed memory to the system between trials.

`score` calls it before it builds a trial's model, so that a search of hundreds of models of different sizes
does not keep the holes that each of them leaves in the heap.

    release_freed_memory()
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable


def release_freed_memory() -> None:
    """Return free pages of the C heap to the system where the C library can (glibc); else do nothing."""
    trim = _find_trim()
    if trim is not None:
        trim(0)


@functools.cache
def _find_trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    function: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return function
