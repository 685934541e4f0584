"""Shows the progress of a long verb: a bar with the best score, and a line for each step, trial and epoch.

Example:
    with Screen(console) as watch:
        run.search(config=config, watch=watch)
"""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from autoprune.config.rungs import score_text
from autoprune.cost import COSTS, LATENCY
from autoprune.run import Counted, EpochDone, Event, Stage, TrialDone


class Screen:
    """A watcher that draws events. Use it in a `with` block, which removes the bar at its end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._description = ""
        self._started = 0.0
        self._done_before = 0

    def __enter__(self) -> Screen:
        """Start drawing."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the bar. The printed lines stay."""
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Draw one event."""
        if isinstance(event, Stage):
            self._console.print(event.text, highlight=False, soft_wrap=True)
        elif isinstance(event, Counted):
            self._advance(event.what, event.done, event.total, "")
        elif isinstance(event, TrialDone):
            self._trial(event)
        else:
            self._epoch(event)

    def _trial(self, event: TrialDone) -> None:
        score = score_text(event.score, event.error)
        reason = f"  {event.reason}" if event.reason else ""
        latency = "" if event.latency_ms is None else COSTS[LATENCY].unit.write(event.latency_ms)
        if latency:
            latency = f" ({latency})" if event.cost == COSTS[LATENCY].label else f"  latency {latency}"
        self._console.print(
            f"trial {event.number:>3}  score {score:>7}  {event.cost} {event.share:6.1%}{latency}  "
            f"{event.seconds:6.1f} s  {event.outcome}{reason}",
            highlight=False,
            soft_wrap=True,
        )
        best = (
            f"best {event.best[0]:.4f} at {event.best[1]:.1%} of the {event.cost}"
            if event.best
            else "no score yet"
        )
        front = f"Pareto front of {event.front}, " if event.front else ""
        self._advance("searching", event.done, event.trials, f"{front}{best}")

    def _epoch(self, event: EpochDone) -> None:
        self._console.print(
            f"epoch {event.epoch:>3}/{event.epochs}  loss {event.loss:.4f}  score {event.score:.4f}  "
            f"{event.seconds:6.1f} s",
            highlight=False,
        )
        self._advance("training", event.epoch, event.epochs, f"loss {event.loss:.4f}")

    def _advance(self, description: str, done: int, total: int, note: str) -> None:
        now = time.monotonic()
        if self._task is None or self._description != description:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task = self._progress.add_task(description, total=total, note="")
            self._description, self._started, self._done_before = description, now, done
        steps = done - self._done_before
        left = f", {(now - self._started) / steps * (total - done):.0f} s left" if steps else ""
        self._progress.update(self._task, completed=done, total=total, note=f"{note}{left}")
        if done >= total:
            self._progress.remove_task(self._task)
            self._task = None
