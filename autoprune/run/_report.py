"""Summarises a study, finished or not, and draws it as a plot or as an HTML page.

Example:
    report("digits", "sqlite:///runs/digits.db").plot                # runs/digits/report.png
    report("digits", "sqlite:///runs/digits.db", html=True).page     # runs/digits/report.html
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from rich.table import Table

from autoprune.flow import to_values
from autoprune.reporting import (
    FORMATS,
    StudySummary,
    failure_table,
    format_of,
    front_table,
    headline,
    plot_stairs,
    plot_study,
    race_table,
    summarise,
    trial_table,
)
from autoprune.run._checks.trust import UNTRUSTED, require_own_path
from autoprune.run._resolving.paths import check_writable, find_storage, protected_files, require_unprotected
from autoprune.run._resolving.session import STUDY, StudyRef, of_study
from autoprune.run._resolving.stored_config import stored_spec
from autoprune.run._results.finetune_result import FinetuneResult, known_results
from autoprune.run._results.next_step import next_step
from autoprune.run._results.page import stored_stairs, write_page
from autoprune.run._results.tables import pruned_table
from autoprune.study import open_study
from autoprune.support.notebook import Shown
from autoprune.support.usercode import entry

HTML = "html"


@dataclass(frozen=True, repr=False)
class Report(Shown):
    """A summary of a study, with its plots or its page.

    Attributes:
        summary: the trials and figures of the study.
        plot: file of the plot of the trials, or None if no trial has a score.
        stairs: file of the plot of latency against width, or None if the divisor was not measured.
        page: the HTML page, or None if a plot was requested.
        finetuned: the results of finetunes whose models still exist.
        next_step: a line that names the next command, or "" before the first complete trial.
        settings: {section: {key: value}} of the study, with the values of keys that were left out.
    """

    summary: StudySummary
    plot: Path | None
    stairs: Path | None
    finetuned: tuple[FinetuneResult, ...]
    next_step: str
    settings: Mapping[str, Any]
    page: Path | None = None

    def _headline(self) -> str:
        files = [str(path) for path in (self.page, self.plot, self.stairs) if path is not None]
        written = f" Written: {', '.join(files)}." if files else ""
        return f"{self.summary.study}: {headline(self.summary)}{written}"

    def _tables(self) -> list[Table]:
        tables = [trial_table(self.summary, most=10)]
        if self.summary.front:
            tables.append(front_table(self.summary))
        if self.summary.race is not None:
            tables.append(race_table(self.summary))
        if self.summary.failures():
            tables.append(failure_table(self.summary))
        return [*tables, *map(pruned_table, self.finetuned)]


@entry(study=STUDY, storage=(str, NoneType))
def report(
    study: StudyRef,
    storage: str | None = None,
    output: str | os.PathLike[str] | None = None,
    *,
    html: bool = False,
) -> Report:
    """Summarise a study, and plot it or write it as an HTML page. The study itself is not changed.

    Args:
        study: name of the study, or a result that belongs to it.
        storage: URL of its storage, runs/STUDY.db by default.
        output: the picture, a PNG, SVG or PDF file by its suffix, or the page, an HTML file. By default it is
            report.png or report.html in the output folder of the search. A plot of latency against width is
            written next to a picture, e.g. as stairs.png.
        html: whether to write a page. It needs no other file and no network.

    Returns:
        The summary of the study, and the files.

    Raises:
        StudyError: the study does not exist, or its output folder is neither in the current folder nor named
            by this user.
        ConfigError: the folder of the files cannot be written, or `output` has another suffix.

    Example:
        autoprune.report("digits", html=True).page  # runs/digits/report.html
    """
    formats = (HTML,) if html else (*FORMATS, HTML)
    suffix = f".{HTML if html else 'png'}" if output is None else f".{format_of(output, formats)}"
    name, url, _ = of_study(study, storage)
    opened = open_study(find_storage(name, url), name)
    summary = summarise(opened, with_importances=True)
    measured = stored_stairs(opened)
    is_page = suffix == f".{HTML}"
    spec = stored_spec(opened)
    settings = to_values(spec)
    if not summary.ranked() and measured is None and not is_page:
        return Report(summary, None, None, (), "", settings)
    if output is not None:
        path = Path(output)
    else:
        path = spec.folder / f"report{suffix}"
        require_own_path(opened, "--output", path, UNTRUSTED)
    key = "--output" if output is not None else "output.folder"
    stairs = path.with_name(f"stairs{suffix}")
    for written in (path,) if is_page else (path, stairs):
        require_unprotected(written, key, protected_files(opened.url, spec))
    # Read before the plots are drawn, so that a damaged note leaves no half-finished report.
    results, step = tuple(known_results(opened)), next_step(opened, summary)
    check_writable(path.parent, key)
    if is_page:
        return Report(summary, None, None, results, step, settings, write_page(opened, summary, path))
    return Report(
        summary,
        plot_study(summary, path) if summary.ranked() else None,
        None if measured is None else plot_stairs(measured, stairs),
        results,
        step,
        settings,
    )
