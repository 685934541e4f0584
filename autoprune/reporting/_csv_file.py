"""Write a table of values as a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from autoprune.errors import StudyError
from autoprune.support.atomic import saving


def save_csv(path: Path, heading: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """Write a heading and rows to a file, whole or not at all, and return its path.

    Raises:
        StudyError: the file cannot be written. An existing file is not changed.
    """
    with (
        saving(path, "table", StudyError) as partial,
        partial.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(heading)
        writer.writerows(rows)
    return path
