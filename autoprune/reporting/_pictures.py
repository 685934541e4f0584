"""Write a figure to a file in the format of its suffix.

Example:
    format_of("report.svg")                   # "svg"
    save_picture(figure, "report.svg")        # the file appears only when it is complete
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoprune.errors import ConfigError, StudyError
from autoprune.support.atomic import saving

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")


def format_of(path: str | os.PathLike[str], formats: Sequence[str] = FORMATS) -> str:
    """Return the format of a file by its suffix.

    Raises:
        ConfigError: the suffix is none of the formats.
    """
    suffix = Path(path).suffix.removeprefix(".").lower()
    if suffix not in formats:
        raise ConfigError(
            f"--output {path}: expected a name that ends in {', '.join(f'.{each}' for each in formats)}."
        )
    return suffix


def save_picture(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure to a file. Its folder is made if it is missing.

    Raises:
        ConfigError: the file's name ends in none of FORMATS.
        StudyError: the file cannot be written. An existing file is not changed.
    """
    chosen = format_of(path)
    with saving(Path(path), "picture", StudyError) as partial:
        figure.savefig(partial, dpi=150, format=chosen)
    return Path(path)
