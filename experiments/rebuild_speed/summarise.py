"""Write table.md, ratios.png and tracing.png from the rows of `run`.

python -m experiments.rebuild_speed.summarise
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from scipy.stats import gmean, linregress

from experiments.common import rows_of

FOLDER = Path(__file__).parent
Rows = list[dict[str, str]]


def main() -> None:
    sections = {"copy": _copy, "pruning": _pruning, "tracing": _tracing, "costs": _costs}
    measured = {part: rows for part in sections if (rows := rows_of(FOLDER / f"{part}.csv"))}
    lines = [line for part, rows in measured.items() for line in sections[part](rows)]
    (FOLDER / "table.md").write_text("\n".join(lines) + "\n")
    if {"copy", "pruning"} <= measured.keys():
        _plot_ratios(measured["copy"], measured["pruning"])
    if "tracing" in measured:
        _plot_tracing(measured["tracing"])


def _copy(rows: Rows) -> list[str]:
    ratios = [float(row["ratio"]) for row in rows]
    return [
        f"## Rebuild over deepcopy: geometric mean {gmean(ratios):.2f}, worst {max(ratios):.2f}",
        *_table(
            ["model", "MB", "tensors", "deepcopy, ms", "rebuild, ms", "ratio", "peak / (dense + small)"],
            [
                [
                    *(row[key] for key in ("model", "dense_mb", "tensors", "deepcopy_ms", "rebuild_ms")),
                    _quartiles(row, "ratio"),
                    row["peak_over_dense_and_small"],
                ]
                for row in rows
            ],
        ),
    ]


def _pruning(rows: Rows) -> list[str]:
    heads = ["model", "theirs, ms", "ours, ms", "ratio", "theirs with L1, ms", "ours with L1, ms", "ratio"]
    means = {kind: gmean([float(r[f"{kind}_ratio"]) for r in _finite(rows, kind)]) for kind in _KINDS}
    return [
        f"## Torch-Pruning over autoprune: {means['unranked']:.0f} times unranked, {means['l1']:.0f} with L1",
        *_table(
            [*heads, "L1 ranks once, ms", "failure"],
            [
                [
                    row["model"],
                    *(
                        value
                        for kind in _KINDS
                        for value in (
                            row[f"{kind}_theirs_ms"],
                            row[f"{kind}_ours_ms"],
                            _quartiles(row, f"{kind}_ratio"),
                        )
                    ),
                    row["l1_once_ms"],
                    row["failure"],
                ]
                for row in rows
            ],
        ),
    ]


def _tracing(rows: Rows) -> list[str]:
    slopes = [
        f"{family}: {_slope(part, 'trace_seconds'):.2f} (export alone {_slope(part, 'export_seconds'):.2f})"
        for family, part in _families(rows).items()
    ]
    return [
        f"## Seconds of a trace against parameters, slope on log-log axes: {'; '.join(slopes)}",
        *_table(
            ["model", "parameters", "operators", "trace, s", "export alone, s"],
            [
                [
                    row["model"],
                    f"{int(row['parameters']):,}",
                    row["operators"],
                    _quartiles(row, "trace_seconds"),
                    _quartiles(row, "export_seconds"),
                ]
                for row in rows
            ],
        ),
    ]


def _costs(rows: Rows) -> list[str]:
    return [
        "## Costs and proposals",
        *_table(
            ["model", "groups", "costs, candidates/s", "decode, ms each"],
            [
                [
                    row["model"],
                    row["groups"],
                    f"{int(row['costs_per_second']):,}",
                    _quartiles(row, "decode_ms_each", 3),
                ]
                for row in rows
            ],
        ),
    ]


_KINDS = ("unranked", "l1")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = (" | ".join(row) for row in [head, ["---"] * len(head), *rows])
    return ["", *(f"| {line} |" for line in lines), ""]


def _quartiles(row: dict[str, str], key: str, digits: int = 2) -> str:
    middle, low, high = (float(row[name]) for name in (key, f"{key}_low", f"{key}_high"))
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _finite(rows: Rows, kind: str) -> Rows:
    return [row for row in rows if np.isfinite(float(row[f"{kind}_ratio"]))]


def _families(rows: Rows) -> dict[str, Rows]:
    families: dict[str, Rows] = {}
    for row in rows:
        families.setdefault(row["model"].split("-")[0], []).append(row)
    return families


def _slope(rows: Rows, key: str) -> float:
    sizes, times = ([float(row[name]) for row in rows] for name in ("parameters", key))
    return float(linregress(np.log(sizes), np.log(times)).slope)


def _plot_ratios(copies: Rows, pruned: Rows) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    _bars(left, copies, "ratio")
    left.axvline(1.0, color="0.3", linestyle=":")
    left.set_xlabel("rebuild / deepcopy (less is better)")
    _bars(right, _finite(pruned, "unranked"), "unranked_ratio")
    right.set_xscale("log")
    right.set_xlim(left=1)
    right.set_xlabel("Torch-Pruning / rebuild, per candidate (more is better)")
    figure.savefig(FOLDER / "ratios.png", dpi=120)
    plt.close(figure)


def _bars(axes: Axes, rows: Rows, key: str) -> None:
    middle, low, high = (
        np.array([float(row[name]) for row in rows]) for name in (key, f"{key}_low", f"{key}_high")
    )
    axes.barh([row["model"] for row in rows], middle, xerr=[middle - low, high - middle], color="tab:blue")
    axes.invert_yaxis()


def _plot_tracing(rows: Rows) -> None:
    figure, axes = plt.subplots(figsize=(6, 4.5), layout="constrained")
    for (family, part), colour in zip(_families(rows).items(), ("tab:blue", "tab:orange"), strict=True):
        sizes = [float(row["parameters"]) for row in part]
        for key, style in (("trace_seconds", "o-"), ("export_seconds", "s:")):
            label = f"{family}, {key.removesuffix('_seconds')}: slope {_slope(part, key):.2f}"
            axes.loglog(sizes, [float(row[key]) for row in part], style, color=colour, label=label)
    axes.set_xlabel("parameters")
    axes.set_ylabel("seconds")
    axes.legend()
    figure.savefig(FOLDER / "tracing.png", dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
