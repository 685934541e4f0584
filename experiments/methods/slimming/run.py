"""Claim: a VGG loses nothing at a twentieth of its parameters and a fifth of its MACs, in several passes.

    python -m experiments.methods.slimming.run [--tiny] [--seeds 0]

Strengths of the penalty on BatchNorm scales are compared once, and their histograms drawn as scales.png. The
chosen one holds for all rows. Then the budget is reached in 1, 2 or 3 passes of sparse training, one
threshold and a finetune, with equal epochs in all, for three seeds. A control cuts filters with the smallest
sum of weights by one ratio and finetunes for as many epochs. Each row is tested once. Appends rows to
results.csv, goes on after those there, and draws accuracy.png. --tiny tries all of it on digits within
minutes, under runs/.
"""

from __future__ import annotations

from pathlib import Path

from experiments.common import rows_of
from experiments.methods.pictures import draw_variants
from experiments.methods.pruned_rows import (
    RUNS,
    Case,
    Variants,
    config_of,
    measure,
    read_options,
    report,
    table,
)
from experiments.methods.sparse import chosen_strength, copy_histograms, sparse_checkpoint

HERE = Path(__file__).parent

FLOPS, PARAMS = 20, 5
"""Percent of the dense model."""
STRENGTHS = (1e-3, 3e-3, 1e-2)
SPARSIFY = ("sparsify.learning_rate=0.05", "sparsify.share=0.6")
FLOW = ("flow.stages=['sparsify', 'select', 'finetune']", "select.by=global-threshold", *SPARSIFY)
FINETUNE = "finetune.learning_rate=0.05"


def variants(epochs: int) -> Variants:
    """Return the variants. Each sparse training and each finetune has `epochs` over all passes."""

    def passes(number: int) -> tuple[str, ...]:
        lengths = [f"{section}.epochs={epochs // number}" for section in ("sparsify", "finetune")]
        return (*FLOW, FINETUNE, f"flow.passes={number}", *lengths)

    control = ("select.by=uniform", FINETUNE, f"finetune.epochs={2 * epochs}")
    return {"1 pass": passes(1), "2 passes": passes(2), "3 passes": passes(3), "l1, one ratio": control}


def main() -> None:
    options = read_options(__doc__)
    folder = options.folder(HERE)
    results = folder / "results.csv"
    net, epochs = ("digits_resnet", 3) if options.tiny else ("vgg16_bn_half", 12)
    compared = (f"sparsify.strength={list(STRENGTHS)}", f"sparsify.epochs={epochs}", *SPARSIFY)
    sparse = sparse_checkpoint(config_of(net, *compared), RUNS / folder.name / f"{net}-strengths")
    copy_histograms(sparse.parent, folder / "scales.png")
    flops, params = (40, 40) if options.tiny else (FLOPS, PARAMS)
    limits = (f"budget.flops={flops}%", f"budget.params={params}%")
    case = Case(net, f"{flops}% and {params}% of the parameters", variants(epochs), limits)
    measure(results, [case], options.seeds, (f"sparsify.strength={chosen_strength(sparse)}",))
    draw_variants(folder / "accuracy.png", rows_of(results))
    lines = table(results, "1 pass")
    report(options, HERE, [f"Strength: {chosen_strength(sparse):g}.", *lines], ["accuracy.png", "scales.png"])


if __name__ == "__main__":
    main()
