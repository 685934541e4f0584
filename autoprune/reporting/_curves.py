"""Show curves of channel groups over the keep ratio as a table, as a picture or as CSV.

Example:
    curves = Curves("Error", "error", (Curve("layer1.0.conv1", (8, 16), (0.5, 1.0), (0.02, 0.0)),))
    console.print(curve_table(curves))
    save_curves(curves, "errors.png")              # or .svg, .pdf, .csv

matplotlib is imported when a picture is drawn, not before.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.table import Table

from autoprune.reporting._csv_file import save_csv
from autoprune.reporting._pictures import FORMATS, format_of, save_picture
from autoprune.reporting._tables import plain_table

CSV = "csv"
CURVE_FORMATS = (*FORMATS, CSV)

_NEAR = 0.05
"""A keep ratio this far outside of a curve still has a value, since not every ratio is a width."""

_MOST_NAMES = 24
"""A picture with more curves than this has no legend, and shows the order of the groups by colour only."""


@dataclass(frozen=True)
class Curve:
    """The error or the score of a group, or of tied groups, at several widths.

    Attributes:
        name: name of the group or the tie.
        widths: channels kept, ascending. Those of tied groups are added up.
        ratios: keep ratio of each width.
        values: error or score at each width, or NaN if it is not finite.
    """

    name: str
    widths: tuple[int, ...]
    ratios: tuple[float, ...]
    values: tuple[float, ...]

    def at(self, ratio: float) -> float:
        """Return the value at a keep ratio, linear between widths, or NaN outside of the curve."""
        if not self.ratios[0] - _NEAR <= ratio <= self.ratios[-1] + _NEAR:
            return math.nan
        return float(np.interp(ratio, self.ratios, self.values))


@dataclass(frozen=True)
class Curves:
    """Curves of one model.

    Attributes:
        title: title of the picture and of the table.
        value: name of the values, such as "error" or "accuracy".
        curves: the curves in the order of the model.
        axis: label of the picture's vertical axis, by default the name of the values.
        ratios: keep ratios in the table.
        baseline: value of the dense model, drawn as a dashed line, or None for no line.
        notes: {name of a curve: why it is an estimate}.
        files: files to which the curves were written.
    """

    title: str
    value: str
    curves: tuple[Curve, ...]
    axis: str = ""
    ratios: tuple[float, ...] = ()
    baseline: float | None = None
    notes: Mapping[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()


def curve_table(curves: Curves) -> Table:
    """Return a table with a row for each curve, which shows its values at a few keep ratios."""
    table = plain_table(curves.title)
    table.add_column("group", overflow="fold")
    table.add_column("width", justify="right", no_wrap=True)
    for ratio in curves.ratios:
        table.add_column(f"{ratio:.0%}", justify="right", no_wrap=True)
    for curve in curves.curves:
        values = (curve.at(ratio) for ratio in curves.ratios)
        table.add_row(curve.name, str(curve.widths[-1]), *map(_number, values))
    return table


def curve_notes(curves: Curves) -> list[str]:
    """Return sentences that name the curves that are estimates, and the files that were written."""
    notes = [f"{name} is an estimate: {note}." for name, note in curves.notes.items()]
    if curves.files:
        notes.append(f"Wrote {', '.join(map(str, curves.files))}.")
    return notes


def save_curves(curves: Curves, path: str | os.PathLike[str]) -> Path:
    """Write curves to a file, as a picture or as CSV with a row for each group and width, by its suffix.

    Raises:
        ConfigError: the file's name ends in none of CURVE_FORMATS.
        StudyError: the file cannot be written. An existing file is not changed.
    """
    if format_of(path, CURVE_FORMATS) == CSV:
        return _save_csv(curves, Path(path))
    return _draw(curves, path)


def _save_csv(curves: Curves, path: Path) -> Path:
    rows = [
        (curve.name, width, f"{ratio:.6g}", f"{value:.6g}")
        for curve in curves.curves
        for width, ratio, value in zip(curve.widths, curve.ratios, curve.values, strict=True)
    ]
    return save_csv(path, ("group", "width", "keep_ratio", curves.value), rows)


def _draw(curves: Curves, path: str | os.PathLike[str]) -> Path:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    named = len(curves.curves) <= _MOST_NAMES
    figure = Figure(figsize=(9 if named else 7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.95, len(curves.curves)))
    marker = "o" if max(len(curve.ratios) for curve in curves.curves) <= _MOST_NAMES else ""
    for curve, color in zip(curves.curves, colors, strict=True):
        percent = [100 * ratio for ratio in curve.ratios]
        axes.plot(percent, curve.values, color=color, marker=marker, markersize=3, label=curve.name)
    if curves.baseline is not None:
        axes.axhline(curves.baseline, color="#555555", linestyle="--")
    axes.set_xlabel("channels kept in one group, %" + ("" if named else " (first groups dark)"))
    axes.set_ylabel(curves.axis or curves.value)
    axes.set_title(curves.title)
    axes.grid(alpha=0.3)
    if named:
        figure.legend(loc="outside right upper", fontsize="small")
    return save_picture(figure, path)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"
