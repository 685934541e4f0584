"""Sum up `prediction`: the error of each model, runtime and batch, and a scatter of predicted over measured.

python -m experiments.latency.errors          # prints the table, writes prediction.png
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from experiments.common import rows_of
from experiments.latency.prediction import RESULTS, RUNTIMES

PLOT = Path(__file__).parent / "prediction.png"
TARGET = 0.05

Rows = list[dict[str, str]]


def main() -> None:
    rows = rows_of(RESULTS)
    print("| model | runtime | batch | candidates | mean error | bias | at odd widths | in multiples of 8 |")
    print("|---|---|---|---|---|---|---|---|")
    for (model, runtime, batch), mine in settings_of(rows).items():
        parts = [error_of([row for row in mine if row["divisor"] == divisor]) for divisor in ("1", "8")]
        bias = np.mean([float(row["error"]) for row in mine])
        name = model.removeprefix("autoprune/")
        print(
            f"| {name} | {runtime} | {batch} | {len(mine)} | {error_of(mine):.1%} "
            f"| {bias:+.1%} | {parts[0]:.1%} | {parts[1]:.1%} |"
        )
    draw(rows)


def settings_of(rows: Rows) -> dict[tuple[str, str, str], Rows]:
    """Return the rows by model, runtime and batch."""
    found: dict[tuple[str, str, str], Rows] = {}
    for row in rows:
        found.setdefault((row["model"], row["runtime"], row["batch"]), []).append(row)
    return found


def error_of(rows: Rows) -> float:
    """Return the mean absolute relative error."""
    return float(np.mean([abs(float(row["error"])) for row in rows])) if rows else float("nan")


def draw(rows: Rows) -> None:
    """Draw predicted over measured milliseconds, a panel a runtime."""
    figure, panels = plt.subplots(1, len(RUNTIMES), figsize=(10, 4.8), layout="constrained")
    for panel, runtime in zip(panels, RUNTIMES, strict=True):
        mine = [row for row in rows if row["runtime"] == runtime]
        for (model, _, batch), each in settings_of(mine).items():
            panel.loglog(
                [float(row["measured_ms"]) for row in each],
                [float(row["predicted_ms"]) for row in each],
                "o" if batch == "1" else "^",
                markersize=4,
                alpha=0.7,
                label=f"{model.removeprefix('autoprune/')}, batch {batch}: {error_of(each):.1%}",
            )
        ends = np.array(panel.get_xlim())
        panel.plot(ends, ends, color="grey", linewidth=0.8)
        panel.fill_between(
            ends, ends * (1 - TARGET), ends * (1 + TARGET), color="grey", alpha=0.2, linewidth=0
        )
        panel.set(
            title=f"{runtime}: mean error {error_of(mine):.1%}", xlabel="measured ms", ylabel="predicted ms"
        )
        panel.legend(fontsize=8)
    figure.savefig(PLOT, dpi=150)


if __name__ == "__main__":
    main()
