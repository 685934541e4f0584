"""Claim: finer masks reach higher sparsity at the same accuracy, and masks that grow do better than one shot.

    python -m experiments.methods.masks.run [--tiny] [--seeds 0]

The weights of ResNet-20 but its first convolution and its head are held at zero, by magnitude and as many in
each layer: single weights, rows of kernels, kernels, filters, or two of four. Masks are made in one shot or
grow during the first three quarters of the training by the cubic schedule of Zhu and Gupta. Trainings are
equally long. Each row is tested once, for three seeds. Masks of filters are compiled too, which proves that
the smaller net has the same outputs. Appends rows to results.csv and goes on after those there, and draws
sparsity.png. --tiny tries all of it on digits within minutes, under runs/.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoprune import run
from autoprune.execution import Setting
from autoprune.flow import schedule_of
from autoprune.graph import Prunable
from autoprune.masks import GradualMasks, MaskHook, MaskRule, compile_masks, make_masks, remaining
from autoprune.run import Dense
from autoprune.run._resolving.dense import load_dense
from autoprune.run._resolving.problem import trace_dense
from autoprune.score import with_model
from autoprune.training import Schedule, evaluate, fit
from experiments.common import append_row, markdown_table, rows_of
from experiments.methods.pictures import draw_lines
from experiments.methods.pruned_rows import (
    RUNS,
    config_of,
    is_measured,
    read_options,
    report,
    spread,
    train_missing,
    whole_scores,
)

HERE = Path(__file__).parent

SPARSITIES = (0.5, 0.8, 0.9, 0.95)
GRANULARITIES = ("weight", "vector", "kernel", "filter")
SKIP = ("conv1", "fc")
"""Layers that stay dense. A filter of the head is the logit of a class."""

Row = dict[str, object]


@dataclass(frozen=True)
class Bench:
    """Everything that the rows share."""

    net: str
    dense: Dense
    prunable: Prunable
    setting: Setting
    schedule: Schedule
    results: Path

    @classmethod
    def of(cls, net: str, results: Path, epochs: int) -> Bench:
        """Load the dense model, after its training if it has none."""
        settings = config_of(net, f"finetune.epochs={epochs}", "finetune.learning_rate=0.05")
        train_missing(settings)
        spec = run.settle(settings)
        dense, setting = load_dense(spec), spec.named_setting
        assert setting is not None
        schedule = schedule_of(spec.finetune)
        return cls(net, dense, trace_dense(dense, spec), setting, schedule, results)


def cases(net: str, seed: int, sparsities: Sequence[float]) -> Iterator[Row]:
    """Iterate over the rows of a seed."""
    for sparsity in sparsities:
        for granularity in (*GRANULARITIES, "2:4"):
            for masks in ("one shot", "gradual"):
                if granularity != "2:4" or (sparsity, masks) == (0.5, "one shot"):
                    yield {
                        "net": net,
                        "granularity": granularity,
                        "sparsity": sparsity,
                        "masks": masks,
                        "seed": seed,
                    }


def measure(bench: Bench, row: Row) -> None:
    """Append a row. A training that was stopped goes on."""
    started = time.perf_counter()
    model, prunable, dense = copy.deepcopy(bench.dense.model), bench.prunable, bench.dense
    granularity, sparsity, seed = str(row["granularity"]), float(str(row["sparsity"])), int(str(row["seed"]))
    before = None
    if row["masks"] == "one shot":
        hook = MaskHook(make_masks(prunable, sparsity, granularity=granularity, skip=SKIP))
        hook.masks.apply(model)
        before = evaluate(model, dense.data.val, dense.task, bench.setting)
    else:
        hook = GradualMasks(MaskRule(granularity, skip=SKIP), sparsity, prunable=prunable)
    name = "-".join(map(str, row.values())).replace(":", "of").replace(" ", "-")
    state = RUNS / bench.results.parent.name / f"{name}.training"
    state.parent.mkdir(parents=True, exist_ok=True)
    fitted = fit(
        model,
        dense.data,
        bench.schedule,
        bench.setting,
        dense.task,
        seed=seed,
        hooks=(hook,),
        checkpoint=state,
    )
    assert dense.data.test is not None
    left = remaining(prunable, hook.masks)
    compiled = compile_masks(with_model(prunable, model.cpu().eval()), hook.masks)
    costs = prunable.cost(compiled.plan.widths).macs
    append_row(
        bench.results,
        {
            **row,
            "weights": round(left.weights / left.dense_weights, 4),
            "macs": round(left.macs / left.dense_macs, 4),
            "compiled_macs": round(int(costs) / left.dense_macs, 4),
            "compiled_difference": f"{compiled.difference:.1e}",
            "before": before,
            "val": fitted.score,
            "test": evaluate(model, dense.data.test, dense.task, bench.setting),
            "seconds": round(time.perf_counter() - started, 1),
        },
    )
    state.unlink()


def measure_dense(bench: Bench) -> float:
    """Append the row of the dense model, unless it is there, and return its score on the test part."""
    row: Row = {"net": bench.net, "granularity": "dense", "sparsity": 0.0, "masks": "none", "seed": 0}
    if not is_measured(bench.results, row):
        scores = whole_scores(bench.dense, bench.setting)
        whole = dict.fromkeys(("weights", "macs", "compiled_macs"), 1.0)
        append_row(
            bench.results,
            {**row, **whole, "compiled_difference": None, "before": None, **scores, "seconds": None},
        )
    return next(float(each["test"]) for each in rows_of(bench.results) if each["granularity"] == "dense")


def summarise(results: Path, picture: Path, dense: float) -> list[str]:
    """Draw the picture, and return the lines of the table."""
    rows = [row for row in rows_of(results) if row["granularity"] != "dense"]
    tests: dict[tuple[str, str, str], list[float]] = {}
    zeros: dict[tuple[str, str, str], float] = {}
    for row in rows:
        key = (row["granularity"], row["masks"], row["sparsity"])
        tests.setdefault(key, []).append(100 * float(row["test"]))
        zeros[key] = 100 * (1 - float(row["weights"]))
    lines: dict[str, list[tuple[float, list[float]]]] = {}
    for key, values in sorted(tests.items()):
        lines.setdefault(f"{key[0]}, {key[1]}", []).append((zeros[key], values))
    dashed = [
        name for name in lines if name.endswith("one shot") and name.replace("one shot", "gradual") in lines
    ]
    draw_lines(
        picture,
        lines,
        title=f"{rows[0]['net']} under masks, by granularity",
        axes=("zeros among all weights, %", "test accuracy, %"),
        dashed=dashed,
        level=("dense", 100 * dense),
    )
    listed = []
    for sparsity, granularity in dict.fromkeys((row["sparsity"], row["granularity"]) for row in rows):
        mine = [row for row in rows if (row["sparsity"], row["granularity"]) == (sparsity, granularity)]
        scores = [tests.get((granularity, masks, sparsity), []) for masks in ("one shot", "gradual")]
        weights, macs, compiled = (
            f"{sum(float(row[name]) for row in mine) / len(mine):.1%}"
            for name in ("weights", "macs", "compiled_macs")
        )
        listed.append([f"{float(sparsity):.0%}", granularity, weights, macs, compiled, *map(spread, scores)])
    heads = ["zeros", "granularity", "weights left", "MACs left in theory", "MACs after compilation"]
    return markdown_table([*heads, "one shot: test, % (seeds)", "gradual: test, % (seeds)"], listed)


def main() -> None:
    options = read_options(__doc__)
    folder = options.folder(HERE)
    results = folder / "results.csv"
    net, epochs, sparsities = (
        ("digits_resnet", 2, SPARSITIES[:2]) if options.tiny else ("resnet20", 3, SPARSITIES)
    )
    bench = Bench.of(net, results, epochs)
    dense = measure_dense(bench)
    for seed in options.seeds:
        for row in cases(net, seed, sparsities):
            if not is_measured(results, row):
                measure(bench, row)
    lines = summarise(results, folder / "sparsity.png", dense)
    report(options, HERE, [f"Dense: {dense:.2%} on the test part.", *lines], ["sparsity.png"])


if __name__ == "__main__":
    main()
