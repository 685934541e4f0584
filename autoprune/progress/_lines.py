"""The line that an event leaves in a terminal or a log."""

from __future__ import annotations

from autoprune.config.rungs import score_text
from autoprune.cost import COSTS, LATENCY
from autoprune.support.events import Counted, EpochDone, Event, Stage, TrialDone


def line_of(event: Event) -> str | None:
    """Return the line of an event, or None if it only moves a bar."""
    if isinstance(event, Stage):
        return event.text
    if isinstance(event, TrialDone):
        return _trial(event)
    return _epoch(event) if isinstance(event, EpochDone) else None


def counted_of(event: Event) -> Counted | None:
    """Return the count that an event moves, or None if it moves none."""
    if isinstance(event, TrialDone):
        return Counted("searching", event.done, event.trials, _best(event), level=0)
    if isinstance(event, EpochDone):
        return Counted("training", event.epoch, event.epochs, f"loss {event.loss:.4f}", level=1)
    return event if isinstance(event, Counted) else None


def _trial(event: TrialDone) -> str:
    score = score_text(event.score, event.error)
    reason = f"  {event.reason}" if event.reason else ""
    latency = "" if event.latency_ms is None else COSTS[LATENCY].unit.write(event.latency_ms)
    if latency:
        latency = f" ({latency})" if event.cost == COSTS[LATENCY].label else f"  latency {latency}"
    return (
        f"trial {event.number:>3}  score {score:>7}  {event.cost} {event.share:6.1%}{latency}  "
        f"{event.seconds:6.1f} s  {event.outcome}{reason}"
    )


def _best(event: TrialDone) -> str:
    front = f"Pareto front of {event.front}, " if event.front else ""
    if event.best is None:
        return f"{front}no score yet"
    return f"{front}best {event.best[0]:.4f} at {event.best[1]:.1%} of the {event.cost}"


def _epoch(event: EpochDone) -> str:
    return (
        f"epoch {event.epoch:>3}/{event.epochs}  loss {event.loss:.4f}  score {event.score:.4f}  "
        f"{event.seconds:6.1f} s"
    )
