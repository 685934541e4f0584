"""Claim: MobileNetV3 by guided rebuilding is best with 40% of the channels cut, smaller and more accurate.

    python -m experiments.methods.mobilenet.run [--tiny] [--seeds 0]

The preset guided-rebuilding on mobilenet_v3_large at 32 pixels. For each of three seeds the dense model is
trained under a penalty on its BatchNorm scales, each strength in a short training and the best in full. Nine
shares of the channels, from 10% to 90%, are then cut from the sparse model, which is rebuilt and finetuned.
Draws the histograms of the scales as scales.png, and the accuracy over the shares as shares.png. The row of a
share has the sizes of the file of the small model and of its training checkpoint. Each row is tested once.
Appends rows to results.csv and goes on after those there. --tiny tries all of it on digits within minutes,
under runs/.
"""

from __future__ import annotations

import statistics
from pathlib import Path

from autoprune.run import FlowResult
from experiments.common import markdown_table, rows_of
from experiments.methods.pictures import draw_lines
from experiments.methods.pruned_rows import (
    RUNS,
    Case,
    config_of,
    measure,
    read_options,
    report,
    spread,
    train_missing,
    whole_row,
)
from experiments.methods.sparse import copy_histograms, sparse_checkpoint

HERE = Path(__file__).parent

SHARES = (0.4, 0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
WHOLE = "0%"
PRESET = ("flow.method=guided-rebuilding", "sparsify.rate_by_score=[]", "finetune.rate_by_score=[]")
"""The preset's learning rates follow the accuracy on CIFAR-10 of a model with random weights. The dense model
here is above their last step, so the rate falls by a cosine, as the guide advises."""

CUT = ("flow.stages=['select', 'rebuild', 'finetune']", *PRESET)


def sizes(result: FlowResult) -> dict[str, float]:
    """Return the bytes of the small model's file and of the last checkpoint of its training."""
    files = {"bytes": "model.safetensors", "checkpoint_bytes": "1-finetune.pth"}
    return {name: (result.folder / file).stat().st_size for name, file in files.items()}


def summarise(results: Path, picture: Path, dense_bytes: int) -> list[str]:
    """Draw the accuracy over the shares, and return the lines of the table."""
    rows = rows_of(results)
    shares = sorted({row["budget"] for row in rows}, key=lambda share: int(share.rstrip("%")))
    found = {share: [row for row in rows if row["budget"] == share] for share in shares}
    sparse = [row for row in found[WHOLE] if row["variant"] == "sparse"]
    dense = next(100 * float(row["test"]) for row in found[WHOLE] if row["variant"] == "dense")
    cut = {share: mine for share, mine in found.items() if share != WHOLE}

    def points(column: str) -> list[tuple[float, list[float]]]:
        return [
            (float(share.rstrip("%")), [100 * float(row[column]) for row in mine])
            for share, mine in cut.items()
        ]

    draw_lines(
        picture,
        {"finetuned, test": points("test"), "rebuilt, validation": points("before")},
        title="MobileNetV3 by guided rebuilding",
        axes=("channels cut, %", "accuracy, %"),
        level=("dense, test", dense),
    )

    def line(share: str, mine: list[dict[str, str]]) -> list[str]:
        test = [100 * float(row["test"]) for row in mine]
        loss = [100 * (float(row["test"]) - float(row["dense_test"])) for row in mine]
        size, checkpoint = (
            statistics.mean(float(row[name]) for row in mine) for name in ("bytes", "checkpoint_bytes")
        )
        return [
            share,
            *(f"{statistics.mean(float(row[name]) for row in mine):.1%}" for name in ("macs", "params")),
            f"{size / 1e6:.2f}",
            f"{checkpoint / 1e6:.2f}",
            f"{dense_bytes / size:.1f}",
            spread([100 * float(row["before"]) for row in mine]),
            spread(test),
            spread(loss, signed=True),
        ]

    heads = ["channels cut", "MACs", "parameters", "file, MB", "training checkpoint, MB", "times smaller"]
    heads += ["rebuilt: validation, %", "finetuned: test, % (seeds)", "to dense, points"]
    scores = spread([100 * float(row["test"]) for row in sparse])
    lines = [f"Dense: {dense:.2f}% on the test part, {dense_bytes / 1e6:.2f} MB. Sparse: {scores}%."]
    return [*lines, *markdown_table(heads, [line(share, mine) for share, mine in cut.items()])]


def main() -> None:
    options = read_options(__doc__)
    folder = options.folder(HERE)
    results = folder / "results.csv"
    net, lengths, shares = (
        ("digits_mobilenet_v3_large", (1, 1), SHARES[:2])
        if options.tiny
        else ("mobilenet_v3_large", (8, 6), SHARES)
    )
    epochs = [f"{name}.epochs={each}" for name, each in zip(("sparsify", "finetune"), lengths, strict=True)]
    path = Path(str(config_of(net).model.checkpoint))
    dense_row = {"net": net, "budget": WHOLE, "variant": "dense", "seed": 0}
    for seed in options.seeds:
        train_missing(config_of(net))
        size = {"bytes": path.stat().st_size, "checkpoint_bytes": None}
        dense = whole_row(results, config_of(net), dense_row, more=size)
        kept = RUNS / folder.name / f"{net}-sparse-{seed}"
        sparse = sparse_checkpoint(config_of(net, *PRESET, *epochs, f"sparsify.seed={seed}"), kept)
        if seed == 0:
            copy_histograms(kept, folder / "scales.png")
        begun = f"model.checkpoint='{sparse}'"
        sparse_row = {**dense_row, "variant": "sparse", "seed": seed}
        whole_row(results, config_of(net, begun), sparse_row, dense, size)
        cases = [
            Case(net, f"{share:.0%}", {"guided rebuilding": (*CUT, *epochs)}, (f"select.share={share}",))
            for share in shares
        ]
        measure(results, cases, (seed,), (begun,), dense, sizes)
    lines = summarise(results, folder / "shares.png", path.stat().st_size)
    report(options, HERE, lines, ["shares.png", "scales.png"])


if __name__ == "__main__":
    main()
