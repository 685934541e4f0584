"""Seeds and random states. Each epoch and each training draws from its own stream.

Example:
    with seeded(stream_seed(0, 7)):     # seeds torch, NumPy and random, and restores their states at the end
        model = make_model()
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


def stream_seed(*parts: int) -> int:
    """Return a 63-bit seed for a tuple of non-negative integers. Different tuples give independent seeds.

    Zeros at the end do not count: (7,) and (7, 0) give the same seed.
    """
    return int(np.random.SeedSequence(list(parts)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def model_seed(seed: int, rung: int = 0) -> int:
    """Return the seed of the randomness in a model during training, independent of the batches' seed."""
    return stream_seed(seed, rung, 1)


def random_states() -> dict[str, Any]:
    """Return the global random states of torch (CPU, and CUDA if it is in use), NumPy and random."""
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if _cuda_in_use() else [],
        "random": random.getstate(),
        "numpy": np.random.get_state(),
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Restore global states that `random_states` returned."""
    torch.set_rng_state(states["torch"])
    for device, state in enumerate(states["cuda"][: torch.cuda.device_count()]):  # a resume may have fewer
        torch.cuda.set_rng_state(state, device)
    random.setstate(states["random"])
    np.random.set_state(states["numpy"])


def to_storable(states: dict[str, Any]) -> dict[str, Any]:
    """Convert random states to tensors, numbers, strings and lists, which torch.load's weights_only reads."""
    version, words, gauss = states["random"]
    kind, key, *rest = states["numpy"]
    storable_numpy = [kind, torch.from_numpy(key.astype(np.int64)), *(float(value) for value in rest)]
    return {**states, "random": [version, list(words), gauss], "numpy": storable_numpy}


def from_storable(stored: dict[str, Any]) -> dict[str, Any]:
    """Convert the result of `to_storable` back to random states."""
    version, words, gauss = stored["random"]
    kind, key, position, has_gauss, cached = stored["numpy"]
    numpy_state = (kind, key.numpy().astype(np.uint32), int(position), int(has_gauss), cached)
    return {**stored, "random": (version, tuple(words), gauss), "numpy": numpy_state}


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch, NumPy and random inside the block, and restore their states at its end."""
    before = random_states()
    # Without CUDA, torch.manual_seed formats the whole call stack, which takes milliseconds.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        restore_random_states(before)


def seeded_states(seed: int) -> dict[str, Any]:
    """Return the states that `seeded(seed)` starts with."""
    with seeded(seed):
        return random_states()


def _cuda_in_use() -> bool:
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return torch.cuda.is_available() and bool(used)
