"""Rows of the experiments on methods: variants of one flow, each pruned, finetuned and tested once.

measure(Path("results.csv"), "experiments/methods/resnet20.toml", "66%", {"smallest": (), ...}, (0, 1, 2))
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import autoprune
from autoprune import run
from autoprune.config import load_config
from autoprune.config.settings import RunConfig
from autoprune.run import FlowResult
from experiments.common import append_row, markdown_table, rows_of

Variants = Mapping[str, Sequence[str]]
"""{name of a variant: its overrides, as on the command line}."""


def measure(
    results: Path, config: str, flops: str, variants: Variants, seeds: Iterable[int], more: Sequence[str] = ()
) -> None:
    """Append a row for each variant and seed that has none yet. A flow that was stopped goes on.

    Args:
        results: the CSV file.
        config: path of the config. Its dense model is trained first if its checkpoint is missing.
        flops: the budget.
        variants: the variants.
        seeds: of the draws and of the finetune.
        more: overrides of all variants.
    """
    net = Path(config).stem
    done = {(row["net"], row["flops"], row["variant"], row["seed"]) for row in rows_of(results)}
    for seed in seeds:
        for variant, overrides in variants.items():
            if (net, flops, variant, str(seed)) in done:
                continue
            folder = f"runs/methods/{results.parent.name}/{net}-{flops}-{variant}-{seed}"
            settings = load_config(
                config,
                (
                    f"budget.flops={flops}",
                    f"output.folder='{folder}'",
                    f"search.seed={seed}",
                    f"finetune.seed={seed}",
                    *more,
                    *overrides,
                ),
            )
            train_missing(settings)
            row = {"net": net, "flops": flops, "variant": variant, "seed": seed}
            append_row(results, {**row, **_figures(autoprune.prune(config=settings))})


def train_missing(settings: RunConfig) -> None:
    """Train the dense model of a config if its checkpoint is missing."""
    if not Path(str(settings.model.checkpoint)).exists():
        run.train(settings, watch=print)


def _figures(result: FlowResult) -> dict[str, float | None]:
    """Return the scores before and after the finetunes, and the costs as shares of the dense model's."""
    before = [
        entry.score for entry in result.stages if entry.number == 1 and entry.stage in ("rebuild", "repair")
    ]
    return {
        "macs": round(int(result.cost.macs) / int(result.dense_cost.macs), 4),
        "params": round(int(result.cost.params) / int(result.dense_cost.params), 4),
        "before": before[-1],
        "val": result.val_score,
        "test": result.test_score,
        "dense_test": result.dense_test_score,
        "seconds": round(sum(entry.seconds for entry in result.stages), 1),
    }


def table(results: Path, reference: str) -> list[str]:
    """Return a table with a row for each net, budget and variant: means over seeds and paired differences.

    Args:
        results: the CSV file.
        reference: the variant with which the others of the same net, budget and seed are compared.
    """
    rows = rows_of(results)
    tests = {(row["net"], row["flops"], row["variant"], row["seed"]): float(row["test"]) for row in rows}
    listed = []
    for net, flops, variant in dict.fromkeys((row["net"], row["flops"], row["variant"]) for row in rows):
        mine = [row for row in rows if (row["net"], row["flops"], row["variant"]) == (net, flops, variant)]
        pairs = [
            100 * (float(row["test"]) - tests[(net, flops, reference, row["seed"])])
            for row in mine
            if (net, flops, reference, row["seed"]) in tests
        ]
        listed.append(
            [
                net,
                f"{statistics.mean(float(row['macs']) for row in mine):.1%}",
                variant,
                f"{100 * statistics.mean(float(row['before']) for row in mine):.1f}",
                _spread([100 * float(row["test"]) for row in mine]),
                "0" if variant == reference else _spread(pairs, signed=True),
            ]
        )
    heads = ["net", "MACs", "variant", "before finetune, %", "test, % (seeds)", f"to {reference}, points"]
    return markdown_table(heads, listed)


def _spread(values: Sequence[float], *, signed: bool = False) -> str:
    if not values:
        return "-"
    mean = f"{statistics.mean(values):{'+' if signed else ''}.2f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2f} ({len(values)})"
