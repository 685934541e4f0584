"""What several experiments share: named models, counted MACs, rows of a CSV file, parts of a README."""

from __future__ import annotations

import copy
import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model  # type: ignore[import-untyped]  # ships no types

from autoprune.zoo import make_model

OWN = {"resnet20": (1, 28), "resnet56": (3, 32), "vgg16_bn": (3, 32), "densenet40": (3, 32)}
"""Models of the zoo, with their input channels and image sizes. Every other name is torchvision's."""


def build(name: str) -> tuple[nn.Module, Tensor]:
    """Return a model of torchvision with random weights, and an example input at batch 1.

    "autoprune/NAME" is of the zoo, "timm/NAME" of timm.
    """
    library, _, own = name.rpartition("/")
    if library == "autoprune":
        channels, size = OWN[own]
        return make_model(own, 10, channels), torch.zeros(1, channels, size, size)
    if library == "timm":
        import timm

        return timm.create_model(own), torch.zeros(1, 3, 224, 224)
    # The truncated normal initialisation of these two takes minutes.
    slow = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    size = 299 if name == "inception_v3" else 224
    return get_model(name, weights=None, **slow), torch.zeros(1, 3, size, size)


def count_macs(model: nn.Module, example: Tensor) -> int:
    """Count the multiply-adds of one forward pass of a model on the example, without computing it."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        copy.deepcopy(model).to("meta")(example.to("meta"))
    return int(counter.get_total_flops()) // 2


def largest_within(
    make: Callable[[float], nn.Module], load: Callable[[nn.Module], float], halvings: int = 14
) -> nn.Module:
    """Return the largest model within a budget among those that bisection over a ratio tries.

    Args:
        make: makes a model of a ratio from 0 to 1, larger for a larger ratio.
        load: the cost of a model as a share of its limit.
        halvings: how many models are made.

    Raises:
        AssertionError: none of them meets the budget.
    """
    best: tuple[float, nn.Module] | None = None
    low, high = 0.0, 1.0
    for _ in range(halvings):
        ratio = (low + high) / 2
        model = make(ratio)
        share = load(model)
        if share > 1:
            high = ratio
            continue
        low = ratio
        if best is None or share > best[0]:
            best = (share, model)
    if best is None:
        raise AssertionError("no ratio meets the budget")
    return best[1]


def rows_of(path: Path) -> list[dict[str, str]]:
    """Return the rows written so far."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append_row(path: Path, row: Mapping[str, object], *, quiet: bool = False) -> None:
    """Append a row, with a header if the file is new, and print it."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)
    if not quiet:
        print(dict(row), flush=True)


Part = tuple[list[str], list[str]]
"""Lines of table.md, and sentences for README.md."""

BEGIN, END = "<!-- measured -->\n", "<!-- end -->\n"
"""A README between these lines is written by a script."""


def write_summary(folder: Path, parts: Sequence[Callable[[], Part]]) -> None:
    """Write the parts into a folder's table.md and the measured part of its README.md, and print them."""
    told = [part() for part in parts]
    lines = [line for table, _ in told for line in table]
    sentences = [f"- {sentence}" for _, said in told for sentence in said]
    (folder / "table.md").write_text("\n".join(lines) + "\n", "utf-8")
    write_measured(folder / "README.md", sentences)
    print("\n".join([*lines, *sentences]))


def write_measured(readme: Path, lines: Sequence[str]) -> None:
    """Put lines in place of the measured part of a README."""
    before, _, rest = readme.read_text("utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    readme.write_text(before + BEGIN + "\n".join([*lines, ""]) + END + after, "utf-8")


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table, an empty one before and after."""
    lines = (" | ".join(row) for row in [head, ["---"] * len(head), *rows])
    return ["", *(f"| {line} |" for line in lines), ""]
