"""The rungs that train nothing, one row of RUNGS each, and the score of one rung.

All other rungs are finetunes, such as "25 steps".

Example:
    RungScore(0, "calibrate", score=0.71, seconds=0.4)
    uses_repair(("repair", "25 steps"))          # True
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoprune.support.rows import Row


@dataclass(frozen=True)
class RungSpec(Row):
    """A rung that trains nothing.

    Attributes:
        follows: the rungs that it may follow. It may always be the first.
        recalibrates: whether it only recalibrates BatchNorm and changes no weights.
        from_supernet: whether candidates are cut from a supernet's weights rather than the dense model's.
        repairs: whether the candidate is cut again and refitted by least squares. The next rungs continue
            with the refitted weights.
        exportable: whether a candidate can be exported as it is scored here, without a finetune.
        cure: advice for a report if its scores do not predict those of later rungs.
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
        about="candidates are cut from shared weights, which are trained before the first trial",
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

FINETUNE = RungSpec(about="a training of the given steps or epochs, which continues the rung before it")
"""The traits of all rungs that are not in RUNGS."""


def rung_spec(name: str) -> RungSpec:
    """Return the traits of a rung by its name in [score]."""
    return RUNGS.get(name.strip(), FINETUNE)


@dataclass(frozen=True)
class RungScore:
    """The result of a rung.

    Attributes:
        index: of the rung, from 0.
        name: of the rung.
        score: the validation metric.
        seconds: its own wall time.
        error: standard error of the score, or None if the metric is no mean over images.
    """

    index: int
    name: str
    score: float
    seconds: float
    error: float | None = None


def score_text(score: float | None, error: float | None) -> str:
    """Write a score with its standard error, as far as they are known: "0.9123 ±0.0040"."""
    if score is None:
        return "-"
    return f"{score:.4f}" if error is None else f"{score:.4f} ±{error:.4f}"


def uses_supernet(rungs: Sequence[str]) -> bool:
    """Return whether candidates are cut from a supernet's weights rather than the dense model's.

    Args:
        rungs: their names in [score].
    """
    return rung_spec(rungs[0]).from_supernet


def uses_repair(rungs: Sequence[str]) -> bool:
    """Return whether candidates are repaired, so that finetunes start from repaired weights."""
    return any(rung_spec(rung).repairs for rung in rungs)


def recalibrates(rungs: Sequence[str], index: int) -> bool:
    """Return whether BatchNorm is recalibrated at a rung, before it trains or scores.

    The first rung always recalibrates, and so does every rung with this trait. A repair cuts the candidate
    again, so it recalibrates as well, unless the next rung does: then the repair scores the refitted weights
    alone.

    Args:
        rungs: their names in [score].
        index: the index of the rung.
    """
    spec = rung_spec(rungs[index])
    if spec.repairs:
        return not any(rung_spec(rung).recalibrates for rung in rungs[index + 1 : index + 2])
    return index == 0 or spec.recalibrates


def scores_the_export(rungs: Sequence[str]) -> bool:
    """Return whether the best candidate can be exported as it was scored, without a finetune.

    One rung must have the trait `exportable`, and none may train, because trained weights of candidates are
    not kept.
    """
    trains = any(rung.strip() not in RUNGS for rung in rungs)
    return not trains and any(rung_spec(rung).exportable for rung in rungs)
