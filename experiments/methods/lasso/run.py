"""Claim: channels by LASSO with refitted layers lose 0.3 points at a 5-fold acceleration.

    python -m experiments.methods.lasso.run [--tiny]

Each variant is pruned at equal MACs, scored before its finetune, finetuned for equal epochs and tested once,
for three seeds: l1 as it is cut, l1 with refitted layers, LASSO of the dense model with refitted layers, and
LASSO by layers, which chooses in the model as pruned and refitted so far. Appends rows to results.csv and
goes on after those there. --tiny tries all of it on digits within minutes, under runs/.
"""

from __future__ import annotations

import sys
from pathlib import Path

from experiments.common import write_measured
from experiments.methods.pruned_rows import Variants, measure, table

HERE = Path(__file__).parent
CONFIGS = "experiments/methods"
SEEDS = (0, 1, 2)

_REFITTED = ("flow.stages=['select', 'repair', 'finetune']", "repair.mode=sequential")
VARIANTS: Variants = {
    "l1": (),
    "l1, refitted": _REFITTED,
    "lasso, refitted": ("select.criterion=lasso", *_REFITTED),
    "lasso by layers": ("select.criterion=lasso", "select.ranking=greedy", *_REFITTED),
    "lasso by layers, library": (
        "select.criterion=lasso",
        "select.ranking=greedy",
        "select.by=library",
        *_REFITTED,
    ),
}

PLAN = (("vgg16_bn_half", ("33.3%", "20%")), ("resnet20", ("33.3%", "20%")))
TINY = (("digits_resnet", ("33.3%",)),)


def main(*, tiny: bool) -> None:
    folder = Path("runs/methods/tiny-lasso") if tiny else HERE
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "results.csv"
    for net, budgets in TINY if tiny else PLAN:
        for flops in budgets:
            measure(results, f"{CONFIGS}/{net}.toml", flops, VARIANTS, SEEDS[:1] if tiny else SEEDS)
    lines = table(results, "l1")
    print("\n".join(lines))
    if not tiny:
        write_measured(HERE / "README.md", lines)


if __name__ == "__main__":
    main(tiny="--tiny" in sys.argv[1:])
