"""Logs a study with the trackers of [report].

All that is logged is read from the study and not from the progress of one process. So a verb that goes on
with a study logs the trials, curves and results that an earlier one was killed before logging.

Example:
    with tracking(study, spec, watch) as watch:
        watch(TrialDone(...))       # logs all trials that have ended since
"""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from autoprune.config.settings import RunConfig
from autoprune.errors import AutopruneError
from autoprune.exporting import PAGE, RECIPE
from autoprune.flow import to_values
from autoprune.reporting import StudySummary, summarise
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._results.finetune_result import known_results
from autoprune.run._results.page import changed
from autoprune.study import SearchStudy, TrialRecord
from autoprune.support.events import Counted, EpochDone, Event, Stage, TrialDone, Watcher
from autoprune.trackers import (
    CurvePoint,
    FileWritten,
    Logged,
    Result,
    StudyOpened,
    Tracking,
    TrialEnded,
    check_trackers,
    find_tracker,
)

_RUN = "autoprune:tracked"
"""The note with the identifier of the study in all trackers."""


@contextlib.contextmanager
def tracking(study: SearchStudy, spec: RunSpec, watch: Watcher, *, curve: str = "") -> Iterator[Watcher]:
    """Yield a watcher that passes events on, and logs the entries that the study gets meanwhile.

    Args:
        study: the study.
        spec: the settings. Without report.trackers, `watch` itself is yielded.
        watch: called with all events, and with a warning if a tracker fails.
        curve: name of the training that the verb runs, whose epochs are logged as they end, or "".

    Raises:
        ConfigError: a tracker does not exist, or its package is not installed.
    """
    if not spec.report.trackers:
        yield watch
        return
    check_trackers(spec.report.trackers)
    run = study.note(_RUN) or study.store_note_once(_RUN, uuid.uuid4().hex)
    settings = dict(_flat(changed(to_values(spec), to_values(RunConfig()))))
    opened = StudyOpened(study.name, str(run), spec.folder, settings, is_new=True)
    with contextlib.ExitStack() as stack:
        warn = partial(_warn, watch)
        trackings = [
            stack.enter_context(Tracking(name, find_tracker(name).make, opened, warn))
            for name in spec.report.trackers
        ]
        tracked = _TrackedStudy(study, spec, watch, trackings, curve)
        tracked.log(_trials)
        try:
            yield tracked
        finally:
            tracked.log(_trials, _curves, _results, partial(_files, spec))


def tracker_files(study: SearchStudy, folder: Path) -> list[Path]:
    """Return the files that trackers keep of a study in its output folder, and folders that are all its own.

    They are the lists of logged events, TensorBoard's files, and the runs of Weights & Biases, without logs
    on a server.
    """
    run = study.note(_RUN)
    # A received storage may name files elsewhere.
    if (
        not isinstance(run, str)
        or not re.fullmatch(r"[0-9a-f]{32}", run)
        or Path(study.name).name != study.name
    ):
        return []
    opened = StudyOpened(study.name, run, folder, {}, is_new=False)
    events = (folder / "tensorboard" / opened.title).rglob("events.out.tfevents.*")
    return [*(folder / "trackers").glob(f"*-{run[:8]}.log"), *events, *_wandb_runs(folder / "wandb", run)]


def _wandb_runs(folder: Path, run: str) -> list[Path]:
    """Return the folders of a run of Weights & Biases, and the links that lead into them."""
    if folder.is_symlink():
        return []
    runs = [each for each in folder.glob(f"*run-*-{run}") if each.is_dir()]
    places = [each.resolve() for each in runs]
    links = [
        each
        for each in folder.glob("*")
        if each.is_symlink() and any(each.resolve().is_relative_to(place) for place in places)
    ]
    return [*links, *(each for each in runs if each not in links)]


def _warn(watch: Watcher, text: str) -> None:
    watch(Stage(text))


class _TrackedStudy:
    """The watcher of `tracking`."""

    def __init__(
        self,
        study: SearchStudy,
        spec: RunSpec,
        watch: Watcher,
        trackings: Sequence[Tracking],
        curve: str,
    ) -> None:
        self._study = study
        self._watch = watch
        self._trackings = trackings
        self._curve = curve
        self._warned = False

    def __call__(self, event: Event) -> None:
        self._watch(event)
        if isinstance(event, TrialDone):
            self.log(_trials)
        elif isinstance(event, EpochDone) and self._curve:
            self._send(CurvePoint(self._curve, event.epoch, {"loss": event.loss, "score": event.score}))
        elif isinstance(event, Counted) and event.level == 0:
            self.log(_curves)

    def log(self, *sources: Any) -> None:
        """Log the entries of the study. If a part of it is damaged, there is one warning."""
        try:
            for source in sources:
                for event in source(self._study):
                    self._send(event)
        except AutopruneError as error:
            if not self._warned:
                self._warned = True
                self._watch(Stage(f"warning: the trackers do not get all results: {error}"))

    def _send(self, event: Logged) -> None:
        for each in self._trackings:
            each.log(event)


def _trials(study: SearchStudy) -> Iterable[Logged]:
    return [_trial(record, study.facts.dense_costs) for record in study.records() if record.has_ended]


def _trial(record: TrialRecord, dense: Mapping[str, float]) -> TrialEnded:
    return TrialEnded(
        number=record.number,
        origin=record.origin,
        outcome=record.state,
        reason=record.failure or "",
        score=record.score,
        rungs={score.name: score.score for score in record.scores},
        costs=record.costs,
        shares={name: cost / dense[name] for name, cost in record.costs.items() if dense.get(name)},
        ratios=record.ratios,
        widths=record.widths,
        seconds=record.seconds,
    )


def _curves(study: SearchStudy) -> Iterator[Logged]:
    race = study.race()
    for number, entry in {} if race is None else race.entries.items():
        for stage in entry.stages:
            rate = "" if stage.learning_rate is None else f", learning rate {stage.learning_rate:g}"
            name = f"race, trial {number}{rate}"
            points = {int(at): {"loss": loss, "score": score} for at, loss, score in stage.curve}
            # Before the last stage it is that of a copy whose learning rate has fallen to 0.
            points.setdefault(stage.epochs, {})["score of the stage"] = stage.score
            for at, values in points.items():
                yield CurvePoint(name, at, values)
    for result in known_results(study):
        for index, epoch in enumerate(result.epochs, 1):
            yield CurvePoint(curve_of(result.trial), index, {"loss": epoch.loss, "score": epoch.score})


def curve_of(trial: int) -> str:
    """Return the name of the curve of a finetune."""
    return f"finetune of trial {trial}"


def _results(study: SearchStudy) -> Iterator[Logged]:
    summary = summarise(study)
    yield Result("dense score", summary.dense_score)
    yield from _best(summary)
    if summary.verdict is not None:
        yield Result("verdict", summary.verdict.sentence)
    for result in known_results(study):
        for name, score in result.scores.items():
            if score is not None:
                yield Result(f"trial {result.trial} {name.replace('_', ' ')}", score)


def _best(summary: StudySummary) -> Iterator[Logged]:
    best = summary.best
    if best is not None and best.score is not None:
        yield Result("best trial", float(best.number))
        yield Result("best score", best.score)
        for cost in summary.shown_costs:
            yield Result(f"best {cost} share", summary.share(best, cost))


def _files(spec: RunSpec, study: SearchStudy) -> Iterator[Logged]:
    written = [spec.folder / PAGE, *(result.folder / RECIPE for result in known_results(study))]
    return (FileWritten(path) for path in written if path.is_file())


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
