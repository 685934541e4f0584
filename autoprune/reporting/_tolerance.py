"""The sentence on the smallest model within the tolerance of a search."""

from __future__ import annotations

from autoprune.config.rungs import score_text
from autoprune.cost import COSTS
from autoprune.reporting._summary import StudySummary


def tolerance_notes(summary: StudySummary) -> list[str]:
    """Return a sentence on the best trial of a search with a tolerance, or nothing for other searches.

    If no trial is within the tolerance, the best trial is the nearest one.
    """
    least, best = summary.least_score, summary.best
    if summary.smallest is None or least is None or best is None or best.score is None:
        return []
    cost = COSTS[summary.smallest].label
    trial = (
        f"trial {best.number} with {summary.share(best, summary.smallest):.1%} of the {cost} and a score of "
        f"{score_text(best.score, best.error)}"
    )
    margin = abs(best.score - least)
    allowed = f"{summary.dense_score - least:.4f} below the dense model's {summary.dense_score:.4f}"
    if best.score < least:
        return [f"No trial is within the tolerance, {allowed}: the nearest is {trial}, {margin:.4f} too low."]
    within = sum(summary.is_within(record) for record in summary.records)
    doubt = (
        ", less than its standard error: another sample of images may decide otherwise"
        if best.error is not None and margin < best.error
        else ""
    )
    return [
        f"The smallest of {within} trials within the tolerance, {allowed}, is {trial}, {margin:.4f} above "
        f"the limit{doubt}."
    ]
