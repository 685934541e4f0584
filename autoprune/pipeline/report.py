"""Reads a study, in whatever state it is, into a summary and a picture.

Before: a study in its storage; after: the user.

    summary, picture = report("digits", "sqlite:///runs/digits.db")
"""

from __future__ import annotations

import os
from pathlib import Path

from autoprune.pipeline.places import check_writable
from autoprune.pipeline.stored import stored_config
from autoprune.report import StudySummary, plot_study, summarise
from autoprune.study import open_study


def report(
    study: str, storage: str, output: str | os.PathLike[str] | None = None
) -> tuple[StudySummary, Path | None]:
    """Summarise a study and plot it, where a trial has a score; nothing of the study changes.

    Args:
        study: its name.
        storage: its URL.
        output: the PNG file; default report.png in the output folder of the search.

    Raises:
        StudyError: there is no such study.
        ConfigError: the folder of the picture cannot be written.
    """
    opened = open_study(storage, study)
    summary = summarise(opened)
    if not summary.ranked():
        return summary, None
    path = (
        Path(output) if output is not None else Path(str(stored_config(opened).output.folder)) / "report.png"
    )
    check_writable(path.parent, "--output" if output is not None else "output.folder")
    return summary, plot_study(summary, path)
