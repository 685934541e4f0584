"""Write table.md, prediction.png and the measured part of README.md from the rows that there are so far.

    python -m experiments.latency.summarise

What is not measured yet is left out. Errors of predictions are means of absolute relative errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from experiments.common import Part, markdown_table, rows_of, write_summary
from experiments.latency.plans import RESULTS as PLANS
from experiments.latency.prediction import BATCHES, DIVISORS, MODELS, RUNTIMES
from experiments.latency.prediction import RESULTS as PREDICTIONS
from experiments.latency.search import RESULTS as FINALISTS

HERE = Path(__file__).parent
ERROR, SHARE = 0.05, 0.85
"""Targets of a setting's mean error, and of the latency-aware plan's time over that of one ratio for all."""

Row = Mapping[str, str]


def main() -> None:
    write_summary(HERE, (summarise_predictions, summarise_plans, summarise_search))


def summarise_predictions() -> Part:
    """Tell the error of every setting, and draw all candidates."""
    settings = _by(rows_of(PREDICTIONS), "model", "runtime", "batch")
    if not settings:
        return [], ["Predictions: none so far."]
    draw(settings, HERE / "prediction.png")
    table = []
    for (model, runtime, batch), rows in settings.items():
        each = [error_of([row for row in rows if row["divisor"] == str(divisor)]) for divisor in DIVISORS]
        bias = float(np.mean([float(row["error"]) for row in rows]))
        worst = max(abs(float(row["error"])) for row in rows)
        numbers = [
            f"{error_of(rows):.1%}",
            *(f"{error:.1%}" for error in each),
            f"{bias:+.1%}",
            f"{worst:.1%}",
        ]
        table.append([_short(model), runtime, batch, str(len(rows)), *numbers])
    head = ["model", "runtime", "batch", "candidates", "mean error"]
    head += [f"in multiples of {divisor}" for divisor in DIVISORS] + ["bias", "worst"]
    errors = {setting: error_of(rows) for setting, rows in settings.items()}
    over = [f"{_setting(setting)} {error:.1%}" for setting, error in errors.items() if error > ERROR]
    total = len(MODELS) * len(RUNTIMES) * len(BATCHES)
    said = (
        f"Predictions, {len(settings)} of {total} settings: mean errors of "
        f"{min(errors.values()):.1%} to {max(errors.values()):.1%} (target: at most {ERROR:.0%}). "
        f"Settings above the target: {', '.join(over) or 'none'}."
    )
    return ["## Predicted against measured", *markdown_table(head, table)], [said]


def summarise_plans() -> Part:
    """Tell the latency of plans of equal FLOPs."""
    lines: list[str] = []
    said = []
    for (model, runtime), rows in _by(rows_of(PLANS), "model", "runtime").items():
        head = ["plan", "FLOPs, %", "latency over the dense model's (95%)", "predicted", "importance kept"]
        table = [
            [
                row["plan"],
                f"{100 * float(row['flops_share']):.1f}",
                f"{float(row['ratio']):.3f} [{float(row['low']):.3f}, {float(row['high']):.3f}]",
                f"{float(row['predicted_ratio']):.3f}",
                f"{float(row['importance']):.0f}",
            ]
            for row in rows
        ]
        setting = f"{_short(model)}, {runtime}, divisor {rows[0]['divisor']}"
        title = f"## Plans of half of the FLOPs: {setting}, dense {float(rows[0]['dense_ms']):.1f} ms"
        lines += [title, *markdown_table(head, table)]
        said.append(_plans_verdict(f"{_short(model)}, {runtime}", {row["plan"]: row for row in rows}))
    return lines, said or ["Plans: none so far."]


def _plans_verdict(where: str, plans: Mapping[str, Row]) -> str:
    ratios = {name: float(row["ratio"]) for name, row in plans.items()}
    share = ratios["aware"] / ratios["uniform"]
    # Intervals that overlap give no order.
    faster = [name for name in ("snapped", "importance") if plans_apart(plans["aware"], plans[name])]
    return (
        f"Plans, {where}: the latency-aware plan takes {share:.2f} of the latency of one ratio for all "
        f"(target: at most {SHARE}). Of the other two, "
        f"it is faster than {' and '.join(faster) or 'neither'}. Shares of the dense model's latency: "
        f"{', '.join(f'{name} {ratio:.3f}' for name, ratio in ratios.items())}."
    )


def plans_apart(faster: Row, slower: Row) -> bool:
    """Tell whether one plan is faster than another beyond the intervals of both."""
    return float(faster["high"]) < float(slower["low"])


def summarise_search() -> Part:
    """Print the latency of the search's finalists."""
    rows = rows_of(FINALISTS)
    if not rows:
        return [], ["Search: not run so far."]
    head = ["trial", "origin", "score, %", "FLOPs, %", "predicted, %", "measured, % (95%)", "within", "won"]
    table = [
        [
            row["trial"],
            row["origin"],
            f"{100 * float(row['score']):.2f}",
            f"{100 * float(row['flops_share']):.1f}",
            f"{100 * float(row['predicted']):.1f}",
            f"{_percent(row['measured'])} [{_percent(row['low'])}, {_percent(row['high'])}]",
            "yes" if row["met"] == "True" else "no",
            "won" if row["won"] == "True" else "",
        ]
        for row in rows
    ]
    winner = next(row for row in rows if row["won"] == "True")
    errors = [float(row["predicted"]) / float(row["measured"]) - 1 for row in rows]
    said = (
        f"Search under 60% of the latency: the winner, trial {winner['trial']}, takes "
        f"{_percent(winner['measured'])}% [{_percent(winner['low'])}, {_percent(winner['high'])}] of the "
        f"dense model's time, and {_percent(winner['once_more'])}% when timed once more. "
        f"The {len(rows)} finalists were predicted with a mean error of {float(np.mean(np.abs(errors))):.1%}."
    )
    return ["## A search under 60% of the latency", *markdown_table(head, table)], [said]


def _percent(share: str) -> str:
    return f"{100 * float(share):.1f}"


def error_of(rows: Sequence[Row]) -> float:
    """Return the mean absolute relative error."""
    return float(np.mean([abs(float(row["error"])) for row in rows])) if rows else float("nan")


def draw(settings: Mapping[tuple[str, ...], Sequence[Row]], path: Path) -> None:
    """Draw predicted over measured milliseconds, a panel a runtime."""
    figure, panels = plt.subplots(1, len(RUNTIMES), figsize=(11, 5), layout="constrained")
    for panel, runtime in zip(panels, RUNTIMES, strict=True):
        mine = {setting: rows for setting, rows in settings.items() if setting[1] == runtime}
        if mine:
            _draw_runtime(panel, mine)
        panel.set(title=runtime, xlabel="measured, ms", ylabel="predicted, ms")
    figure.savefig(path, dpi=150)


def _draw_runtime(panel: Axes, settings: Mapping[tuple[str, ...], Sequence[Row]]) -> None:
    for (model, _, batch), rows in settings.items():
        panel.loglog(
            [float(row["measured_ms"]) for row in rows],
            [float(row["predicted_ms"]) for row in rows],
            "o" if batch == "1" else "^",
            markersize=4,
            alpha=0.7,
            label=f"{_short(model)}, batch {batch}: {error_of(rows):.1%}",
        )
    ends = np.array(panel.get_xlim())
    panel.plot(ends, ends, color="grey", linewidth=0.8)
    panel.fill_between(ends, ends * (1 - ERROR), ends * (1 + ERROR), color="grey", alpha=0.2, linewidth=0)
    panel.legend(fontsize=8, title="mean error")


def _by(rows: Sequence[dict[str, str]], *columns: str) -> dict[tuple[str, ...], list[dict[str, str]]]:
    """Return the rows by the values of some columns."""
    found: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        found.setdefault(tuple(row[column] for column in columns), []).append(row)
    return found


def _short(model: str) -> str:
    return model.removeprefix("autoprune/")


def _setting(setting: Sequence[str]) -> str:
    model, runtime, batch = setting
    return f"{_short(model)} {runtime} batch {batch}"


if __name__ == "__main__":
    main()
