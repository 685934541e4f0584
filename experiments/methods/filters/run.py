"""Claim: small filters go at no loss, and better so than large or random ones. Late layers are insensitive.

    python -m experiments.methods.filters.run [--tiny] [--seeds 0]

Draws the sensitivity of each net as sensitivity-NET.png and .csv. Then each variant is pruned at equal MACs,
finetuned for equal epochs and tested once, for three seeds. The variants keep filters by the largest or the
smallest sum of weights, or at random. They rank them greedily, rank streams by their shortcut alone, or leave
sensitive groups whole. One has a finetune after the cut of each map size, and all others one at the end.
Appends rows to results.csv, goes on after those there, and draws accuracy.png. --tiny tries all of it on
digits within minutes, under runs/.
"""

from __future__ import annotations

from pathlib import Path

from autoprune import run
from experiments.common import rows_of
from experiments.methods.pictures import draw_variants
from experiments.methods.pruned_rows import (
    Case,
    Variants,
    config_of,
    measure,
    read_options,
    report,
    table,
    train_missing,
)

HERE = Path(__file__).parent

RANKINGS: Variants = {
    "smallest": (),
    "largest": ("select.remove=most",),
    "random": ("select.criterion=random",),
    "greedy": ("select.ranking=greedy",),
}
WHOLE: Variants = {"sensitive whole": ("select.skip_fall=0.05", "select.ties=stage")}
SHORTCUT: Variants = {"shortcut": ("select.residual=shortcut",)}
BY_STAGE: Variants = {"stage by stage": ("flow.narrow=stage", "finetune.epochs=2")}
"""About as many epochs in all as the others: nets of this folder have three map sizes to narrow."""

CASES = (
    Case("vgg16_bn_half", "30%", RANKINGS | WHOLE),
    Case("resnet20", "30%", RANKINGS | WHOLE | SHORTCUT | BY_STAGE),
    Case("resnet56", "66%", RANKINGS | SHORTCUT),
    Case("vgg16_bn_half", "66%", RANKINGS | WHOLE),
)
TINY = (Case("digits_resnet", "50%", RANKINGS | WHOLE | SHORTCUT | BY_STAGE),)


def main() -> None:
    options = read_options(__doc__)
    folder = options.folder(HERE)
    results = folder / "results.csv"
    cases = TINY if options.tiny else CASES
    nets = list(dict.fromkeys(case.net for case in cases))
    for net in nets:
        settings = config_of(net)
        train_missing(settings)
        pictures = [folder / f"sensitivity-{net}{suffix}" for suffix in (".png", ".csv")]
        if not all(path.exists() for path in pictures):
            run.sensitivity_curves(settings, pictures, limit_seconds=900, watch=print)
    measure(results, cases, options.seeds)
    draw_variants(folder / "accuracy.png", rows_of(results))
    lines = table(results, "smallest")
    report(options, HERE, lines, ["accuracy.png", *(f"sensitivity-{net}.png" for net in nets)])


if __name__ == "__main__":
    main()
