"""Writes the HTML report of a study into its output folder.

Example:
    write_page(study, summary, spec.folder / PAGE)       # runs/digits/report.html
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoprune.config.settings import RunConfig
from autoprune.errors import AutopruneError, LatencyError, shown_url, summary_of
from autoprune.exporting import PAGE
from autoprune.flow import to_values
from autoprune.latency import Stairs
from autoprune.reporting import Page, StudySummary, Tuned, save_page, summarise
from autoprune.run._resolving.paths import protected_files, require_unprotected
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._resolving.stored_config import stored_spec
from autoprune.run._results.finetune_result import known_results
from autoprune.run._results.next_step import next_step
from autoprune.run._results.savings import stored_savings
from autoprune.study import SearchStudy, damaged, study_command
from autoprune.support.events import Stage, Watcher
from autoprune.support.toml import write_toml


def write_page(study: SearchStudy, summary: StudySummary, path: str | os.PathLike[str]) -> Path:
    """Write the HTML report of a study to a file.

    Raises:
        StudyError: a part of the study is damaged, or the file cannot be written.
    """
    return save_page(make_page(study, summary), path)


def refresh_page(
    study: SearchStudy, spec: RunSpec, watch: Watcher, summary: StudySummary | None = None
) -> Path | None:
    """Write the HTML report into the output folder, after a verb that has changed the study.

    The result of the verb is stored already. A fault of any kind is therefore no more than a warning.

    Returns:
        The file, or None if it could not be written.
    """
    path = spec.folder / PAGE
    try:
        require_unprotected(path, "output.folder", protected_files(study.url, spec))
        return write_page(study, summary or summarise(study, with_importances=True), path)
    except Exception as error:
        reason = str(error) if isinstance(error, AutopruneError) else summary_of(error)
        watch(Stage(f"warning: no HTML report: {reason}"))
        return None


def make_page(study: SearchStudy, summary: StudySummary) -> Page:
    """Collect the contents of the HTML report of a study.

    Raises:
        StudyError: a part of the study is damaged.
    """
    return Page(
        summary=summary,
        facts=study.facts,
        settings=write_toml(changed(to_values(stored_spec(study)), to_values(RunConfig()))),
        identity=study.identity,
        stairs=stored_stairs(study),
        savings=stored_savings(study),
        tuned=[Tuned(each.trial, each.folder, each.scores, each.epochs) for each in known_results(study)],
        commands=_commands(study),
        next_step=next_step(study, summary, anywhere=True),
    )


def changed(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nested values that differ from the defaults."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        default = defaults.get(key)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            found[key] = changed(value, default)
        elif value != default:
            found[key] = value
    return found


def _commands(study: SearchStudy) -> dict[str, str]:
    budget = ("--set", "budget.flops=30%")
    return {
        "The same search again, with the settings below in a file": "autoprune search settings.toml",
        "Go on, or add trials": study_command("resume", study.name, study.url, anywhere=True),
        "Another budget, with the same measurements": shlex.join(
            ["autoprune", "search", "--from", study.name, "--storage", shown_url(study.url), *budget]
        ),
        "This page again": study_command("report", study.name, study.url, "--html", anywhere=True),
    }


def stored_stairs(study: SearchStudy) -> Stairs | None:
    """Return the latencies at several widths that a study stores, or None if it measured none.

    Raises:
        StudyError: they are damaged.
    """
    values = study.facts.stairs
    if values is None:
        return None
    try:
        return Stairs.from_json(values)
    except LatencyError as error:
        raise damaged(study.name, f"chosen.stairs: {error}") from error
