"""Shows a running search of another process: a display in a terminal, and lines elsewhere.

Example:
    show_status(follow("digits", "sqlite:///runs/digits.db"))
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from autoprune.cli._console import console
from autoprune.cli._output import print_notes
from autoprune.config.rungs import score_text
from autoprune.cost import COSTS
from autoprune.progress import time_text
from autoprune.reporting import StudySummary, plain_table
from autoprune.run import RaceStatus, StudyStatus, Worker
from autoprune.study import TrialRecord

_FAILURES = 3
_BAR_WIDTH = 40


def show_statuses(statuses: Iterable[StudyStatus]) -> None:
    """Show each state of a search when it arrives: on a terminal in place of the one before."""
    if not console.can_redraw:
        for lines in _changes(statuses):
            print_notes(lines)
        return
    with Live(console=console, auto_refresh=False, transient=False, vertical_overflow="visible") as live:
        for status in statuses:
            advice = [Text(line, style="bold") for line in status_advice(status)]
            live.update(Group(status_view(status), *advice), refresh=True)


def _changes(statuses: Iterable[StudyStatus]) -> Iterator[list[str]]:
    """Yield the lines of the states that differ from the one before. Times alone make no difference."""
    before: StudyStatus | None = None
    for status in statuses:
        known = set() if before is None else {record.number for record in before.failed}
        lines = [_failure(record) for record in reversed(status.failed) if record.number not in known]
        if before is None or _facts(before) != _facts(status):
            lines.append(f"{_counts(status)}{_times(status)}; {_best(status.summary)}")
            lines += _races(status.race)
            lines += status_advice(status)
        if lines:
            yield lines
        before = status


def _facts(status: StudyStatus) -> tuple[object, ...]:
    """Return the facts whose change is worth a line."""
    best = status.summary.best
    workers = tuple((each.host, each.pid, each.phase, each.is_alive) for each in status.workers)
    race = None if status.race is None else status.race.entrants
    return status.done, None if best is None else best.number, workers, race, status.is_finished


def status_view(status: StudyStatus) -> Group:
    """Return everything about a search that fits a screen."""
    parts: list[RenderableType] = [Text(f"{status.summary.study}  {status.storage}", style="bold")]
    bar = Table.grid(padding=(0, 1))
    progress = ProgressBar(total=max(1, status.trials), completed=status.done, width=_BAR_WIDTH)
    bar.add_row(progress, f"{_counts(status)}{_times(status)}")
    parts += [bar, Text(_best(status.summary))]
    if status.workers:
        parts.append(_worker_table(status))
    parts.append(Text(_rungs(status)))
    if status.race is not None:
        parts += [Text(line) for line in _races(status.race)]
        parts.append(_race_table(status.race))
    parts += [Text(_failure(record)) for record in status.failed[:_FAILURES]]
    return Group(*parts)


def _counts(status: StudyStatus) -> str:
    others = {state: count for state, count in status.summary.counts().items() if state != "complete"}
    more = "".join(f", {count} {state}" for state, count in sorted(others.items()))
    return f"{status.done} of {status.trials} trials{more}"


def _times(status: StudyStatus) -> str:
    """Return the pace and the time left, if they are known and anybody works."""
    if status.is_finished or status.per_hour is None:
        return ""
    pace = f", {status.per_hour:,.{0 if status.per_hour >= 10 else 1}f} trials/hour"
    return f"{pace}, {time_text(status.left_s)} left" if status.at_work and status.left_s else pace


def _best(summary: StudySummary) -> str:
    best = summary.best
    if best is None:
        return "no complete trial yet"
    costs = ", ".join(
        f"{summary.share(best, cost):.1%} of the {COSTS[cost].label}"
        for cost in summary.shown_costs
        if cost in best.costs and cost in summary.dense_costs
    )
    front = f"; Pareto front of {len(summary.front)}" if summary.front else ""
    score = score_text(best.score, best.error)
    return f"best trial {best.number} ({best.origin}): {summary.metric} {score} at {costs}{front}"


def _worker_table(status: StudyStatus) -> Table:
    table = plain_table("Workers")
    for heading in ("process", "phase", "state", "trials"):
        table.add_column(heading, overflow="fold")
    ended = {record.number: len(record.scores) for record in status.summary.records}
    rungs = len(status.summary.rungs)
    for worker in status.workers:
        running = ", ".join(
            f"{number} (rung {min(rungs, ended.get(number, 0) + 1)} of {rungs}, {time_text(seconds)})"
            for number, seconds in worker.trials.items()
        )
        table.add_row(f"{worker.pid} on {worker.host}", worker.phase, _life(worker, status), running)
    return table


def _life(worker: Worker, status: StudyStatus) -> str:
    if worker.is_alive is not None:
        return "alive" if worker.is_alive else "dead"
    heard = "" if status.heard_s is None else f", last trial {time_text(status.heard_s)} ago"
    return f"not visible from here{heard}"


def _rungs(status: StudyStatus) -> str:
    return "rungs: " + ", ".join(f"{name} {count}" for name, count in status.reached.items())


def _races(race: RaceStatus | None) -> list[str]:
    if race is None:
        return []
    left = "" if race.left_s is None else f", {time_text(race.left_s)} left"
    ends = ", ".join(map(str, race.ends))
    return [f"race of {race.expected} trials, stages end after {ends} epochs{left}"]


def _race_table(race: RaceStatus) -> Table:
    table = plain_table("Race")
    for heading in ("trial", "epochs", "score", "origin"):
        table.add_column(heading, justify="left" if heading == "origin" else "right")
    for each in race.entrants:
        origin = each.origin if each.failure is None else f"{each.origin}: {each.failure}"
        table.add_row(str(each.trial), str(each.epochs), score_text(each.score, None), origin)
    return table


def _failure(record: TrialRecord) -> str:
    return f"trial {record.number} failed: {record.failure or 'unknown'}"


def status_advice(status: StudyStatus) -> list[str]:
    """Return a line for the cases in which nothing more will happen by itself."""
    if status.is_finished:
        return ["The search has ended."]
    if not status.at_work:
        return [f"No process works on this study. Resume with: {status.resume}"]
    if all(worker.is_alive is None for worker in status.at_work):
        return [f"The processes are on other hosts. If those are gone, run: {status.resume}"]
    return []
