"""Write a study as tables, sentences and the next command, for the terminal.

Example:
    console.print(trial_table(summary, most=5))
    next_command(summary, storage)       # "autoprune finetune digits --storage sqlite:///runs/digits.db"
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from autoprune.config.rungs import rung_spec, score_text, uses_repair
from autoprune.cost import COSTS, LATENCY, three_digits
from autoprune.report._agreement import PREDICTS, RungAgreement
from autoprune.report._conclusions import conclusions
from autoprune.report._criteria import criterion_scores
from autoprune.report._summary import StudySummary
from autoprune.report._tolerance import tolerance_notes
from autoprune.study import TrialRecord, study_command


def plain_table(title: str) -> Table:
    """Return an empty table with a title and a rule only below its header, so that it fits in 80 columns."""
    return Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))


def trial_table(summary: StudySummary, *, most: int | None = None, only: TrialRecord | None = None) -> Table:
    """Return a table of the best trials of a study, below the dense model.

    Args:
        summary: summary of the study.
        most: largest number of trials; all by default. Failed trials come after those with a score.
        only: a trial to show alone.
    """
    table = plain_table(f"Study {summary.study}: {_counted(summary)}")
    for column in (
        "trial",
        f"{summary.metric}\nafter {summary.rungs[-1]}",
        *_cost_headings(summary),
        "seconds",
        "origin",
        "outcome",
    ):
        table.add_column(
            column,
            justify="left" if column in ("origin", "outcome") else "right",
            no_wrap=column == "origin",
        )
    dense = (score_text(summary.dense_score, summary.dense_error), *_dense_costs(summary))
    table.add_row("dense", *dense, "", "", "", end_section=True)
    scored = summary.ranked()
    failed = [record for record in summary.records if record.state == "failed" and record.score is None]
    for record in [*scored, *failed][:most] if only is None else [only]:
        table.add_row(
            str(record.number),
            score_text(record.score, record.error),
            *_costs_of(summary, record),
            "-" if record.seconds is None else f"{record.seconds:.1f}",
            record.origin.replace(", ", "\n"),
            _ended(record),
            style="bold" if summary.best is not None and record.number == summary.best.number else "",
        )
    return table


def race_table(summary: StudySummary) -> Table:
    """Return a table of the race, the winner first: the score of every entrant after each stage."""
    table = plain_table(f"Race of {summary.study}: {summary.metric} after so many epochs")
    race = summary.race
    ends = race.result.ends if race is not None else []
    for column in ("trial", *map(str, ends)):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("origin", no_wrap=True)
    if race is None:
        return table
    origins = {record.number: record.origin for record in summary.records}
    scores = {number: [race.stage(number, end) for end in ends] for number in race.entries}

    def rank(number: int) -> tuple[float, ...]:
        reached = [stage for stage in scores[number] if stage is not None]
        return (number != race.result.winner, -len(reached), -reached[-1].score if reached else 0.0)

    for number in sorted(scores, key=rank):
        cells = ["" if stage is None else score_text(stage.score, stage.error) for stage in scores[number]]
        left = ", left the race" if race.entries[number].failure is not None else ""
        style = "bold" if number == race.result.winner else ""
        origin = f"{origins.get(number, '')}{left}".replace(", ", "\n")
        table.add_row(str(number), *cells, origin, style=style)
    return table


def front_table(summary: StudySummary) -> Table:
    """Return a table of the Pareto front, the cheapest trial first, below the dense model."""
    against = ", ".join(COSTS[cost].label for cost in summary.objectives[1:])
    table = plain_table(f"Pareto front of {summary.study}: {summary.metric} against {against}")
    for column in ("trial", summary.metric, *_cost_headings(summary)):
        table.add_column(column, justify="right")
    table.add_column("origin", no_wrap=True)
    dense = score_text(summary.dense_score, summary.dense_error)
    table.add_row("dense", dense, *_dense_costs(summary), "", end_section=True)
    for record in summary.front:
        score = score_text(record.score, record.error)
        origin = record.origin.replace(", ", "\n")
        table.add_row(str(record.number), score, *_costs_of(summary, record), origin)
    return table


def _cost_headings(summary: StudySummary) -> list[str]:
    """Return a heading for each cost, and one more for the milliseconds of a latency."""
    headings = []
    for cost in summary.shown_costs:
        headings += [COSTS[cost].label, "ms"] if cost == LATENCY else [COSTS[cost].label]
    return headings


def _dense_costs(summary: StudySummary) -> list[str]:
    """Return the cost cells of the dense model."""
    return _cost_cells(summary, [1.0] * len(summary.shown_costs))


def _costs_of(summary: StudySummary, record: TrialRecord) -> list[str]:
    """Return the cost cells of a trial, with its measured latency if there is one."""
    return _cost_cells(summary, [summary.share(record, cost) for cost in summary.shown_costs])


def _cost_cells(summary: StudySummary, shares: Sequence[float]) -> list[str]:
    """Return shares of the dense model's costs as text, and after a latency its milliseconds.

    The milliseconds are the share times the dense model's. The measured ones of two trials cannot be compared
    if the machine was busy during one of the timings.
    """
    cells = []
    for cost, share in zip(summary.shown_costs, shares, strict=True):
        cells.append("-" if math.isnan(share) else f"{share:.1%}")
        if cost == LATENCY:
            took = share * summary.dense_costs.get(LATENCY, math.nan)
            cells.append("-" if math.isnan(took) else three_digits(took))
    return cells


def widths_table(summary: StudySummary, trial: TrialRecord | None) -> Table:
    """Return a table of the widths of a trial, usually the best one, in the groups that are searched."""
    title = "No trial has completed" if trial is None else f"Best: trial {trial.number}"
    table = Table(title=title, title_justify="left")
    table.add_column("group", overflow="fold")
    table.add_column("width kept", justify="right", no_wrap=True)
    widths = trial.widths if trial is not None else {}
    for group, dense in (summary.dense_widths or widths).items():
        if group in widths:
            table.add_row(group, f"{widths[group]} / {dense}" if summary.dense_widths else str(widths[group]))
    return table


def cost_table(summary: StudySummary, trial: TrialRecord) -> Table:
    """Return a table of all known costs of a trial, next to those of the dense model."""
    table = Table(title=f"Costs of trial {trial.number}", title_justify="left")
    for column in ("", "trial", "dense", "share"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for cost, value in trial.costs.items():
        dense = summary.dense_costs.get(cost)
        shown = ("-", "-") if dense is None else (COSTS[cost].unit.write(dense), f"{value / dense:.1%}")
        name = f"{COSTS[cost].label}, predicted" if cost == LATENCY else COSTS[cost].label
        table.add_row(name, COSTS[cost].unit.write(value), *shown)
    if trial.measured is not None:
        measured = trial.measured
        table.add_row(
            "latency, timed", COSTS[LATENCY].unit.write(measured.latency_ms), "", f"{measured.ratio:.1%}"
        )
    return table


def cost_notes(trial: TrialRecord) -> list[str]:
    """Return a sentence on how to time a trial whose latency is only predicted, or nothing."""
    if LATENCY not in trial.costs or trial.measured is not None:
        return []
    return [
        f"Trial {trial.number} was not timed, its latency is predicted: finetune and export it, then time "
        "the file side by side with the dense model's by `autoprune bench`."
    ]


def failure_table(summary: StudySummary) -> Table:
    """Return a table of the reasons for which trials failed, the most frequent first."""
    table = Table(title="Failures", title_justify="left")
    table.add_column("trials", justify="right")
    table.add_column("first", justify="right")
    table.add_column("reason", overflow="fold")
    for failure in summary.failures():
        table.add_row(str(len(failure.trials)), str(failure.trials[0]), Text(failure.reason))
    return table


def next_command(summary: StudySummary, storage: str) -> str:
    """Return the command to run next on a study with a complete trial.

    With several objectives it is `best`, with a limit on the first cost that the middle trial of the Pareto
    front meets.

    Args:
        summary: summary of the study.
        storage: URL of the study's storage.
    """
    if summary.front:
        cost = summary.objectives[1]
        middle = summary.share(summary.front[len(summary.front) // 2], cost)
        limit = (COSTS[cost].keys[0].option, f"{math.ceil(100 * middle)}%")
        return study_command("best", summary.study, storage, *limit)
    if summary.is_export_as_scored:
        command = study_command("export", summary.study, storage, "--format", "onnx")
        return f"{command} (or finetune it before)"
    command = study_command("finetune", summary.study, storage)
    if summary.race is None or summary.verdict is None:
        return command
    verdict = summary.verdict
    is_other = not verdict.is_clear and verdict.uniform not in (None, verdict.winner)
    also = f", or with --trial {verdict.uniform} uniform" if is_other else ""
    return f"{command} (reads the test part and saves the winner{also}, without any training)"


def summary_notes(summary: StudySummary) -> list[str]:
    """Return sentences on the scores, latencies, rungs, trials and groups, with the verdict at the end."""
    notes = [_meaning(summary)] if summary.ranked() else []
    if any(record.error is not None for record in summary.records):
        notes.append(
            "± is the standard error of a score, since the validation images are a sample. All trials are "
            "scored on the same images, so a difference of two scores errs less."
        )
    notes += tolerance_notes(summary)
    if summary.front:
        notes.append(_about_front(summary))
    if LATENCY in summary.shown_costs:
        notes.append(_about_latency(summary))
    notes += [*_about_strengths(summary), *_about_criteria(summary)]
    notes += [*(_agreement(found, summary) for found in summary.agreements), *_warning(summary)]
    return [*notes, *conclusions(summary)]


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


def _about_criteria(summary: StudySummary) -> list[str]:
    """Return a sentence that ranks the criteria that trials chose from, or nothing."""
    found = criterion_scores(summary.records)
    listed = ", ".join(f"{each.criterion} {score_text(each.score, each.error)}" for each in found)
    return [
        f"Criteria, by the scores of {each.trials} trials: {listed}. Each is the expected score of a trial "
        "that ranks all its groups by that criterion."
        for each in found[:1]
    ]


def _about_latency(summary: StudySummary) -> str:
    """Return sentences on the measured latencies, and on that of the best trial."""
    measured = [str(record.number) for record in summary.records if record.measured is not None]
    if not measured:
        return "Latencies are predicted from the table of the device."
    which = f"trial{'s' if len(measured) > 1 else ''} {', '.join(measured)}"
    known = f"Latencies are predicted; for {which} they were measured side by side with the dense model."
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


def _meaning(summary: StudySummary) -> str:
    last, repaired = summary.rungs[-1], uses_repair(summary.rungs)
    if summary.race is not None:
        return (
            f'Scores are those after the rung "{last}". The best trials have raced through the schedule of '
            "[finetune], so the winner is trained fully."
        )
    if summary.is_export_as_scored:
        shared = ", on weights of the supernet" if summary.by_supernet else ""
        return (
            f'Scores are those after the rung "{last}"{shared}; an export writes the best trial as scored, '
            "a finetune trains it further."
        )
    if not summary.by_supernet and not repaired:
        return (
            f'Scores are those after the search\'s short rung "{last}"; a finetune trains the best trial '
            "fully."
        )
    start = f"{'repaired ' if repaired else ''}weights{' of the supernet' if summary.by_supernet else ''}"
    return (
        f'Scores are those after the rung "{last}", which no trial keeps; a finetune trains the best trial '
        f"fully, from {'' if repaired else 'the '}{start}."
    )


def _about_front(summary: StudySummary) -> str:
    return (
        f"The Pareto front has {len(summary.front)} {'trials' if len(summary.front) > 1 else 'trial'}: no "
        "other trial is better in one objective without being worse in another. Pick one by a limit on its "
        "costs, and finetune it by its number."
    )


def _warning(summary: StudySummary) -> list[str]:
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


def _agreement(found: RungAgreement, summary: StudySummary) -> str:
    if found.is_constant:
        return f'"{found.lower}" and "{found.upper}": all {found.trials} trials are equal on the first.'
    missing = found.reached - found.trials
    so_far = " so far" if any(record.state in ("waiting", "running") for record in summary.records) else ""
    pruned = f"; {missing} more have no later score{so_far}" if missing else ""
    doubt = "" if found.is_clear else "; too few to decide whether it predicts"
    (low, high), (lowest, highest) = found.tau_interval, found.rho_interval
    return (
        f'"{found.lower}" and "{found.upper}": Kendall\'s tau {found.tau:.2f} ({low:.2f} to {high:.2f}), '
        f"Spearman's rho {found.rho:.2f} ({lowest:.2f} to {highest:.2f}), 95% intervals, "
        f"over {found.trials} trials{pruned}{doubt}."
    )


def _ended(record: TrialRecord) -> str:
    reused = f", as trial {record.reused}" if record.reused is not None else ""
    after = f" at {record.scores[-1].name}" if record.pruned and record.scores else ""
    return f"{record.state}{after}{reused}"


def _counted(summary: StudySummary) -> str:
    return ", ".join(f"{count} {word}" for word, count in summary.counts().items()) or "no trials"
