"""Summarises and plots a study, finished or not.

Example:
    report("digits", "sqlite:///runs/digits.db").plot          # runs/digits/report.png
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from autoprune.errors import LatencyError
from autoprune.latency import Stairs
from autoprune.report import StudySummary, format_of, plot_stairs, plot_study, summarise
from autoprune.run._finetune_result import FinetuneResult, known_results
from autoprune.run._next_step import next_step
from autoprune.run._paths import check_writable, protected_files, require_unprotected
from autoprune.run._stored_config import stored_spec
from autoprune.run._trust import UNTRUSTED, require_own_path
from autoprune.study import SearchStudy, damaged, open_study


@dataclass(frozen=True)
class Report:
    """A summary of a study, with its plots.

    Attributes:
        summary: the trials and figures of the study.
        plot: file of the plot of the trials, or None if no trial has a score.
        stairs: file of the plot of latency against width, or None if the divisor was not measured.
        finetuned: the results of finetunes whose models still exist.
        next_step: a line that names the next command, or "" before the first complete trial.
    """

    summary: StudySummary
    plot: Path | None
    stairs: Path | None
    finetuned: tuple[FinetuneResult, ...]
    next_step: str


def report(study: str, storage: str, output: str | os.PathLike[str] | None = None) -> Report:
    """Summarise a study and plot it. The study itself is not changed.

    Args:
        study: name of the study.
        storage: URL of its storage.
        output: the picture, a PNG, SVG or PDF file by its suffix. By default it is report.png in the output
            folder of the search. A plot of latency against width is written next to it, e.g. as stairs.png.

    Raises:
        StudyError: the study does not exist, or its output folder is neither in the current folder nor named
            by this user.
        ConfigError: the folder of the pictures cannot be written, or `output` has another suffix.
    """
    suffix = ".png" if output is None else f".{format_of(output)}"
    opened = open_study(storage, study)
    summary = summarise(opened, with_importances=True)
    measured = _stairs(opened)
    if not summary.ranked() and measured is None:
        return Report(summary, None, None, (), "")
    spec = stored_spec(opened)
    if output is not None:
        path = Path(output)
    else:
        path = spec.folder / "report.png"
        require_own_path(opened, "--output", path, UNTRUSTED)
    key = "--output" if output is not None else "output.folder"
    stairs = path.with_name(f"stairs{suffix}")
    for picture in (path, stairs):
        require_unprotected(picture, key, protected_files(opened.url, spec))
    # Read before the plots are drawn, so that a damaged note leaves no half-finished report.
    results, step = tuple(known_results(opened)), next_step(opened, summary)
    check_writable(path.parent, key)
    return Report(
        summary,
        plot_study(summary, path) if summary.ranked() else None,
        None if measured is None else plot_stairs(measured, stairs),
        results,
        step,
    )


def _stairs(study: SearchStudy) -> Stairs | None:
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
