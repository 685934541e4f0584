"""Writes the table of the coverage experiment: results.csv to table.md, sorted by family, with totals first.

python -m experiments.coverage.summarise
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoprune.rebuilding._proof import TOLERANCE
from experiments.common import rows_of
from experiments.coverage.models import MODELS
from experiments.coverage.run import RESULTS

TABLE = Path(__file__).with_name("table.md")

_COLUMNS = (
    "family",
    "model",
    "input",
    "groups (free)",
    "channels (free)",
    "MACs touched",
    "MACs at the least",
    "frozen and why",
    "largest difference",
    "costs equal",
    "half widths",
    "processor seconds",
)

_REASONS = 3
"""Most reasons that are shown for a model. results.csv has all."""

Row = dict[str, str]


def main() -> None:
    rows = sorted(rows_of(RESULTS), key=lambda row: (row["family"], row["model"]))
    lines = ["# Coverage", "", totals(rows), "", *_table(rows)]
    TABLE.write_text("\n".join(lines) + "\n")


def totals(rows: Sequence[Row]) -> str:
    """Return the sentences that stand above the table."""
    proved = [float(row["largest_difference"]) for row in rows if row["largest_difference"]]
    failed = [row for row in rows if row["error"]]
    narrowed = sum(row["all_narrowed"] != "" for row in rows)
    halves = sum(_half(row) == "ok" for row in rows)
    channels, free = (sum(int(row[key] or 0) for row in rows) for key in ("channels", "free_channels"))
    return (
        f"{len(rows)} of {len(MODELS)} models measured, {sum(row['groups'] != '' for row in rows)} traced, "
        f"{len(failed)} with an error. {free:,} of {channels:,} channels can be narrowed. "
        f"Of {len(proved)} proved in float64 with the groups that cross a normalisation kept full, "
        f"{sum(value <= TOLERANCE for value in proved)} differ by at most {TOLERANCE:.0e}. "
        f"The largest difference is {max(proved, default=0):.1e}. {narrowed} ran with all groups narrowed, "
        f"{halves} train and run at half the widths. "
        f"Predicted costs equal the counted ones for {sum(_all_equal(row) for row in rows)} models. "
        f"The dense model is untouched in {sum(row['untouched'] == 'yes' for row in rows)}. "
        f"{sum(float(row['cpu_seconds'] or 0) for row in rows) / 60:.0f} minutes of processor time in all."
    )


def _all_equal(row: Row) -> bool:
    equal, _, plans = row["costs_equal"].partition(" of ")
    return bool(plans) and equal == plans


def _half(row: Row) -> str:
    return "ok" if row["training"] == row["evaluation"] == "ok" and row["other_size"] else "failed"


def _table(rows: Sequence[Row]) -> list[str]:
    lines = [f"| {' | '.join(_COLUMNS)} |", "|" + " --- |" * len(_COLUMNS)]
    return [*lines, *(f"| {' | '.join(_cells(row))} |" for row in rows)]


def _cells(row: Row) -> list[str]:
    cells = [row["family"], row["model"], row["input"] + (" meta" if row["device"] == "meta" else "")]
    if not row["groups"]:
        return [*cells, *[""] * 4, row["error"].replace("|", ";"), *[""] * 3, row["cpu_seconds"]]
    reasons = row["frozen_why"].split(" | ")
    shown = "; ".join(reasons[:_REASONS]) + (
        f"; {len(reasons) - _REASONS} more" if reasons[_REASONS:] else ""
    )
    error = f"; ERROR {row['error']}" if row["error"] else ""
    return [
        *cells,
        f"{row['groups']} ({row['free_groups']})",
        f"{row['channels']} ({row['free_channels']})",
        _percent(row["macs_touched"]),
        _percent(row["macs_smallest"]),
        (shown + error).replace("|", ";"),
        row["largest_difference"],
        row["costs_equal"],
        _half(row),
        row["cpu_seconds"],
    ]


def _percent(share: str) -> str:
    return f"{100 * float(share):.1f}%" if share else ""


if __name__ == "__main__":
    main()
