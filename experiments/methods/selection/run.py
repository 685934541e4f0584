"""Claim: with channel selection, nets whose layers share tensors lose at most 0.2 points at half of the MACs.

    python -m experiments.methods.selection.run [--tiny] [--seeds 0]

A pre-activation ResNet-20 and a DenseNet-40 are trained under a penalty on their BatchNorm scales, for three
seeds, each strength in a short training and the best in full. One threshold then cuts the sparse model to
half of the MACs, once with channel selections, so that each layer drops channels of its own choice, and once
without. Both finetune for equal epochs and are tested once. Draws the histograms of the scales as
scales-NET.png. Appends rows to results.csv, goes on after those there, and draws accuracy.png. --tiny tries
all of it on digits within minutes, under runs/.
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
    whole_row,
)
from experiments.methods.sparse import copy_histograms, sparse_checkpoint

HERE = Path(__file__).parent

WITHOUT, WHOLE = "without selection", "100%"
STRENGTHS = (1e-3, 3e-3, 1e-2)
EPOCHS = {"preresnet20": 8, "densenet40": 6, "digits_preresnet20": 3}
"""{net: epochs of the sparse training}."""

SPARSIFY = (f"sparsify.strength={list(STRENGTHS)}", "sparsify.learning_rate=0.05")


def main() -> None:
    options = read_options(__doc__)
    folder = options.folder(HERE)
    results = folder / "results.csv"
    nets = ("digits_preresnet20",) if options.tiny else ("preresnet20", "densenet40")
    for seed in options.seeds:
        for net in nets:
            dense = whole_row(results, config_of(net), _row(net, "dense", 0))
            lengths = (f"sparsify.epochs={EPOCHS[net]}", f"sparsify.seed={seed}")
            kept = RUNS / folder.name / f"{net}-sparse-{seed}"
            sparse = sparse_checkpoint(config_of(net, *SPARSIFY, *lengths), kept)
            if seed == 0:
                copy_histograms(kept, folder / f"scales-{net}.png")
            begun = f"model.checkpoint='{sparse}'"
            whole_row(results, config_of(net, begun), _row(net, "sparse", seed), dense)
            case = Case(net, "50%", variants(net.removeprefix("digits_")))
            measure(results, [case], (seed,), (begun, "select.by=global-threshold"), dense)
    cut = [row for row in rows_of(results) if row["budget"] != WHOLE]
    draw_variants(folder / "accuracy.png", cut)
    lines = table(results, WITHOUT)
    report(options, HERE, lines, ["accuracy.png", *(f"scales-{net}.png" for net in nets)])


def _row(net: str, variant: str, seed: int) -> dict[str, object]:
    return {"net": net, "budget": WHOLE, "variant": variant, "seed": seed}


def variants(model: str) -> Variants:
    """Return the variants of a model of the zoo. A net with selections takes the weights of the plain one."""
    return {"with selection": (f"model.name={model}_select",), WITHOUT: (f"model.name={model}",)}


if __name__ == "__main__":
    main()
