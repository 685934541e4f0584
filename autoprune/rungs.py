"""Own the value that passes from whatever scores a candidate to whatever runs and records it: a rung's score.

Before: `score` climbs the rungs; after: `engines` decide on each, `study` stores them.

    RungScore(0, "calibrate", score=0.71, seconds=0.4)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CALIBRATE = "calibrate"
"""Name of the rung that finetunes nothing; SUPERNET in its place is the same, on the supernet's weights."""

SUPERNET = "supernet"
"""Name of the rung whose candidates are cut from a supernet's weights, and need no finetune."""


@dataclass(frozen=True)
class RungScore:
    """What a rung gave: its index from 0, name, validation metric, and wall seconds of this rung alone."""

    index: int
    name: str
    score: float
    seconds: float


def asks_for_supernet(rungs: Sequence[str]) -> bool:
    """Tell whether candidates are cut from a supernet's weights rather than the dense model's.

    Args:
        rungs: as [score] names them.
    """
    return rungs[0].strip() == SUPERNET


def is_supernet_alone(rungs: Sequence[str]) -> bool:
    """Whether no rung trains what the supernet gave: the best can be exported as it was scored."""
    return asks_for_supernet(rungs) and len(rungs) == 1
