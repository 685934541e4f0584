"""Claim: small filters go at no loss, and better so than large or random ones; late layers are insensitive.

    python -m experiments.methods.filters.run [--tiny]

Draws the sensitivity of each net as sensitivity-NET.png and .csv. Then each variant is pruned at equal MACs,
finetuned for equal epochs and tested once, for three seeds: filters with the smallest or the largest sum of
weights, or random ones; greedy rankings; streams ranked by their shortcut alone; sensitive groups left whole;
one finetune after each group against one at the end. Appends rows to results.csv and goes on after those
there. --tiny tries all of it on digits within minutes, under runs/.
"""

from __future__ import annotations

import sys
from pathlib import Path

from autoprune import run
from autoprune.config import load_config
from experiments.common import write_measured
from experiments.methods.pruned_rows import Variants, measure, table, train_missing

HERE = Path(__file__).parent
CONFIGS = "experiments/methods"
SEEDS = (0, 1, 2)

RANKINGS: Variants = {
    "smallest": (),
    "largest": ("select.remove=most",),
    "random": ("select.criterion=random",),
    "greedy": ("select.ranking=greedy",),
    "sensitive whole": ("select.skip_fall=0.05", "select.ties=stage"),
}
RESIDUAL: Variants = {**RANKINGS, "shortcut": ("select.residual=shortcut",)}
BY_LAYERS: Variants = {"layer by layer": ("flow.narrow=group", "finetune.epochs=1")}
"""As many epochs in all as the others: the config of resnet20 has one for each of its groups."""

PLAN = (
    ("vgg16_bn_half", ("66%", "30%"), RANKINGS),
    ("resnet20", ("66%", "30%"), {**RESIDUAL, **BY_LAYERS}),
    ("resnet56", ("66%",), RESIDUAL),
)
TINY = (("digits_resnet", ("50%",), {**RESIDUAL, **BY_LAYERS}),)


def main(*, tiny: bool) -> None:
    folder = Path("runs/methods/tiny-filters") if tiny else HERE
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "results.csv"
    for net, budgets, variants in TINY if tiny else PLAN:
        settings = load_config(f"{CONFIGS}/{net}.toml", ())
        train_missing(settings)
        pictures = [folder / f"sensitivity-{net}{suffix}" for suffix in (".png", ".csv")]
        if not all(path.exists() for path in pictures):
            run.sensitivity_curves(settings, pictures, limit_seconds=3_600, watch=print)
        for flops in budgets:
            measure(results, f"{CONFIGS}/{net}.toml", flops, variants, SEEDS[:1] if tiny else SEEDS)
    lines = table(results, "smallest")
    print("\n".join(lines))
    if not tiny:
        write_measured(HERE / "README.md", lines)


if __name__ == "__main__":
    main(tiny="--tiny" in sys.argv[1:])
