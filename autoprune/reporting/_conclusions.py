"""The end of a report: which rung predicted, how many trials were enough, which groups matter, the verdict.

Example:
    conclusions(summary)[-1]          # "The winner, trial 17, is 0.80 points (95% interval ..."
"""

from __future__ import annotations

from autoprune.config.rungs import score_text
from autoprune.cost import COSTS
from autoprune.reporting._agreement import race_agreement
from autoprune.reporting._summary import StudySummary
from autoprune.reporting._tolerance import tolerance_notes

_FEWEST_FOR_CURVE = 10
"""Trials that a sentence on their number needs."""

_LATE = 0.9
"""A search whose best score still rose after this share of its trials may need more of them."""

_SHOWN_GROUPS = 3


def headline(summary: StudySummary) -> str:
    """Return the result of a study in a sentence or two: the verdict if it has raced."""
    best = summary.best
    if best is None:
        failed = sum(len(failure.trials) for failure in summary.failures())
        if not summary.records:
            return "The search has no trials yet."
        return f"No trial has completed yet, and {failed} of {len(summary.records)} failed."
    if summary.front:
        points = f"{len(summary.front)} trial{'s' if len(summary.front) > 1 else ''}"
        against = ", ".join(COSTS[cost].label for cost in summary.objectives[1:])
        return f"The Pareto front of {summary.metric} against {against} has {points}: pick one by a limit."
    if summary.smallest is not None:
        return tolerance_notes(summary)[0]
    if summary.verdict is not None:
        return summary.verdict.sentence
    so_far = "" if all(record.has_ended for record in summary.records) else " so far"
    return (
        f"Trial {best.number} is the best{so_far}: {summary.metric} {score_text(best.score, best.error)} "
        f"after {best.scores[-1].name}, with {summary.macs_share(best):.1%} of the MACs. It has not raced "
        "against one keep ratio for all groups."
    )


def conclusions(summary: StudySummary) -> list[str]:
    """Return sentences on rungs, trials and keep ratios, with the verdict at the end."""
    verdict = [] if summary.verdict is None else [summary.verdict.sentence]
    notes = [*_about_rungs(summary), *_about_trials(summary), *_about_groups(summary)]
    return [*notes, *_about_learning_rates(summary), *verdict]


def _about_rungs(summary: StudySummary) -> list[str]:
    """Return sentences on which rung predicted the last one best, and on how that one predicts the race."""
    notes = []
    last = summary.rungs[-1]
    below = [found for found in summary.agreements if found.upper == last and not found.is_constant]
    if len(below) > 1:
        best = max(below, key=lambda found: found.tau)
        notes.append(
            f'Of the cheaper rungs, "{best.lower}" predicted "{last}" best, with tau {best.tau:.2f}.'
        )
    race = None if summary.race is None else race_agreement(summary.race, summary.records)
    if race is not None and not race.is_constant:
        low, high = race.tau_interval
        notes.append(
            f'"{race.lower}" predicted the race after {race.upper} with tau {race.tau:.2f} ({low:.2f} to '
            f"{high:.2f}) over its {race.trials} entrants, which are close to each other."
        )
    return notes


def _about_learning_rates(summary: StudySummary) -> list[str]:
    """Return a sentence on the learning rates that the race has compared."""
    result = None if summary.race is None else summary.race.result
    if result is None or result.compared is None:
        return []
    compared = ", ".join(map(str, result.tried))
    chosen = result.tried[0].learning_rate if result.learning_rate is None else result.learning_rate
    return [
        f"The race compared learning rates by the mean score after {result.compared} epochs: {compared}. "
        f"All trainings went on with {chosen:g}."
    ]


def _about_trials(summary: StudySummary) -> list[str]:
    """Return a sentence on how many trials would have been enough, if the search has ended."""
    enough, total = summary.enough_trials, len(summary.records)
    is_running = any(not record.has_ended for record in summary.records)
    if enough is None or is_running or summary.front or total < _FEWEST_FOR_CURVE:
        return []
    if enough > _LATE * total:
        return [
            f"The best score still rose at trial {enough - 1} of {total}: more trials may find a better one."
        ]
    return [
        f"{enough} of the {total} trials would have been enough: later ones raised the best score by no more "
        "than noise."
    ]


def _about_groups(summary: StudySummary) -> list[str]:
    """Return a sentence on the keep ratios that explain most of the scores."""
    if not summary.importances:
        return []
    most = list(summary.importances.items())[:_SHOWN_GROUPS]
    named = ", ".join(f"{name} ({share:.0%})" for name, share in most)
    return [f"The keep ratios that explain most of the differences between scores: {named}."]
