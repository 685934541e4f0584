"""Reads a study, in whatever state it is, into a summary and pictures.

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
    """A study as numbers and pictures.

    Attributes:
        summary: the numbers.
        plot: of the trials; None where none has a score.
        stairs: of the latency against the width, where the divisor was measured; else None.
        finetuned: the results of the finetunes whose models are still there.
        next_step: a line that names the next step, or "" before the first complete trial.
    """

    summary: StudySummary
    plot: Path | None
    stairs: Path | None
    finetuned: tuple[FinetuneResult, ...]
    next_step: str


def report(study: str, storage: str, output: str | os.PathLike[str] | None = None) -> Report:
    """Summarise a study and plot it; nothing of the study changes.

    Args:
        study: its name.
        storage: its URL.
        output: the picture, a PNG, SVG or PDF file by its suffix. Default: report.png in the output folder of
            the search. Stairs are drawn next to it, in stairs.png.

    Raises:
        StudyError: there is no such study, or it names an output folder that is not this user's.
        ConfigError: the folder of the pictures cannot be written, or `output` has another suffix.
    """
    suffix = ".png" if output is None else f".{format_of(output)}"
    opened = open_study(storage, study)
    summary = summarise(opened)
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
    # Read before anything is drawn: a damaged note leaves no picture behind.
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
    """Return the stairs that a study keeps, if it measured any.

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
