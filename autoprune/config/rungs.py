"""The rungs that train nothing, with their traits, and the score of one rung. One row of RUNGS each.

    RungScore(0, "calibrate", score=0.71, seconds=0.4)
    uses_repair(("repair", "25 steps"))          # True

All other rungs are finetunes, such as "25 steps". `score` climbs them by their traits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoprune.support.rows import Row


@dataclass(frozen=True)
class RungSpec(Row):
    """A rung that trains nothing.

    Attributes:
        follows: the rungs that it may follow; it may always be the first.
        recalibrates: whether all that it does is to recalibrate BatchNorm, on the weights as they are.
        from_supernet: whether candidates are cut from a supernet's weights rather than the dense model's.
        repairs: whether the candidate is cut once more and refitted by least squares. The next rungs go on
            from there.
        exportable: whether a candidate is worth an export as it is scored here, without a finetune.
        cure: what to do if its scores do not predict those of later rungs.
    """

    follows: tuple[str, ...] = ()
    recalibrates: bool = False
    from_supernet: bool = False
    repairs: bool = False
    exportable: bool = False
    cure: str = ""


RUNGS: Mapping[str, RungSpec] = {
    "calibrate": RungSpec(
        follows=("repair",),
        recalibrates=True,
        cure='Leave "calibrate" out of the next search\'s score.rungs',
        about="BatchNorm is recalibrated",
    ),
    "supernet": RungSpec(
        from_supernet=True,
        exportable=True,
        cure="Train the next search's supernet longer (score.supernet.epochs)",
        reads=("score.supernet",),
        about="candidates are cut from weights that all of them share, trained before the first trial",
    ),
    "repair": RungSpec(
        follows=("supernet",),
        repairs=True,
        exportable=True,
        cure="Measure more images for the next search's repair (score.moment_images)",
        reads=("score.moment_images",),
        about="the layers are refitted by least squares, and BatchNorm is recalibrated",
    ),
}

FINETUNE = RungSpec(about="a training of so many steps or epochs, which goes on from the rung before")
"""The traits of all rungs that are not in RUNGS."""


def rung_spec(name: str) -> RungSpec:
    """Return the traits of a rung, as [score] names it."""
    return RUNGS.get(name.strip(), FINETUNE)


@dataclass(frozen=True)
class RungScore:
    """What a rung gave: its index from 0, name, validation metric, and wall seconds of this rung alone."""

    index: int
    name: str
    score: float
    seconds: float


def uses_supernet(rungs: Sequence[str]) -> bool:
    """Return whether candidates are cut from a supernet's weights rather than the dense model's.

    Args:
        rungs: as [score] names them.
    """
    return rung_spec(rungs[0]).from_supernet


def uses_repair(rungs: Sequence[str]) -> bool:
    """Return whether candidates are repaired, so that finetunes begin with repaired weights."""
    return any(rung_spec(rung).repairs for rung in rungs)


def recalibrates(rungs: Sequence[str], index: int) -> bool:
    """Return whether BatchNorm is recalibrated at a rung, before it trains or scores.

    The first rung recalibrates, whatever it is, and so does every rung with this trait. A repair cuts the
    candidate once more, so it recalibrates too, unless the next rung does that: then the repair scores the
    refitted weights alone.

    Args:
        rungs: their names.
        index: of one of them.
    """
    spec = rung_spec(rungs[index])
    if spec.repairs:
        return not any(rung_spec(rung).recalibrates for rung in rungs[index + 1 : index + 2])
    return index == 0 or spec.recalibrates


def scores_the_export(rungs: Sequence[str]) -> bool:
    """Return whether the best candidate can be exported as it was scored, without a finetune.

    A rung must have made its weights worth that, and none may have trained them further: the result of that
    is not kept.
    """
    trains = any(rung.strip() not in RUNGS for rung in rungs)
    return not trains and any(rung_spec(rung).exportable for rung in rungs)
