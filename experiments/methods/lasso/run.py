"""Claim: channels by LASSO with refitted layers lose 0.3 points at a 5-fold acceleration.

    python -m experiments.methods.lasso.run [--tiny] [--seeds 0]

Each variant is pruned at equal MACs, scored before its finetune, finetuned for equal epochs and tested once,
for three seeds: l1 as it is cut, l1 with refitted layers, LASSO of the dense model with refitted layers, and
LASSO by layers, which chooses in the model as pruned and refitted so far. Appends rows to results.csv,
goes on after those there, and draws accuracy.png. --tiny tries all of it on digits within minutes.
"""

from __future__ import annotations

from pathlib import Path

from experiments.common import rows_of
from experiments.methods.pictures import draw_variants
from experiments.methods.pruned_rows import Case, Variants, measure, read_options, report, table

HERE = Path(__file__).parent

_REFITTED = ("flow.stages=['select', 'repair', 'finetune']", "repair.mode=sequential")
_BY_LAYERS = ("select.criterion=lasso", "select.ranking=greedy", *_REFITTED)
VARIANTS: Variants = {
    "l1": (),
    "l1, refitted": _REFITTED,
    "lasso, refitted": ("select.criterion=lasso", *_REFITTED),
    "lasso by layers": _BY_LAYERS,
    "lasso by layers, library": ("select.by=library", *_BY_LAYERS),
}

CASES = (
    Case("vgg16_bn_half", "20%", VARIANTS),
    Case("resnet20", "20%", VARIANTS),
    Case("vgg16_bn_half", "33.3%", VARIANTS),
)
TINY = (Case("digits_resnet", "33.3%", VARIANTS),)


def main() -> None:
    options = read_options(__doc__)
    folder = options.folder(HERE)
    results = folder / "results.csv"
    measure(results, TINY if options.tiny else CASES, options.seeds)
    draw_variants(folder / "accuracy.png", rows_of(results))
    lines = table(results, "l1")
    report(options, HERE, lines, ["accuracy.png"])


if __name__ == "__main__":
    main()
