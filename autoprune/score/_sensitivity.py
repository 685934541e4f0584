"""Measure the sensitivity to cuts: the score of a cut model, and the divergence of its outputs.

Example:
    cutter = Cutter(prunable, importance, setting, calibration=first_batches(data.train, 2, seed=0))
    cut_scores(cutter, [{"layer1.0.conv1": 8}], data.val, task)           # [0.87]
    divergences(cutter, [{"layer1.0.conv1": 8}], calibration)             # [0.21] nats
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.criteria import Importance, plan_from_importance
from autoprune.data import Loader
from autoprune.errors import TrialError
from autoprune.execution import Setting
from autoprune.graph import Prunable
from autoprune.reconstruction import Moments
from autoprune.score._finetune_score import cut_model
from autoprune.space import SearchSpace, widths_at
from autoprune.support.memory import release_freed_memory
from autoprune.support.usercode import forward
from autoprune.training import Task, divergence, evaluate, main_output, recalibrate

Cut = Mapping[str, int]
"""{group name: width}. Groups that it does not name keep their width."""


@dataclass(frozen=True)
class Cutter:
    """Makes cut models.

    Attributes:
        prunable: the traced dense model, which is not changed.
        importance: {group name: importance of each channel}. The least important channels are cut.
        setting: how forward passes run.
        calibration: training batches on which BatchNorm's statistics are measured, all for each model.
        moments: moments of the dense model to repair cut models with, or None for no repair.
    """

    prunable: Prunable
    importance: Importance
    setting: Setting
    calibration: Loader
    moments: Moments | None = None

    def model(self, cut: Cut) -> nn.Module:
        """Return the model at the cut's widths, recalibrated, in eval mode. An empty cut gets the same."""
        release_freed_memory()
        plan = plan_from_importance(self.prunable, cut, self.importance)
        model = cut_model(self.prunable, plan, self.moments)
        recalibrate(model, self.calibration, len(self.calibration), self.setting)
        return self.setting.place(model).eval()


def cut_scores(
    cutter: Cutter,
    cuts: Sequence[Cut],
    part: Loader,
    task: Task,
    *,
    done: Callable[[int], None] | None = None,
) -> list[float]:
    """Return the task's metric for each cut, or NaN if a cut model's outputs are not finite.

    Args:
        cutter: makes the models.
        cuts: the cuts to score.
        part: the part of the data to evaluate on.
        task: the task with the metric.
        done: called after each cut with the number of cuts scored so far.
    """
    scores = []
    for number, cut in enumerate(cuts, start=1):
        try:
            scores.append(evaluate(cutter.model(cut), part, task, cutter.setting))
        except TrialError:
            scores.append(math.nan)
        if done is not None:
            done(number)
    return scores


def sensitive_groups(
    cutter: Cutter,
    space: SearchSpace,
    part: Loader,
    task: Task,
    *,
    keep: float,
    tolerance: float,
    done: Callable[[int], None] | None = None,
) -> tuple[str, ...]:
    """Return the groups that a score does not let go: those that should stay whole.

    Each variable of the space is cut alone to one keep ratio. Its groups are sensitive if the metric falls by
    more than the tolerance, or if the outputs are not finite.

    Args:
        cutter: makes the models.
        space: its keep ratios are cut, one after the other. Its budget does not matter.
        part: the part of the data to evaluate on.
        task: the task with the metric.
        keep: the keep ratio, in (0, 1).
        tolerance: the largest fall of the metric that leaves a group free.
        done: called after each evaluation with their number so far.

    Reference: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, section 3.2. They read the layers
        to skip off the curves by eye.
    """
    rows = space.keep_ratios.ladder.rows
    wanted = [int(row.of_ratio(np.array([keep]))[0]) for row in rows]
    cuts = [widths_at(rows, space.groups, {v: level}) for v, level in enumerate(wanted)]
    baseline, *scores = cut_scores(cutter, [{}, *cuts], part, task, done=done)
    # The comparison with NaN is false.
    return tuple(
        name
        for cut, score in zip(cuts, scores, strict=True)
        if not baseline - score <= tolerance
        for name in cut
    )


def divergences(
    cutter: Cutter, cuts: Sequence[Cut], batches: Loader, *, done: Callable[[int], None] | None = None
) -> list[float]:
    """Return the Kullback-Leibler divergence KL(dense || cut) of each cut model's outputs, in nats.

    This is the mean over all samples, between the softmax of the logits. The dense model is recalibrated on
    the same batches, so that an empty cut has a divergence of exactly 0. Outputs that are not finite give
    infinity.

    Args:
        cutter: makes the models, including the dense one.
        cuts: the cuts to compare.
        batches: inputs to compare on. Their targets are not used.
        done: called after each cut with the number of cuts compared so far.
    """
    dense = _outputs(cutter.model({}), batches, cutter.setting)
    found = []
    for number, cut in enumerate(cuts, start=1):
        outputs = _outputs(cutter.model(cut), batches, cutter.setting)
        found.append(_mean([kl_divergence(*pair) for pair in zip(dense, outputs, strict=True)], dense))
        if done is not None:
            done(number)
    return found


def kl_divergence(reference: Tensor, other: Tensor) -> float:
    """Return the mean of KL(reference || other) over samples, in nats, at least 0.

    Args:
        reference: logits [n, classes, ...], or binary logits [n] or [n, 1, ...].
        other: logits of the same shape.
    """
    value = float(divergence(other, reference).mean())
    return max(value, 0.0) if math.isfinite(value) else math.inf


def _outputs(model: nn.Module, batches: Loader, setting: Setting) -> list[Tensor]:
    with torch.inference_mode(), setting.autocast():
        return [main_output(forward(model, setting.arrange(inputs))).float().cpu() for inputs, _ in batches]


def _mean(values: Sequence[float], batches: Sequence[Tensor]) -> float:
    """Return the mean over all samples, given the mean of each batch."""
    sizes = [len(batch) for batch in batches]
    return sum(value * size for value, size in zip(values, sizes, strict=True)) / sum(sizes)
