"""Draw the stairs of a runtime: latency over width, for each measured layer.

matplotlib is imported only when a picture is drawn.

Example:
    plot_stairs(Stairs.from_json(study.facts.stairs), "runs/digits/stairs.png")
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from autoprune.latency import Curve, Stairs
from autoprune.reporting._pictures import save_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OTHER, _MULTIPLE = "#4477aa", "#ee6677"


def plot_stairs(stairs: Stairs, path: str | os.PathLike[str]) -> Path:
    """Draw the latency of each block over its width, with the multiples of the divisor highlighted."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(stairs.curves), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    row = figure.subplots(1, len(stairs.curves), squeeze=False)[0]
    for axes, (name, curve) in zip(row, stairs.curves.items(), strict=True):
        _draw(axes, curve, stairs.divisor)
        axes.set_title(name)
    row[0].set_ylabel("latency, ms")
    row[0].legend(loc="best", framealpha=0.8)
    figure.suptitle(f"Latency over width in {stairs.runtime}: divisor {stairs.divisor}")
    return save_picture(figure, path)


def _draw(axes: Axes, curve: Curve, divisor: int) -> None:
    axes.plot(curve.widths, curve.milliseconds, color=_OTHER, linewidth=0.8, alpha=0.5)
    for multiple, color, label in (
        (False, _OTHER, "other widths"),
        (True, _MULTIPLE, f"multiples of {divisor}" if divisor > 1 else "all widths"),
    ):
        points = [
            (width, milliseconds, error)
            for width, milliseconds, error in zip(curve.widths, curve.milliseconds, curve.errors, strict=True)
            if (width % divisor == 0) is multiple
        ]
        if points:
            widths, heights, errors = zip(*points, strict=True)
            axes.errorbar(widths, heights, errors, fmt="o", markersize=3, color=color, label=label)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("width, channels")
    axes.grid(alpha=0.3)
