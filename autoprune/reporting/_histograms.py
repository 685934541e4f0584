"""Draw histograms of several sets of values side by side, such as the scales under several penalties.

Example:
    histograms = Histograms.of("BatchNorm scales", "scale", {"1e-4": scales, "1e-3": others})
    save_histograms(histograms, "scales.png")      # or .svg, .pdf, .csv

matplotlib is imported when a picture is drawn, not before.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoprune.reporting._csv_file import save_csv
from autoprune.reporting._curves import CSV, CURVE_FORMATS
from autoprune.reporting._pictures import format_of, save_picture

_WIDTH_INCHES = 3.2


@dataclass(frozen=True, eq=False)
class Histograms:
    """Histograms over the same bins.

    Attributes:
        title: title of the picture.
        axis: name of the values.
        edges: float64 [bins + 1], the edges of the bins.
        counts: {name of a histogram: int64 [bins]}.
        marks: {name of a histogram: a value to mark, such as a threshold}.
    """

    title: str
    axis: str
    edges: NDArray[np.float64]
    counts: Mapping[str, NDArray[np.int64]]
    marks: Mapping[str, float]

    @classmethod
    def of(
        cls,
        title: str,
        axis: str,
        values: Mapping[str, NDArray[np.float64]],
        *,
        bins: int = 40,
        marks: Mapping[str, float] | None = None,
    ) -> Histograms:
        """Count values in equal bins from 0 to the largest of all.

        Args:
            title: title of the picture.
            axis: name of the values.
            values: {name: values of 0 or more}.
            bins: number of bins.
            marks: {name: a value to mark}.
        """
        top = max((float(each.max()) for each in values.values() if each.size), default=0.0) or 1.0
        edges = np.linspace(0.0, top, bins + 1)
        counts = {name: np.histogram(each, edges)[0].astype(np.int64) for name, each in values.items()}
        return cls(title, axis, edges, counts, dict(marks or {}))


def save_histograms(histograms: Histograms, path: str | os.PathLike[str]) -> Path:
    """Write histograms to a file, as a picture or as CSV with a row for each bin, by its suffix.

    Raises:
        ConfigError: the file's name ends in none of CURVE_FORMATS.
        StudyError: the file cannot be written. An existing file is not changed.
    """
    if format_of(path, CURVE_FORMATS) == CSV:
        return _save_csv(histograms, Path(path))
    return _draw(histograms, path)


def _save_csv(histograms: Histograms, path: Path) -> Path:
    edges = histograms.edges
    rows = [
        (name, f"{low:.6g}", f"{high:.6g}", int(count))
        for name, counts in histograms.counts.items()
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    return save_csv(path, ("histogram", "from", "to", "count"), rows)


def _draw(histograms: Histograms, path: str | os.PathLike[str]) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = max(1, len(histograms.counts))
    figure = Figure(figsize=(_WIDTH_INCHES * panels + 0.8, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    row = figure.subplots(1, panels, sharex=True, sharey=True, squeeze=False)[0]
    for axes, (name, counts) in zip(row, histograms.counts.items(), strict=False):
        axes.stairs(counts, histograms.edges, fill=True, color="#4477aa")
        if name in histograms.marks:
            axes.axvline(histograms.marks[name], color="#ee6677", linestyle="--")
        axes.set_title(name, fontsize="medium")
        axes.set_xlabel(histograms.axis)
        axes.set_yscale("symlog", linthresh=1)  # a bin with one channel shows next to one with thousands
        axes.grid(alpha=0.3)
    row[0].set_ylabel("channels")
    figure.suptitle(histograms.title)
    return save_picture(figure, path)
