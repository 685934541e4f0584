"""Pictures of the experiments on methods: means over seeds with their range, line by line.

draw_lines(path, {"kernel": [(0.5, [0.91, 0.90]), (0.8, [0.89])]}, title="Masks", axes=("zeros", "accuracy"))
draw_variants(path, rows_of(results))
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from autoprune.reporting._pictures import save_picture

Line = Sequence[tuple[float, Sequence[float]]]
"""(x, values of y, one for each seed) of each point."""


def draw_lines(
    path: Path,
    lines: Mapping[str, Line],
    *,
    title: str,
    axes: tuple[str, str],
    dashed: Sequence[str] = (),
    level: tuple[str, float] | None = None,
) -> None:
    """Draw a line through the means of each name, with bars from the lowest to the highest seed.

    Args:
        path: of the picture.
        lines: {name: points}. A dashed one has the colour of the line before it.
        title: of the picture.
        axes: names of both axes.
        dashed: names of the lines that are dashed.
        level: (name, y) of a horizontal line.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    plot = figure.add_subplot()
    colour = -1
    for name, points in lines.items():
        colour += name not in dashed
        listed = sorted(points)
        means = [statistics.mean(values) for _, values in listed]
        below = [mean - min(values) for mean, (_, values) in zip(means, listed, strict=True)]
        above = [max(values) - mean for mean, (_, values) in zip(means, listed, strict=True)]
        plot.errorbar(
            [x for x, _ in listed],
            means,
            (below, above),
            label=name,
            color=f"C{colour}",
            marker="o",
            markersize=4,
            capsize=2,
            linestyle="--" if name in dashed else "-",
        )
    if level is not None:
        plot.axhline(level[1], label=level[0], color="k", linewidth=1, linestyle=":")
    plot.set_title(title)
    plot.set_xlabel(axes[0])
    plot.set_ylabel(axes[1])
    plot.grid(alpha=0.3)
    plot.legend(fontsize=8)
    save_picture(figure, path)


def draw_variants(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Draw the test accuracy of each variant, a panel for each net and budget, and a dot for each seed.

    Args:
        path: of the picture.
        rows: as `pruned_rows.measure` writes them.
    """
    panels = list(dict.fromkeys((row["net"], row["budget"]) for row in rows))
    variants = list(dict.fromkeys(row["variant"] for row in rows))[::-1]
    figure = Figure(figsize=(2 + 3.2 * len(panels), 1.2 + 0.35 * len(variants)), layout="constrained")
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for plot, panel in zip(grid, panels, strict=True):
        mine = [row for row in rows if (row["net"], row["budget"]) == panel]
        dense = statistics.mean(100 * float(row["dense_test"]) for row in mine)
        plot.axvline(dense, color="k", linewidth=1, linestyle=":")
        tests = [100 * float(row["test"]) for row in mine]
        plot.plot(tests, [variants.index(row["variant"]) for row in mine], "o", alpha=0.6)
        plot.set_title("\n".join(panel), fontsize=9)
        plot.set_xlabel("test accuracy, %")
        plot.grid(alpha=0.3)
    grid[0].set_yticks(range(len(variants)), variants)
    save_picture(figure, path)
