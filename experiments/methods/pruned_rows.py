"""Rows of the experiments on methods: variants of one flow, each pruned, finetuned and tested once.

options = read_options(__doc__)
measure(results, [Case("resnet20", "66%", {"smallest": (), ...})], options.seeds)
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import autoprune
from autoprune import run
from autoprune.config import load_config
from autoprune.config.settings import RunConfig
from autoprune.execution import Setting
from autoprune.run import Dense, FlowResult
from autoprune.run._resolving.dense import load_dense
from autoprune.training import evaluate
from experiments.common import append_row, markdown_table, rows_of, write_measured

CONFIGS = Path("experiments/methods")
RUNS = Path("runs/methods")

Variants = dict[str, Sequence[str]]
"""{name of a variant: its overrides, as on the command line}."""


@dataclass(frozen=True)
class Options:
    """The options of a script.

    Attributes:
        tiny: whether it tries everything on digits only.
        seeds: in the order in which they are measured.
    """

    tiny: bool
    seeds: tuple[int, ...]

    def folder(self, here: Path) -> Path:
        """Return the folder of the results, that of the script or one under runs/ if it only tries."""
        folder = RUNS / f"tiny-{here.name}" if self.tiny else here
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def read_options(about: str | None) -> Options:
    """Read the command line of a script, and use one thread."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="try all of it on digits, under runs/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    torch.set_num_threads(1)
    return Options(given.tiny, (0,) if given.tiny else tuple(given.seeds))


def report(options: Options, here: Path, lines: Sequence[str], pictures: Sequence[str]) -> None:
    """Print the lines of a table, and write them into the README of a script's folder unless it only tries.

    Args:
        options: of the script.
        here: folder of the script.
        lines: of the table.
        pictures: names of files next to the table.
    """
    print("\n".join(lines))
    if not options.tiny:
        shown = [f"![{Path(picture).stem}]({picture})" for picture in pictures]
        write_measured(here / "README.md", [*lines, *shown])


@dataclass(frozen=True)
class Case:
    """A net under a budget, and the variants to compare there.

    Attributes:
        net: name of a config in this folder.
        budget: "66%" of the FLOPs, or another name if `limits` are given.
        variants: the variants.
        limits: overrides that set the budget.
    """

    net: str
    budget: str
    variants: Variants
    limits: Sequence[str] = ()

    def settings(self, *overrides: str) -> RunConfig:
        """Return the config of the net under the budget."""
        return config_of(self.net, *(self.limits or (f"budget.flops={self.budget}",)), *overrides)


def config_of(net: str, *overrides: str) -> RunConfig:
    """Return the config of a net. "digits_NET" without a config of its own is a net of the zoo on digits."""
    path = CONFIGS / f"{net}.toml"
    if not path.exists():
        path = CONFIGS / "digits_resnet.toml"
        named = (f"model.name={net.removeprefix('digits_')}", f"model.checkpoint='{RUNS}/{net}.safetensors'")
        overrides = (*named, *overrides)
    return load_config(path, overrides)


Figures = Callable[[FlowResult], dict[str, float]]


def measure(
    results: Path,
    cases: Iterable[Case],
    seeds: Iterable[int],
    more: Sequence[str] = (),
    dense_test: float | None = None,
    figures: Figures = lambda result: {},
) -> None:
    """Append a row for each seed, case and variant that has none yet. A flow that was stopped goes on.

    Args:
        results: the CSV file.
        cases: the measurements for each seed. Missing dense models are trained first.
        seeds: of the draws and of all trainings of a flow.
        more: overrides of all variants.
        dense_test: score of the dense model, if the flows begin with another one, such as a sparse model.
        figures: gives more columns.
    """
    listed = list(cases)
    for seed in seeds:
        for case in listed:
            for variant, overrides in case.variants.items():
                row = {"net": case.net, "budget": case.budget, "variant": variant, "seed": seed}
                if is_measured(results, row):
                    continue
                folder = RUNS / results.parent.name / "-".join(map(str, row.values())).replace(" ", "-")
                seeded = [f"{section}.seed={seed}" for section in ("search", "sparsify", "finetune")]
                settings = case.settings(f"output.folder='{folder}'", *seeded, *more, *overrides)
                train_missing(settings)
                result = autoprune.prune(config=settings)
                append_row(results, {**row, **_figures(result, dense_test), **figures(result)})


def whole_row(
    results: Path,
    settings: RunConfig,
    row: Mapping[str, object],
    dense_test: float | None = None,
    more: Mapping[str, object] | None = None,
) -> float:
    """Append a row of a model that is not pruned, unless it is there, and return its score on the test part.

    Args:
        results: the CSV file, whose other rows `measure` writes.
        settings: name the model and the data.
        row: its net, budget, variant and seed.
        dense_test: score of the dense model, if this is another one.
        more: values of the columns that `figures` gives for the other rows.
    """
    if not is_measured(results, row):
        train_missing(settings)
        spec = run.settle(settings)
        scores = whole_scores(load_dense(spec), spec.named_setting)
        compared = scores["test"] if dense_test is None else dense_test
        whole = {"macs": 1.0, "params": 1.0, "before": None, **scores, "dense_test": compared}
        append_row(results, {**row, **whole, "seconds": None, **(more or {})})
    return float(next(each["test"] for each in rows_of(results) if is_like(each, row)))


def whole_scores(dense: Dense, setting: Setting | None) -> dict[str, float]:
    """Return the scores of a dense model on the validation part and on the test part.

    Args:
        dense: the model and the data.
        setting: how it runs, which the configs of this folder name.
    """
    assert dense.data.test is not None
    assert setting is not None
    parts = {"val": dense.data.val, "test": dense.data.test}
    return {
        name: evaluate(copy.deepcopy(dense.model), part, dense.task, setting) for name, part in parts.items()
    }


def is_measured(results: Path, row: Mapping[str, object]) -> bool:
    """Return whether a row with these values is there."""
    return any(is_like(each, row) for each in rows_of(results))


def is_like(found: Mapping[str, str], row: Mapping[str, object]) -> bool:
    """Return whether a row that was read has these values."""
    return all(found[name] == str(value) for name, value in row.items())


def train_missing(settings: RunConfig) -> None:
    """Train the dense model of a config if its checkpoint is missing."""
    if not Path(str(settings.model.checkpoint)).exists():
        run.train(settings, watch=print)


def _figures(result: FlowResult, dense_test: float | None) -> dict[str, float | None]:
    """Return the scores before and after the finetunes, and the costs as shares of the dense model's."""
    cut = [entry.score for entry in result.stages if entry.stage in ("rebuild", "repair")]
    return {
        "macs": round(int(result.cost.macs) / int(result.dense_cost.macs), 4),
        "params": round(int(result.cost.params) / int(result.dense_cost.params), 4),
        "before": cut[-1] if result.stages[-1].number == 1 else None,
        "val": result.val_score,
        "test": result.test_score,
        "dense_test": result.dense_test_score if dense_test is None else dense_test,
        "seconds": round(sum(entry.seconds for entry in result.stages), 1),
    }


def table(results: Path, reference: str) -> list[str]:
    """Return a table with a row for each net, budget and variant: means over seeds and paired differences.

    Args:
        results: the CSV file.
        reference: the variant with which the others of the same net, budget and seed are compared.
    """
    rows = rows_of(results)
    tests = {(row["net"], row["budget"], row["variant"], row["seed"]): float(row["test"]) for row in rows}
    listed = []
    for net, budget, variant in dict.fromkeys((row["net"], row["budget"], row["variant"]) for row in rows):
        mine = [row for row in rows if (row["net"], row["budget"], row["variant"]) == (net, budget, variant)]
        pairs = [
            100 * (float(row["test"]) - tests[(net, budget, reference, row["seed"])])
            for row in mine
            if (net, budget, reference, row["seed"]) in tests
        ]
        before = [100 * float(row["before"]) for row in mine if row["before"]]
        loss = [100 * (float(row["test"]) - float(row["dense_test"])) for row in mine]
        listed.append(
            [
                net,
                budget,
                f"{statistics.mean(float(row['macs']) for row in mine):.1%}",
                f"{statistics.mean(float(row['params']) for row in mine):.1%}",
                variant,
                f"{statistics.mean(before):.1f}" if before else "-",
                spread([100 * float(row["test"]) for row in mine]),
                spread(loss, signed=True),
                "0" if variant == reference else spread(pairs, signed=True),
            ]
        )
    heads = ["net", "budget", "MACs", "parameters", "variant", "before finetune, %", "test, % (seeds)"]
    return markdown_table([*heads, "to dense, points", f"to {reference}, points"], listed)


def spread(values: Sequence[float], *, signed: bool = False) -> str:
    """Return mean, standard deviation and number of values."""
    if not values:
        return "-"
    mean = f"{statistics.mean(values):{'+' if signed else ''}.2f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2f} ({len(values)})"
