"""Write the findings of a study as sentences, for the terminal and for the HTML report.

Example:
    summary_notes(summary)[-1]          # "The winner, trial 17, is 0.80 points (95% interval ..."
"""

from __future__ import annotations

from autoprune.config.rungs import rung_spec, score_text, uses_repair
from autoprune.cost import LATENCY, three_digits
from autoprune.reporting._agreement import PREDICTS, RungAgreement
from autoprune.reporting._conclusions import conclusions
from autoprune.reporting._criteria import criterion_scores
from autoprune.reporting._summary import StudySummary
from autoprune.reporting._tolerance import tolerance_notes
from autoprune.study import TrialRecord

_LEFT = 0.25
"""Share of the dense model's score below which a winner counts as one that has lost its task."""


def cost_notes(trial: TrialRecord) -> list[str]:
    """Return a sentence on how to time a trial whose latency is only predicted, or nothing."""
    if LATENCY not in trial.costs or trial.measured is not None:
        return []
    return [
        f"Trial {trial.number} was not timed, its latency is predicted: finetune and export it, then time "
        "the file side by side with the dense model's by `autoprune bench`."
    ]


def summary_notes(summary: StudySummary) -> list[str]:
    """Return sentences on the scores, latencies, rungs, trials and groups, with the verdict at the end."""
    notes = [meaning(summary)] if summary.ranked() else []
    if any(record.error is not None for record in summary.records):
        notes.append(
            "± is the standard error of a score, since the validation images are a sample. All trials are "
            "scored on the same images, so the difference of two scores has a smaller error."
        )
    notes += tolerance_notes(summary)
    if summary.front:
        notes.append(front_note(summary))
    notes += [*latency_notes(summary), *_about_strengths(summary), *criteria_notes(summary)]
    notes += [*(agreement_note(found, summary) for found in summary.agreements), *rung_warning(summary)]
    return [*notes, *_loss_warning(summary), *conclusions(summary)]


def _loss_warning(summary: StudySummary) -> list[str]:
    """Return a warning that the best trial has lost most or all of the dense model's task.

    A detector that finds no object any more is such a trial. A negative score has no share.
    """
    dense, best = summary.dense_score, summary.best
    score = None if best is None else best.score
    if score is None or dense <= 0 or score >= _LEFT * dense:
        return []
    cure = "make the last rung longer" if uses_repair(summary.rungs) else 'begin score.rungs with "repair"'
    return [
        f"Warning: the best trial scores {score:.4f}, and the dense model {dense:.4f}: it has lost most of "
        f"its task. In the next search, {cure}, or raise the budget."
    ]


def _about_strengths(summary: StudySummary) -> list[str]:
    """Return a sentence that ranks the strengths of a penalty that were tried, or nothing."""
    listed = ", ".join(
        f"{each.penalty} {each.strength:g} {score_text(each.cut_score, each.cut_error)}"
        for each in summary.strengths
    )
    return [
        f"Penalties, by the score after a short training and a cut of {best.share:.0%} of the channels: "
        f"{listed}. The dense model of this search was trained with the first."
        for best in summary.strengths[:1]
    ]


def criteria_notes(summary: StudySummary) -> list[str]:
    """Return a sentence that ranks the criteria that trials chose from, or nothing."""
    found = criterion_scores(summary.records)
    listed = ", ".join(f"{each.criterion} {score_text(each.score, each.error)}" for each in found)
    return [
        f"Criteria, by the scores of {each.trials} trials: {listed}. Each is the expected score of a trial "
        "that ranks all its groups by that criterion."
        for each in found[:1]
    ]


def latency_notes(summary: StudySummary) -> list[str]:
    """Return sentences on the measured latencies, or nothing if latency is no cost of the search."""
    return [_about_latency(summary)] if LATENCY in summary.shown_costs else []


def _about_latency(summary: StudySummary) -> str:
    measured = [str(record.number) for record in summary.records if record.measured is not None]
    if not measured:
        return "Latencies are predicted from the table of the device."
    which = f"trial{'s' if len(measured) > 1 else ''} {', '.join(measured)}"
    known = f"Latencies are predicted. For {which} they were measured side by side with the dense model."
    if summary.best is None or summary.best.measured is None:
        return known
    found = summary.best.measured
    low, high = found.ratio_interval
    verdicts = {None: "", True: ": within the budget", False: ": over the budget, as all that were measured"}
    reached = "beyond" if found.met else "below"
    doubt = f", though its interval reaches {reached} it" if found.surely is False else ""
    return (
        f"{known} The best takes {three_digits(found.latency_ms)} ms, {found.ratio:.1%} "
        f"({low:.1%} to {high:.1%}) of the dense model's time{verdicts[found.met]}{doubt}."
    )


def meaning(summary: StudySummary) -> str:
    last, repaired = summary.rungs[-1], uses_repair(summary.rungs)
    if summary.race is not None:
        return (
            f'Scores are those after the rung "{last}". The best trials have raced through the schedule of '
            "[finetune], so the winner is trained fully."
        )
    if summary.is_export_as_scored:
        shared = ", on weights of the supernet" if summary.by_supernet else ""
        return (
            f'Scores are those after the rung "{last}"{shared}. An export writes the best trial as scored, '
            "a finetune trains it further."
        )
    if not summary.by_supernet and not repaired:
        return (
            f'Scores are those after the search\'s short rung "{last}". A finetune trains the best trial '
            "fully."
        )
    start = f"{'repaired ' if repaired else ''}weights{' of the supernet' if summary.by_supernet else ''}"
    return (
        f'Scores are those after the rung "{last}", which no trial keeps. A finetune trains the best trial '
        f"fully, from {'' if repaired else 'the '}{start}."
    )


def front_note(summary: StudySummary) -> str:
    return (
        f"The Pareto front has {len(summary.front)} {'trials' if len(summary.front) > 1 else 'trial'}: no "
        "other trial is better in one objective without being worse in another. Pick one by a limit on its "
        "costs, and finetune it by its number."
    )


def rung_warning(summary: StudySummary) -> list[str]:
    """Return a warning that a cheap rung does not predict a later one, and how to fix that, or nothing.

    If several rungs fail, the warning is about the one with the lowest interval.
    """
    failing = [found for found in summary.agreements if found.fails]
    if not failing:
        return []
    worst = min(failing, key=lambda found: -1.0 if found.is_constant else found.tau_interval[1])
    if worst.is_constant:
        return [
            f'Warning: "{worst.lower}" gave all {worst.trials} trials the same score: it cannot rank them. '
            f"{_cure(worst.lower)}."
        ]
    below = f"the whole interval of tau is below {PREDICTS}"
    cure = _cure(worst.lower)
    if worst.trials == worst.reached:
        return [f'Warning: "{worst.lower}" does not predict "{worst.upper}": {below}. {cure}.']
    return [
        f'Warning: "{worst.lower}" may not predict "{worst.upper}": {below}, but pruned trials are missing '
        "from tau, which lowers it. A search of about 40 trials with search.pruner = "
        f'"none" would show it for certain. {cure}, or prune no trial after it, which is possible in a '
        "resume too (--set search.pruner=none)."
    ]


def _cure(rung: str) -> str:
    """Return how to fix a rung that does not predict: the remedy of its row, or more training."""
    return rung_spec(rung).cure or f'Make "{rung}" longer in the next search\'s score.rungs'


def agreement_note(found: RungAgreement, summary: StudySummary) -> str:
    if found.is_constant:
        return f'"{found.lower}" and "{found.upper}": all {found.trials} trials are equal on the first.'
    missing = found.reached - found.trials
    so_far = " so far" if any(record.state in ("waiting", "running") for record in summary.records) else ""
    pruned = f" ({missing} more have no later score{so_far})" if missing else ""
    doubt = "" if found.is_clear else ", too few to decide whether it predicts"
    (low, high), (lowest, highest) = found.tau_interval, found.rho_interval
    return (
        f'"{found.lower}" and "{found.upper}": Kendall\'s tau {found.tau:.2f} ({low:.2f} to {high:.2f}), '
        f"Spearman's rho {found.rho:.2f} ({lowest:.2f} to {highest:.2f}), 95% intervals, "
        f"over {found.trials} trials{pruned}{doubt}."
    )
