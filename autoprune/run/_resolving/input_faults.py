"""Finds the usual faults of a first run: images or labels that are not those that the model was trained on.

Example:
    found = suspect(dense, spec)
    found.text if found else ""     # "data: of 128 training images the dense model classifies 9.4%, but ..."
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from autoprune.data import MEAN, STD, first_batches
from autoprune.errors import DataError
from autoprune.run._resolving.dense import Dense
from autoprune.run._resolving.input_hints import is_labels, predict, runs
from autoprune.run._resolving.seen_validation import read_history
from autoprune.run._resolving.spec import RunSpec
from autoprune.support.events import Stage, Watcher
from autoprune.training import cross_entropy

IMAGES = 128
"""Images on which changes of the inputs are tried."""

_LEAST_GAIN = 0.3
"""Least gain in accuracy that counts as proof. With 128 images this is 7 standard errors."""

_RAW_VALUE = 20.0
"""Normalised images have no larger value: white is at most 3 standard deviations above the mean."""

_POSSIBLE = "the size, channels, mean and standard deviation of the images, and the order of the classes"


@dataclass(frozen=True)
class Suspicion:
    """A fault that the scores of the dense model show.

    Attributes:
        text: the fault in one sentence, and how to mend it.
        is_sure: whether a search with it would be useless.
    """

    text: str
    is_sure: bool


def check_inputs(dense: Dense, spec: RunSpec, watch: Watcher) -> None:
    """Report it if a trained model scores no better than chance.

    Raises:
        DataError: its images or labels are not those that it was trained on.
    """
    found = suspect(dense, spec)
    if found is not None and found.is_sure:
        raise DataError(found.text)
    if found is not None:
        watch(Stage(found.text))


def suspect(dense: Dense, spec: RunSpec) -> Suspicion | None:
    """Look for the reason why a trained classifier scores no better than chance.

    Returns:
        The fault, or None if the model is above chance on some training images, or no accuracy is measured.
    """
    sample = None if spec.task.metric != "accuracy" or dense.new_heads else _sample(dense)
    if sample is None:
        return None
    model, (inputs, labels) = copy.deepcopy(dense.model).to(dense.device), sample
    chance = 1 / max(2, dense.data.classes)
    score = _share(predict(model, inputs), labels)
    is_good = score > chance + 4 * math.sqrt(chance * (1 - chance) / len(labels))
    is_raw = float(inputs.max()) > _RAW_VALUE
    if is_good and not is_raw:
        return None
    least = score + max(_LEAST_GAIN if chance < 0.5 else 0.4, 5 * math.sqrt(0.25 / len(labels)))
    noted = _noted_score(spec)
    reason, is_sure = _proof(model, inputs, labels, least), True
    if not reason and is_good:  # the model may normalise its inputs itself
        return None
    if not reason and is_raw:
        reason = (
            f"Pixels go from {float(inputs.min()):g} to {float(inputs.max()):g}: divide the images by 255 "
            "and normalise them with the mean and standard deviation of the training"
        )
    if not reason and chance < 0.5 and (order := _renumbered(model, inputs, labels)) > max(0.5, least):
        is_sure = noted > chance
        reason = (
            f"With the classes in another order it would be {order:.1%}: number them as in the training of "
            "the checkpoint (a folder numbers them in alphabetical order)"
        )
    if not reason:
        is_sure = noted > chance + _LEAST_GAIN
        known = f"Its note says {noted:.1%}" if is_sure else "If it is trained"
        reason = f"{known}: check {_POSSIBLE}"
    return Suspicion(
        f"data: the dense model classifies {score:.1%} of {len(labels)} training images, and chance is "
        f"{chance:.1%}. {reason}.",
        is_sure,
    )


def _proof(model: nn.Module, inputs: Tensor, labels: Tensor, least: float) -> str:
    """Return the change of the data with which the accuracy is above `least`, or ""."""
    for change, advice, outputs, targets in _changes(model, inputs, labels):
        if _share(outputs, targets) > least:
            return f"With {change} it is {_share(outputs, targets):.1%}: {advice}"
    return ""


def _noted_score(spec: RunSpec) -> float:
    """Return the accuracy that the note next to the checkpoint states, or 0 if there is none."""
    checkpoint = spec.model.checkpoint
    note = None if checkpoint is None or not Path(checkpoint).exists() else read_history(checkpoint)
    noted = None if note is None else note.get("val_score")
    return noted if isinstance(noted, float) else 0.0


def _sample(dense: Dense) -> tuple[Tensor, Tensor] | None:
    """Return training images with their labels, which are shuffled, or None if it is no classification."""
    learns_labels = dense.task.loss is cross_entropy and dense.task.has_loss_function
    if not learns_labels or len(dense.data.input_shape) != 3:
        return None
    part = dense.data.unchanged_train
    size = max(1, part.samples // len(part))
    batches = list(first_batches(part, math.ceil(IMAGES / size), seed=0))
    if not all(is_labels(targets) and targets.ndim == 1 for _, targets in batches):
        return None
    inputs, labels = (torch.cat(parts)[:IMAGES] for parts in zip(*batches, strict=True))
    return inputs, labels


def _changes(model: nn.Module, inputs: Tensor, labels: Tensor) -> Iterator[tuple[str, str, Tensor, Tensor]]:
    """Yield (change, advice, predicted classes, labels) for each change of the labels or of the images."""
    predicted = predict(model, inputs)
    yield "labels that are one lower", "subtract 1 from all labels", predicted, labels - 1
    yield "labels that are one higher", "add 1 to all labels", predicted, labels + 1
    for change, advice, images in _changed_images(inputs):
        if images.shape == inputs.shape or runs(model, images[:1]):
            yield change, advice, predict(model, images), labels


def _changed_images(inputs: Tensor) -> Iterator[tuple[str, str, Tensor]]:
    """Yield (change, advice, images), the simplest change first."""
    centred = inputs - inputs.mean((0, 2, 3), keepdim=True)
    yield "images divided by 255", "divide them by 255", inputs / 255
    yield "images multiplied by 255", "multiply them by 255", inputs * 255
    if inputs.shape[1] == 3:
        mean, std = (inputs.new_tensor(each).view(1, 3, 1, 1) for each in (MEAN, STD))
        scale = 255.0 if float(inputs.max()) > _RAW_VALUE else 1.0
        advice = f"normalise them with mean {MEAN} and standard deviation {STD}"
        yield "images normalised as ImageNet's are", advice, (inputs / scale - mean) / std
        yield "reversed channels", "give RGB in place of BGR, or the other way round", inputs.flip(1)
    yield (
        "images of mean 0 and standard deviation 1 in each channel",
        "normalise them with the mean and standard deviation of the training",
        centred / centred.std((0, 2, 3), keepdim=True).clamp(min=1e-6),
    )
    yield "height and width swapped", "transpose the images", inputs.transpose(2, 3)


def _renumbered(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Return the accuracy under the best numbering of the classes."""
    predicted, wanted = predict(model, inputs).cpu().numpy(), labels.cpu().numpy()
    classes = int(max(predicted.max(), wanted.max())) + 1
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (predicted, wanted), 1)
    rows, columns = linear_sum_assignment(-counts)
    return float(counts[rows, columns].sum() / len(labels))


def _share(predicted: Tensor, labels: Tensor) -> float:
    return float((predicted == labels).double().mean())
