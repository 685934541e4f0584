"""Write table.md, curves.png and the measured part of README.md from the rows that there are so far.

    python -m experiments.search_efficiency.summarise

What is not measured yet is left out and counted. Differences are paired by seed. Intervals are 95%.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import kendalltau

from autoprune.reporting._agreement import FEWEST_TRIALS, tau_interval
from experiments.common import Part, markdown_table, rows_of, write_summary
from experiments.search_efficiency import correlation, ladders, rungs
from experiments.search_efficiency.curves import LARGE, METHODS
from experiments.search_efficiency.finetunes import METHODS as FINETUNED
from experiments.search_efficiency.measured import (
    DEFAULT,
    FRESH_METHODS,
    FRESH_SEEDS,
    RANDOM,
    SEEDS,
    BySeed,
    accuracies,
    paired,
    read_curves,
    read_finetunes,
)
from experiments.search_efficiency.plot import draw
from experiments.search_efficiency.setups import EVALUATIONS, HERE, SETUPS

TARGETS = {"resnet20-12": " (target: 0.30 or more)"}
"""What the default search was to be above uniform."""

SAMPLED = 53
"""Trials of a search of 60 that are not warm starts."""


def main() -> None:
    curves = read_curves()
    if curves:
        draw(curves, HERE / "curves.png")
    parts = (
        lambda: summarise_curves(curves, "First rung", len(METHODS) * len(SEEDS)),
        lambda: summarise_fresh(FRESH_SEEDS, "First rung, fresh seeds"),
        lambda: summarise_fresh(SEEDS + FRESH_SEEDS, "First rung, all seeds"),
        summarise_finetunes,
        summarise_correlation,
        summarise_rungs,
        summarise_workers,
    )
    write_summary(HERE, parts)


def summarise_fresh(seeds: Sequence[int], title: str) -> Part:
    """Tell the same of the methods that the fresh seeds were measured for."""
    curves = read_curves(seeds, FRESH_METHODS)
    return summarise_curves(curves, title, len(FRESH_METHODS) * len(seeds))


def summarise_curves(curves: Mapping[str, Mapping[str, BySeed]], title: str, searches: int) -> Part:
    """Print the best scores of all samplers, and compare the default one with random search.

    `searches` is how many there are to be in each setup.
    """
    lines: list[str] = []
    said: list[str] = []
    for setup in SETUPS:
        methods = curves.get(setup, {})
        count = f"{sum(map(len, methods.values()))} of {searches} searches"
        if not methods:
            said.append(f"{title}, {setup}: {count} so far.")
            continue
        head = [
            "method",
            "seeds",
            f"best at {EVALUATIONS}, %",
            "best at the end, %",
            f"at {EVALUATIONS} less {RANDOM} at {LARGE}, points",
            f"seconds of {RANDOM}'s",
        ]
        lines += [f"## {title}, {setup}: {count}", *markdown_table(head, _curve_rows(methods))]
        said.append(f"{title}, {setup}: {count} so far. {_verdict(methods)}".rstrip())
    return lines, said


def _curve_rows(methods: Mapping[str, BySeed]) -> list[list[str]]:
    """Return the rows of all methods, the best first."""
    large = methods.get(RANDOM, {})
    rows = []
    for method, seeds in methods.items():
        at = {seed: curve.best_at(EVALUATIONS) for seed, curve in seeds.items()}
        end = float(np.mean([curve.best[-1] for curve in seeds.values()]))
        difference = paired(at, {seed: curve.best[-1] for seed, curve in large.items()})
        row = [
            method,
            str(len(seeds)),
            f"{100 * float(np.mean(list(at.values()))):.2f}",
            f"{100 * end:.2f}",
            "" if difference is None else difference.text(),
            _share_of_seconds(seeds, large),
        ]
        rows.append((np.mean(list(at.values())), row))
    return [row for _, row in sorted(rows, key=lambda pair: -pair[0])]


def _share_of_seconds(seeds: BySeed, base: BySeed) -> str:
    """Return the mean share of a base's seconds that a method took, over the seeds that both have."""
    both = seeds.keys() & base.keys()
    shares = [seeds[seed].seconds[-1] / base[seed].seconds[-1] for seed in both]
    return f"{float(np.mean(shares)):.2f}" if shares else ""


def _verdict(methods: Mapping[str, BySeed]) -> str:
    """Compare the default sampler with its target, if both were measured."""
    mine, large = methods.get(DEFAULT, {}), methods.get(RANDOM, {})
    at = {seed: curve.best_at(EVALUATIONS) for seed, curve in mine.items()}
    difference = paired(at, {seed: curve.best[-1] for seed, curve in large.items()})
    if difference is None:
        return ""
    above = "reaches" if difference.mean >= 0 else "misses"
    if difference.low < 0 <= difference.high:
        above += " on the mean"
    return (
        f"The default ({DEFAULT}, {EVALUATIONS} trials) {above} the best of {LARGE} random ones: "
        f"{difference.text()} points over {difference.seeds} seed(s), in {_share_of_seconds(mine, large)} of "
        "their seconds (target: at least 0 in at most 0.30)."
    )


def summarise_finetunes() -> Part:
    """Tell the test accuracies after finetuning."""
    lines: list[str] = []
    said: list[str] = []
    for setup, methods in read_finetunes().items():
        uniform = accuracies(methods.get("uniform", {}))
        rows = []
        for method, finetunes in methods.items():
            values = accuracies(finetunes)
            difference = paired(values, uniform)
            shares = [100 * float(row["flops_share"]) for row in finetunes.values()]
            each = ", ".join(f"{100 * values[seed]:.2f}" for seed in sorted(values))
            known = "" if difference is None or method == "uniform" else difference.text()
            share = f"{min(shares):.2f} to {max(shares):.2f}"
            rows.append([method, each, f"{100 * float(np.mean(list(values.values()))):.2f}", known, share])
        rows.sort(key=lambda row: -float(row[2]))
        done = sum(len(methods.get(method, {})) for method in FINETUNED)
        count = f"{done} of {len(FINETUNED) * len(SEEDS)} finetunes"
        head = ["method", "test accuracy of each seed, %", "mean", "less uniform, points", "FLOPs, %"]
        lines += [f"## Finetuned, {setup}: {count}", *markdown_table(head, rows)]
        said.append(f"Finetunes, {setup}: {count} so far. {_finetuned_verdict(setup, methods)}".rstrip())
    lines += _fastnas_lines()
    return lines, said or ["Finetunes: none so far."]


def _finetuned_verdict(setup: str, methods: Mapping[str, Mapping[int, Mapping[str, str]]]) -> str:
    """Compare the default search with uniform, and list the methods above it. One seed gives no line."""
    mine = accuracies(methods.get("default", {}))
    difference = paired(mine, accuracies(methods.get("uniform", {})))
    if difference is None or difference.seeds < 2:
        return ""
    above = []
    for method, finetunes in methods.items():
        gap = paired(accuracies(finetunes), mine)
        if method != "default" and gap is not None and gap.low > 0:
            above.append(f"{method} {gap.text()}")
    target = TARGETS.get(setup, "")
    return (
        f"The default search less uniform: {difference.text()} points{target}. "
        f"Above it beyond the interval: {', '.join(above) or 'no method'}."
    )


def _fastnas_lines() -> list[str]:
    """List the costs that FastNAS left, since its widths may not fill the window."""
    found = [json.loads(path.read_text("utf-8")) for path in sorted((HERE / "fastnas").glob("*.json"))]
    rows = [
        [
            facts["setup"],
            str(facts["seed"]),
            f"{100 * facts['flops_share']:.2f}",
            "yes" if facts["in_window"] else "no: the nearest below",
            facts["constraint"],
            f"{facts['seconds']:.0f}",
        ]
        for facts in found
    ]
    head = ["setup", "seed", "FLOPs, %", "in [0.98, 1.00] of the budget", "constraint", "seconds"]
    return ["## FastNAS's candidates", *markdown_table(head, rows)] if rows else []


def summarise_correlation() -> Part:
    """Print Kendall's tau of every rung with the finetuned accuracy. Those of the default are in rungs/."""
    rows = rows_of(correlation.results_of(correlation.SETUP))
    default = {row["widths"]: row for row in rows_of(HERE / "rungs" / f"{correlation.SETUP}.csv")}
    count = f"{len(rows)} of {correlation.CANDIDATES} candidates"
    if len(rows) < FEWEST_TRIALS:
        return [], [f"Rank correlation: {count} so far."]
    above = [float(row["finetuned"]) for row in rows]
    table = []
    for column in dict.fromkeys([*correlation.RUNGS.values(), *rungs.RUNGS.values()]):
        scored = rows if column in rows[0] else [default[row["widths"]] for row in rows]
        seconds = float(np.median([float(row[f"{column}_seconds"]) for row in scored]))
        table.append([column, _tau_text([float(row[column]) for row in scored], above), f"{seconds:.1f}"])
    head = ["rung", "Kendall's tau (95%)", "its own seconds, median"]
    title = f"## Rungs against the accuracy after 4 epochs: {count}"
    said = f"Rank correlation, {count}: " + "; ".join(f"{row[0]} {row[1]}" for row in table)
    top = f"the default's last rung is {ladders.TOP}; target: above 0.65"
    return [title, *markdown_table(head, table)], [f"{said} ({top})."]


def _tau_text(scores: Sequence[float], above: Sequence[float]) -> str:
    """Write Kendall's tau of two lists of scores with its 95% interval."""
    tau = float(kendalltau(scores, above).statistic)
    low, high = tau_interval(tau, len(scores))
    return f"{tau:.2f} [{low:.2f}, {high:.2f}]"


def summarise_rungs() -> Part:
    """Print the results of other rungs and bars, and how well the lower rungs predict the top one."""
    lines: list[str] = []
    said: list[str] = []
    for setup in SETUPS:
        found = ladders.measured(setup)
        if found is None:
            continue
        rows = _ladder_rows(found)
        top = found.scores[ladders.TOP].tolist()
        taus = [f"{rung} {_tau_text(found.scores[rung].tolist(), top)}" for rung in ladders.RUNGS[:-1]]
        head = [
            "rungs; bar",
            "trials",
            "at the top",
            "best top score, %",
            "less the default, points (95%)",
            f"of {SAMPLED} trials, %",
            "their seconds",
        ]
        lines += [
            f"## Rungs, {setup}: {len(top)} random candidates, searches replayed",
            *markdown_table(head, rows),
            f"Kendall's tau with the top rung: {'; '.join(taus)}.",
            "",
        ]
        others = "; ".join(f"{row[0]}: {row[4]}" for row in rows if row[0] != ladders.DEFAULT)
        said.append(f"Rungs, {setup}: best top score in equal seconds, less the default's, points: {others}.")
    return lines, said


def _ladder_rows(found: ladders.Measured) -> list[list[str]]:
    """Return the rows of all ladders, the best first."""
    gaps = ladders.less_default(found)
    as_many = ladders.replay(found, trials=SAMPLED)
    rows = []
    for name, outcome in ladders.replay(found).items():
        low, high = 100 * np.quantile(gaps[name], [0.025, 0.975])
        gap = f"{100 * gaps[name].mean():+.2f} [{low:+.2f}, {high:+.2f}]"
        rows.append(
            [
                name,
                f"{outcome.trials:.0f}",
                f"{outcome.climbed:.0f}",
                f"{100 * outcome.best.mean():.2f}",
                "" if name == ladders.DEFAULT else gap,
                f"{100 * as_many[name].best.mean():.2f}",
                f"{as_many[name].seconds:.0f}",
            ]
        )
    return sorted(rows, key=lambda row: -float(row[3]))


def summarise_workers() -> Part:
    """Tell the ratio of two workers to one."""
    rows = rows_of(HERE / "workers.csv")
    if not rows:
        return [], ["Two workers: no round so far."]
    ratios = [float(row["ratio"]) for row in rows]
    hourly = {
        kind: float(np.median([3600 * int(row["trials"]) / float(row[f"{kind}_seconds"]) for row in rows]))
        for kind in ("serial", "workers")
    }
    start = float(np.median([float(row["workers_start_seconds"]) for row in rows]))
    spread = f"{float(np.median(ratios)):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    head = ["rounds", "serial, trials/h", "two workers, trials/h", "ratio, median (range)", "start, s"]
    cells = [str(len(rows)), f"{hourly['serial']:.0f}", f"{hourly['workers']:.0f}", spread, f"{start:.1f}"]
    said = f"Two workers: {spread} times the trials per hour of one, {len(rows)} round(s) (target: 1.70)."
    return ["## Two workers on two cores", *markdown_table(head, [cells])], [said]


if __name__ == "__main__":
    main()
