"""The words that name rungs, and the score of one rung.

RungScore(0, "calibrate", score=0.71, seconds=0.4)
asks_for_repair(("repair", "25 steps"))          # True
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CALIBRATE = "calibrate"
"""Name of the rung that finetunes nothing; SUPERNET in its place is the same, on the supernet's weights."""

SUPERNET = "supernet"
"""Name of the rung whose candidates are cut from a supernet's weights, and need no finetune."""

REPAIR = "repair"
"""Name of the rung at which a candidate is cut and refitted by least squares; the next go on from there."""

FOLLOWS: dict[str, tuple[str, ...]] = {CALIBRATE: (REPAIR,), SUPERNET: (), REPAIR: (SUPERNET,)}
"""{name of a rung that trains nothing: rungs that it may follow}. Each may be the first."""


@dataclass(frozen=True)
class RungScore:
    """What a rung gave: its index from 0, name, validation metric, and wall seconds of this rung alone."""

    index: int
    name: str
    score: float
    seconds: float


def asks_for_supernet(rungs: Sequence[str]) -> bool:
    """Return whether candidates are cut from a supernet's weights rather than the dense model's.

    Args:
        rungs: as [score] names them.
    """
    return rungs[0].strip() == SUPERNET


def asks_for_repair(rungs: Sequence[str]) -> bool:
    """Return whether candidates are repaired, so that finetunes begin with repaired weights."""
    return any(rung.strip() == REPAIR for rung in rungs)


def recalibrates(rungs: Sequence[str], index: int) -> bool:
    """Return whether BatchNorm is recalibrated at a rung, before it trains or scores.

    That happens at "calibrate", and else at the first rung, whatever it is. A repair cuts the candidate once
    more, so it recalibrates too, unless "calibrate" follows it: then it scores the refitted weights alone.

    Args:
        rungs: their names.
        index: of one of them.
    """
    if rungs[index] == REPAIR:
        return list(rungs[index + 1 : index + 2]) != [CALIBRATE]
    return index == 0 or rungs[index] == CALIBRATE


def scores_the_export(rungs: Sequence[str]) -> bool:
    """Return whether the best candidate can be exported as it was scored, without a finetune.

    Its weights must be worth that, which those of a supernet or a repair are, and no rung may have trained
    them further: the result of that is not kept.
    """
    names = {rung.strip() for rung in rungs}
    return names <= set(FOLLOWS) and bool(names & {SUPERNET, REPAIR})
