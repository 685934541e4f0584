"""Finds the measurements of an earlier study that are valid for a new one, which has another budget.

A measurement is valid if the model, the data and all settings that it depends on are the same. The latency
table is not among these: `find_table` checks whether it fits the model and the device.

Example:
    reused = reuse(run, open_study(storage, "digits"))       # also reports new measurements that are due
    reused.library                                           # None if the earlier study has none
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from autoprune.errors import abridged
from autoprune.reconstruction import ErrorLibrary
from autoprune.run._measuring.moments import moments_of, noted_moments
from autoprune.run._measuring.statistics import Reused, Sensitivity
from autoprune.run._resolving.identity import identify
from autoprune.run._resolving.run import Run
from autoprune.run._resolving.stored_config import stored_rankings, stored_spec
from autoprune.study import SearchStudy
from autoprune.support.events import Stage

_IMAGES = ("data.most_samples",)
_RANKING = (
    *_IMAGES,
    "search.criterion",
    "search.seed",
    "task.loss",
    "data.batch_size",
    "score.moment_images",
)
_CUTS = (*_RANKING, "search.sensitivity_batches")
READS: Mapping[str, tuple[str, ...]] = {
    "ranking": _RANKING,
    "error library": _RANKING,
    "moments": _IMAGES,
    "sensitivity": (
        *_CUTS,
        "search.sensitivity_evaluations",
        "search.sensitivity_images",
        "task.metric",
        "task.evaluate",
        "score.rungs",
    ),
    "statistics": (*_CUTS, "search.sampler", "score.rungs"),
}
"""{measurement: the settings that it depends on, besides model and data}."""

_ON_VARIABLES = ("sensitivity", "statistics")
"""Measurements of each keep ratio, which depend on the search space as well."""


def reuse(run: Run, earlier: SearchStudy) -> Reused:
    """Return the measurements of a study that are valid for a new run, and report which these are.

    Raises:
        StudyError: the header of the study is damaged.
    """
    found = {
        "ranking": lambda: stored_rankings(earlier, run.prunable),
        "error library": lambda: stored_library(run, earlier),
        "moments": lambda: _moments(run, earlier),
        "sensitivity": lambda: _sensitivity(earlier),
        "statistics": lambda: earlier.facts.statistics or None,
    }
    kept: dict[str, Any] = {}
    again: dict[str, str] = {}
    for name, read in found.items():
        reason = _difference(run, earlier, name)
        kept[name] = None if reason else _read(read, name, again)
        if reason:
            again[name] = reason
    _report(run, earlier, [name for name, value in kept.items() if value is not None], again)
    return Reused(
        kept["ranking"] or (),
        kept["error library"],
        kept["sensitivity"],
        kept["statistics"] or {},
        kept["moments"],
    )


def stored_library(run: Run, study: SearchStudy) -> ErrorLibrary | None:
    """Return the error library of a study for all groups that are searched, or None if it has none.

    Raises:
        ValueError: it lacks a group, or is damaged.
    """
    values = study.facts.warm_starts.measured.get("reconstruction")
    if not isinstance(values, Mapping):
        return None
    named = {name for variable in run.space.variables for name in variable.groups}
    widths = {group.name: group.width for group in run.space.channel_groups if group.name in named}
    return ErrorLibrary.from_json(values, widths)


def _sensitivity(study: SearchStudy) -> Sensitivity | None:
    values = study.facts.warm_starts.measured.get("sensitivity")
    return None if values is None else Sensitivity.from_json(values)


def _moments(run: Run, study: SearchStudy) -> Path | None:
    """Return the file of a study's moments if it holds those of this run."""
    path = noted_moments(study, stored_spec(study))
    return path if path is not None and path.name == moments_of(run).path().name else None


def _read(read: Callable[[], Any], name: str, again: dict[str, str]) -> Any:
    """Return a measurement, or None if the study has none or it is damaged."""
    try:
        return read()
    except ValueError as error:
        again[name] = abridged(str(error))
        return None


def _difference(run: Run, earlier: SearchStudy, name: str) -> str:
    """Return the first setting that makes a measurement invalid, or "" if it is valid."""
    here, there = identify(run), earlier.identity
    parts: Sequence[str] = [key for key in here if key not in ("space", "budget", "objectives", "tolerance")]
    for part in (*parts, *(["space"] if name in _ON_VARIABLES else [])):
        if here[part] != there.get(part):
            return f"{part} differs"
    before = stored_spec(earlier)
    for key in READS[name]:
        if attrgetter(key)(run.spec) != attrgetter(key)(before):
            return f"{key} differs"
    return ""


def _report(run: Run, earlier: SearchStudy, kept: Sequence[str], again: Mapping[str, str]) -> None:
    run.watch(Stage(f"reused from {earlier.name}: {', '.join(kept) or 'nothing'}"))
    needed = [f"{name} ({reason})" for name, reason in again.items()]
    if needed:
        run.watch(Stage(f"not reused, and measured again if needed: {', '.join(needed)}"))
