"""The charts of the HTML report, each a function from a summary to geometry.

Example:
    history_chart(summary).marks[0].text      # "Trial 0: 0.9303 ±0.0151, complete, by uniform"
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from autoprune.config.rungs import score_text
from autoprune.cost import COSTS, three_digits
from autoprune.latency import Curve, Stairs
from autoprune.reporting._agreement import RungAgreement
from autoprune.reporting._history import Origin, best_so_far, floor_of, is_partial, score_floor
from autoprune.reporting._html_chart import MANY, Axis, Bar, Chart, Key, Line, Mark, Plot, Tick
from autoprune.reporting._rows import outcome, race_rows, width_rows
from autoprune.reporting._summary import StudySummary
from autoprune.study import TrialRecord

Savings = Mapping[str, Mapping[str, float]]
"""{group: {cost: the amount that narrowing the group saves}} of one trial."""

_KEPT, _SAVED = 130.0, 70.0
"""Heights in pixels of the two halves of the architecture strip."""

_FILLED = 0.05
"""A cost whose range over the trials is smaller than this share of it is the same for all of them."""

_FEWEST_COLUMNS = 12
"""Columns that the architecture strip has room for at least, so that those of a small model are not wide."""

_GAP = 0.18
"""Gap between two bars as a share of their distance."""


def _percent(share: float) -> str:
    return f"{100 * share:.10g}%"


def _whole(value: float) -> str:
    return f"{value:.0f}"


def describe(record: TrialRecord, summary: StudySummary) -> str:
    """Return a trial in one line: its score, costs, outcome and origin."""
    costs = [
        f"{share:.1%} of the {COSTS[cost].label}"
        for cost in summary.shown_costs
        if not math.isnan(share := summary.share(record, cost))
    ]
    score = "no score" if record.score is None else score_text(record.score, record.error)
    return f"Trial {record.number}: {score}; {', '.join(costs)}; {outcome(record)}; by {record.origin}"


def _kind(record: TrialRecord, summary: StudySummary) -> str:
    if summary.best is not None and record.number == summary.best.number:
        return "best"
    return "partial" if is_partial(record) else "trial"


def _shape(record: TrialRecord) -> str:
    return "diamond" if record.is_warm_start else "dot"


def _add_trial(
    plot: Plot, x: float, record: TrialRecord, summary: StudySummary, floor: float, text: str
) -> None:
    score, kind = record.score or 0.0, _kind(record, summary)
    shape = "below" if score < floor else _shape(record)
    size = 6.0 if kind == "best" else 4.0
    plot.mark((x, max(score, floor)), kind, text, trial=record.number, shape=shape, size=size)


def _by_importance(records: Iterable[TrialRecord], summary: StudySummary) -> list[TrialRecord]:
    """Return the trials in the order of drawing, so that the best one lies above the others."""
    order = {"partial": 0, "trial": 1, "best": 2}
    return sorted(records, key=lambda record: (order[_kind(record, summary)], record.number))


def history_chart(summary: StudySummary) -> Chart | None:
    """Return the scores over the trials, with the best so far, or None if no trial has a score."""
    if not summary.ranked():
        return None
    floor, scored = score_floor(summary), summary.ranked()
    best = best_so_far(summary)
    top = max(summary.dense_score, *(record.score or 0.0 for record in scored))
    last = max(record.number for record in summary.records)
    plot = Plot(Axis(-0.5 - 0.01 * last, last + 0.5 + 0.01 * last, _whole), Axis.over([floor, top]))
    for record in scored if len(scored) <= MANY else ():
        first, final = (max(floor, each.score) for each in (record.scores[0], record.scores[-1]))
        if first != final:
            plot.line((record.number, first), (record.number, final), "climb")
    plot.across(summary.dense_score, "dense")
    if best:
        plot.steps([*best, (last, best[-1][1])], "best")
    for record in _by_importance(scored, summary):
        _add_trial(plot, record.number, record, summary, floor, describe(record, summary))
    for record in summary.records:
        if record.state == "failed" and record.score is None:
            text = f"Trial {record.number} failed: {record.failure or 'unknown'}"
            plot.mark((record.number, plot.y.low), "failed", text, trial=record.number, shape="cross")
    has_climbs = any(line.kind == "climb" for line in plot.lines)
    climbs = " A thin line begins at the score after the first rung." if has_climbs else ""
    return _chart(
        plot,
        "Scores in the order of the trials",
        f"Higher is better. The line rises whenever a trial beats all before it.{climbs}",
        "trial",
        summary.metric,
        legend=_history_legend(plot, scored),
        is_wide=True,
    )


def _history_legend(plot: Plot, scored: Iterable[TrialRecord]) -> list[Key]:
    """Return the keys of the marks and lines that the plot has."""
    keys = [
        Key("dot", "trial", "sampler"),
        Key("diamond", "trial", "warm start"),
        Key("dot", "partial", "pruned, or failed after a rung"),
        Key("cross", "failed", "failed"),
        Key("line", "best", "best so far"),
        Key("line", "dense", "dense model"),
    ]
    shown = {(mark.shape, mark.kind) for mark in plot.marks} | {("line", line.kind) for line in plot.lines}
    # The best trial has a kind and size of its own, and trials below the axis a shape of their own: the
    # legend explains the shapes that the others have.
    for each in scored:
        shown.add(("dot", "partial") if is_partial(each) else (_shape(each), "trial"))
    return [key for key in keys if (key.shape, key.kind) in shown]


def cost_charts(summary: StudySummary) -> list[Chart]:
    """Return the score over each cost that differs between trials, the objectives first."""
    wanted = dict.fromkeys((*summary.objectives[1:], *filter(None, [summary.smallest]), *summary.shown_costs))
    charts = {cost: chart for cost in wanted if (chart := _cost_chart(summary, cost)) is not None}
    spread = {cost: _spread(summary, cost) for cost in charts}
    # All trials fill the budget, so a score against that cost shows little.
    differing = [charts[cost] for cost in charts if spread[cost] > _FILLED or cost in summary.objectives]
    return differing or list(charts.values())


def _spread(summary: StudySummary, cost: str) -> float:
    """Return the range of a cost over the trials with a score, as a share of the largest."""
    shares = [share for each in summary.ranked() if math.isfinite(share := summary.share(each, cost))]
    return 1 - min(shares) / max(shares) if max(shares, default=0.0) > 0 else 0.0


def _cost_chart(summary: StudySummary, cost: str) -> Chart | None:
    if not summary.ranked():
        return None
    floor = score_floor(summary)
    scored = [record for record in summary.ranked() if math.isfinite(summary.share(record, cost))]
    scored = [record for record in scored if (record.score or 0.0) >= floor]
    if len({summary.share(record, cost) for record in scored}) < 2:
        return None
    dense, label = summary.dense_costs[cost], COSTS[cost].label
    limit = summary.limits.get(cost, math.inf) / dense
    shares = [summary.share(record, cost) for record in scored]
    top = max(summary.dense_score, *(record.score or 0.0 for record in scored))
    x = Axis.over([*shares, *([limit] if limit < 1 else [])], write=_percent)
    plot = Plot(x, Axis.over([floor, top]))
    plot.across(summary.dense_score, "dense")
    keys = [Key("line", "dense", "dense model")]
    if limit < 1:
        plot.line((limit, plot.y.low), (limit, plot.y.high), "limit")
        keys.append(Key("line", "limit", "budget"))
    if summary.least_score is not None:
        plot.across(summary.least_score, "limit")
        keys.append(Key("line", "limit", "tolerance"))
    front = [(summary.share(each, cost), each.score or 0.0) for each in summary.front]
    if len(summary.objectives) == 2 and cost == summary.objectives[1]:
        plot.steps([point for point in front if point[1] >= floor], "best")
        keys.append(Key("line", "best", "Pareto front"))
    for record in _by_importance(scored, summary):
        _add_trial(plot, summary.share(record, cost), record, summary, floor, describe(record, summary))
    if summary.best is not None:
        keys.append(Key("dot", "best", f"trial {summary.best.number}, shown above"))
    return _chart(
        plot,
        f"Score against {label}",
        "Up and to the left is better."
        + (" A trial of the front has none above it and to its left." if summary.front else ""),
        f"{label}, share of the dense model",
        summary.metric,
        legend=keys,
    )


def agreement_chart(found: RungAgreement, summary: StudySummary) -> Chart:
    """Return the scores after one rung over those after a cheaper one."""
    pairs = []
    for record in summary.records:
        scores = {each.name: each for each in record.scores}
        if record.reused is None and found.lower in scores and found.upper in scores:
            pairs.append((record, scores[found.lower].score, scores[found.upper].score))
    plot = Plot(Axis.over(pair[1] for pair in pairs), Axis.over(pair[2] for pair in pairs))
    for record, below, above in pairs:
        text = (
            f"Trial {record.number}: {below:.4f} after {found.lower}, {above:.4f} after {found.upper}; "
            f"by {record.origin}"
        )
        kind = _kind(record, summary)
        plot.mark((below, above), kind, text, trial=record.number, shape=_shape(record))
    return _chart(
        plot,
        f"{found.upper} against {found.lower}",
        "The closer the points are to one rising line, the better the cheap rung ranks.",
        f"{summary.metric} after {found.lower}",
        f"{summary.metric} after {found.upper}",
    )


def race_chart(summary: StudySummary) -> Chart | None:
    """Return the scores of the entrants of the race over their epochs, or None without a race."""
    rows = race_rows(summary)
    curves = {
        row.number: [(stage.epochs, stage.score) for stage in row.stages if stage is not None] for row in rows
    }
    points = [point for curve in curves.values() for point in curve]
    if summary.race is None or not points:
        return None
    ends = summary.race.result.ends
    longest = max(map(len, curves.values()))
    whole = [score for curve in curves.values() if len(curve) == longest for _, score in curve]
    floor = floor_of([score for _, score in points], whole, summary.dense_score)
    y = Axis.over([summary.dense_score, floor, *whole])
    plot = Plot(Axis.over([0, *ends], write=_whole, pad=0.03), y)
    plot.across(summary.dense_score, "dense")
    uniform = summary.race.result.uniform
    kinds = {uniform: "uniform", summary.race.result.winner: "best"}
    for row in reversed(rows):
        kind = kinds.get(row.number, "trial")
        plot.path(curves[row.number], kind)
        for stage in row.stages:
            if stage is not None:
                score = score_text(stage.score, stage.error)
                text = f"Trial {row.number} after {stage.epochs} epochs: {score}; by {row.origin}"
                shape = "below" if stage.score < floor else "dot"
                plot.mark((stage.epochs, max(stage.score, floor)), kind, text, trial=row.number, shape=shape)
    keys = [Key("line", "best", "winner"), Key("line", "uniform", "uniform"), Key("line", "trial", "others")]
    drawn = {kinds.get(row.number, "trial") for row in rows}
    return _chart(
        plot,
        "The race",
        "Each line is a trial in full training. A line that ends early left the race.",
        "epochs",
        summary.metric,
        legend=[*(key for key in keys if key.kind in drawn), Key("line", "dense", "dense model")],
        is_wide=True,
    )


def curve_chart(
    title: str, aid: str, y_label: str, values: Sequence[float], *, dense: float | None = None
) -> Chart:
    """Return one value of a training over its epochs."""
    known = [*values, *([] if dense is None else [dense])]
    plot = Plot(Axis.over([1, len(values)], write=_whole, pad=0.03), Axis.over(known))
    if dense is not None:
        plot.across(dense, "dense")
    points = [(float(epoch), value) for epoch, value in enumerate(values, 1) if math.isfinite(value)]
    plot.path(points, "best")
    for epoch, value in points:
        plot.mark((epoch, value), "best", f"Epoch {epoch:.0f}: {y_label} {value:.4f}", size=3.0)
    keys = [] if dense is None else [Key("line", "dense", "dense model")]
    return _chart(plot, title, aid, "epoch", y_label, legend=keys)


def strip_chart(summary: StudySummary, trial: TrialRecord, savings: Savings) -> Chart | None:
    """Return the width that each group keeps, above the MACs that it saves, or None without known widths."""
    rows = [row for row in width_rows(summary, trial) if row.dense and row.dense > 0]
    if not rows:
        return None
    widest = max(row.dense or 1 for row in rows)
    dense_macs = summary.dense_costs.get("macs", math.nan)
    saved = [savings.get(row.group, {}).get("macs", 0.0) / dense_macs for row in rows]
    most, step = max(0.0, *saved), 100 / max(len(rows), _FEWEST_COLUMNS)
    height = _KEPT + (6 + _SAVED) * (most > 0)
    bars: list[Bar] = []
    for place, (row, share) in enumerate(zip(rows, saved, strict=True)):
        dense = row.dense or 1
        x, width = round((place + _GAP / 2) * step, 3), round((1 - _GAP) * step, 3)
        whole = _KEPT * math.sqrt(dense / widest)
        kept = whole * row.width / dense
        bars.append(Bar(x, _KEPT - whole, width, round(whole, 1), "whole"))
        bars.append(Bar(x, round(_KEPT - kept, 1), width, round(kept, 1), "kept"))
        text = f"{row.group}: keeps {row.width} of {dense} channels ({row.width / dense:.0%})"
        if most > 0:
            bars.append(Bar(x, _KEPT + 6, width, round(_SAVED * max(0.0, share) / most, 1), "saved"))
            text += f"; saves {share:.1%} of the MACs"
        bars.append(Bar(round(place * step, 3), 0, round(step, 3), height, "hit", text))
    below = " Below: the share of the model's MACs that it saves." if most > 0 else ""
    return Chart(
        "Widths from input to output",
        f"One column for each channel group: filled is kept, pale is removed.{below}",
        bars=bars,
        lines=[Line(0, _KEPT + 3, 100, _KEPT + 3, "axis")] if most > 0 else (),
        legend=[
            Key("bar", "kept", "kept"),
            Key("bar", "whole", "removed"),
            *([Key("bar", "saved", "MACs saved")] if most > 0 else []),
        ],
        height=height,
        is_wide=True,
    )


def dots(origin: Origin, summary: StudySummary, axis: Axis) -> list[Mark]:
    """Return the complete trials of an origin as marks in one row, at their scores."""
    return [
        Mark(
            round(100 * axis.at(record.score or 0.0), 2),
            10,
            _kind(record, summary),
            describe(record, summary),
            record.number,
            _shape(record),
        )
        for record in reversed(origin.trials)
    ]


def score_axis(found: Iterable[Origin]) -> Axis:
    """Return the axis of the scores of all complete trials."""
    return Axis.over(record.score or 0.0 for origin in found for record in origin.trials)


def stairs_charts(stairs: Stairs) -> list[Chart]:
    """Return the latency of each measured layer over its width."""
    return [_stairs_chart(name, curve, stairs.divisor) for name, curve in stairs.curves.items()]


def _stairs_chart(name: str, curve: Curve, divisor: int) -> Chart:
    plot = Plot(
        Axis.over(curve.widths, write=_whole, pad=0.03), Axis.over([0, *curve.milliseconds], pad=0.04)
    )
    points = list(zip(map(float, curve.widths), curve.milliseconds, strict=True))
    plot.path(points, "climb")
    for (width, taken), error in zip(points, curve.errors, strict=True):
        kind = "best" if width % divisor == 0 else "trial"
        plot.line((width, taken - error), (width, taken + error), kind)
        plot.mark((width, taken), kind, f"Width {width:.0f}: {three_digits(taken)} ms ±{error:.2g}", size=3.0)
    chosen = f"multiples of {divisor}" if divisor > 1 else "all widths"
    return _chart(
        plot,
        name,
        "Flat parts are steps: removing channels within one saves no time.",
        "width, channels",
        "ms",
        legend=[Key("dot", "best", chosen), *([Key("dot", "trial", "other widths")] if divisor > 1 else [])],
    )


def _chart(
    plot: Plot,
    title: str,
    aid: str,
    x_label: str,
    y_label: str,
    *,
    legend: Sequence[Key] = (),
    is_wide: bool = False,
) -> Chart:
    y_ticks = [Tick(round(plot.height * (1 - tick.at), 1), tick.text) for tick in plot.y.ticks]
    x_ticks = [Tick(round(100 * tick.at, 2), tick.text) for tick in plot.x.ticks if 0 <= tick.at <= 1]
    return Chart(
        title,
        aid,
        x_label,
        y_label,
        x_ticks,
        y_ticks,
        plot.lines,
        (),
        plot.marks,
        legend,
        plot.height,
        is_wide,
    )
