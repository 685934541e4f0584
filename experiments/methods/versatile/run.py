"""Claim: versatile filters keep the accuracy with half of the parameters, better so than narrower layers.

    python -m experiments.methods.versatile.run [--tiny] [--seeds 0]

Starts from trained nets: ResNet-20 with 3x3 filters, and a net with 7x7 filters in its stem. Its convolutions
become versatile, spatially or with channel windows too, fitted to the dense filters by least squares. Each is
compared with the plain net narrowed by one ratio to its MACs, and to its parameters (l1). All train for equal
epochs, the plain net too, and are tested once, for three seeds. Latency is the processor time of a single
image on one thread, side by side with the plain net. Appends rows to results.csv and goes on after those
there, and draws NET-parameters.png. --tiny tries all of it on digits within minutes, under runs/.
"""

from __future__ import annotations

import contextlib
import copy
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from autoprune import run
from autoprune.criteria import make_plan
from autoprune.execution import Setting
from autoprune.graph import Prunable
from autoprune.latency import LatencySetting, Timed, prepare, time_interleaved
from autoprune.nn import to_versatile
from autoprune.rebuilding import rebuild
from autoprune.run import Dense, RunSpec
from autoprune.run._resolving.dense import load_dense
from autoprune.run._resolving.problem import build_problem, trace_dense
from autoprune.tracing import trace
from experiments.common import append_row, markdown_table, rows_of
from experiments.finetuning import finetuned
from experiments.methods.pictures import draw_lines
from experiments.methods.pruned_rows import (
    RUNS,
    config_of,
    is_measured,
    read_options,
    report,
    spread,
    train_missing,
)
from experiments.repair.accuracy import uniform_widths

HERE = Path(__file__).parent

VERSATILE: Mapping[str, tuple[int, int]] = {
    "versatile": (0, 1),
    "versatile, windows too": (8, 8),
}
"""{variant: delta and step of to_versatile}."""

OVERRIDES = ("finetune.epochs=6", "finetune.learning_rate=0.05", "finetune.distill_weight=0.0")
LATENCY_SECONDS = 30.0


@dataclass(frozen=True)
class Bench:
    """A net, and the models to compare.

    Attributes:
        net: name of the config.
        settings: its config.
        dense: the trained plain net and the data.
        prunable: the traced plain net.
        models: {variant: its model before the training}.
    """

    net: str
    settings: RunSpec
    dense: Dense
    prunable: Prunable
    models: Mapping[str, nn.Module]

    @classmethod
    def of(cls, net: str) -> Bench:
        """Load the plain net, after its training if it has none."""
        settings = run.settle(config_of(net, *OVERRIDES))
        train_missing(settings)
        dense = load_dense(settings)
        prunable = trace_dense(dense, settings)
        models = {"plain": dense.model}
        for variant, (delta, step) in VERSATILE.items():
            models[variant] = to_versatile(dense.model, delta=delta, step=step)
            cost = trace(models[variant], dense.example_inputs).cost()
            for name, key, amount in (("MACs", "macs", cost.macs), ("parameters", "params", cost.params)):
                limited = run.settle(config_of(net, *OVERRIDES, f"budget.{key}={amount}"))
                models[f"one ratio, {name} of {variant}"] = _narrowed(prunable, limited)
        return cls(net, settings, dense, prunable, models)

    @property
    def setting(self) -> Setting:
        """How trainings run."""
        setting = self.settings.named_setting
        assert setting is not None
        return setting


def _narrowed(prunable: Prunable, settings: RunSpec) -> nn.Module:
    """Return the plain net, narrowed by one ratio to a budget."""
    widths = uniform_widths(build_problem(prunable, settings))
    return rebuild(prunable, make_plan(prunable, widths))


def time_models(bench: Bench, results: Path) -> None:
    """Append the latencies of all models of a net, timed side by side, unless they are there."""
    if is_measured(results, {"net": bench.net}):
        return
    setting = LatencySetting("eager")
    with contextlib.ExitStack() as stack:
        timed = {
            variant: _by_processor(
                stack.enter_context(prepare(model.eval(), bench.dense.example_inputs, setting))
            )
            for variant, model in bench.models.items()
        }
        timings = time_interleaved(
            timed,
            baseline="plain",
            tolerance=0.01,
            limit_seconds=LATENCY_SECONDS,
            clock=time.process_time,
        )
    for variant, measured in timings.measurements.items():
        ratio = timings.ratios.get(variant)
        append_row(
            results,
            {
                "net": bench.net,
                "variant": variant,
                "ms": round(measured.median_ms, 4),
                "ratio": 1.0 if ratio is None else round(ratio.ratio, 4),
                "low": 1.0 if ratio is None else round(ratio.interval[0], 4),
                "high": 1.0 if ratio is None else round(ratio.interval[1], 4),
            },
        )


def _by_processor(run_once: Timed) -> Timed:
    """Return a function that gives the processor milliseconds of a run, which no other program lengthens."""

    def timed() -> float:
        began = time.process_time()
        run_once()
        return 1e3 * (time.process_time() - began)

    return timed


def measure(bench: Bench, results: Path, seed: int) -> None:
    """Append a row for each variant that has none yet. A training that was stopped goes on."""
    dense_cost = bench.prunable.cost()
    for variant, begun in bench.models.items():
        row = {"net": bench.net, "variant": variant, "seed": seed}
        if is_measured(results, row):
            continue
        started = time.perf_counter()
        model = copy.deepcopy(begun)
        cost = trace(model, bench.dense.example_inputs).cost()
        name = "-".join(map(str, row.values())).replace(", ", "-").replace(" ", "-")
        state = RUNS / results.parent.name / f"{name}.training"
        state.parent.mkdir(parents=True, exist_ok=True)
        fitted, test = finetuned(
            model, bench.dense, bench.settings, bench.setting, seed=seed, checkpoint=state
        )
        append_row(
            results,
            {
                **row,
                "macs": round(int(cost.macs) / int(dense_cost.macs), 4),
                "params": round(int(cost.params) / int(dense_cost.params), 4),
                "val": fitted.score,
                "test": test,
                "seconds": round(time.perf_counter() - started, 1),
            },
        )
        state.unlink()


def summarise(folder: Path, results: Path, latencies: Path) -> list[str]:
    """Draw the pictures, and return the lines of the table."""
    rows, listed = rows_of(results), []
    ratios = {(row["net"], row["variant"]): row for row in rows_of(latencies)}
    found: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows:
        found.setdefault((row["net"], row["variant"]), []).append(row)
    tests = {key: [100 * float(row["test"]) for row in mine] for key, mine in found.items()}
    for net in dict.fromkeys(net for net, _ in found):
        lines = {
            variant: [(100 * float(mine[0]["params"]), tests[each, variant])]
            for (each, variant), mine in found.items()
            if each == net
        }
        draw_lines(
            folder / f"{net}-parameters.png",
            lines,
            title=f"{net}: versatile filters and narrower layers",
            axes=("parameters, % of the plain net", "test accuracy, %"),
        )
    for (net, variant), mine in found.items():
        plain = {row["seed"]: float(row["test"]) for row in found[net, "plain"]}
        pairs = [100 * (float(row["test"]) - plain[row["seed"]]) for row in mine if row["seed"] in plain]
        timed = ratios[net, variant]
        listed.append(
            [
                net,
                variant,
                *(f"{statistics.mean(float(row[name]) for row in mine):.1%}" for name in ("macs", "params")),
                f"{float(timed['ratio']):.2f} [{float(timed['low']):.2f}, {float(timed['high']):.2f}]",
                spread(tests[net, variant]),
                "0" if variant == "plain" else spread(pairs, signed=True),
            ]
        )
    heads = ["net", "variant", "MACs", "parameters", "latency, share of plain", "test, % (seeds)"]
    return markdown_table([*heads, "to plain, points"], listed)


def main() -> None:
    options = read_options(__doc__)
    folder = options.folder(HERE)
    results, latencies = folder / "results.csv", folder / "latency.csv"
    benches = [Bench.of(net) for net in (("digits_resnet",) if options.tiny else ("resnet20", "large_stem"))]
    for bench in benches:
        time_models(bench, latencies)
    for seed in options.seeds:
        for bench in benches:
            measure(bench, results, seed)
    lines = summarise(folder, results, latencies)
    report(options, HERE, lines, [f"{bench.net}-parameters.png" for bench in benches])


if __name__ == "__main__":
    main()
