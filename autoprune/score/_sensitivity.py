"""What cuts do to a model before any finetune: its score afterwards, and how far its outputs move.

cutter = Cutter(prunable, importance, setting, calibration=first_batches(data.train, 2, seed=0))
cut_scores(cutter, [{"layer1.0.conv1": 8}], data.val, task)           # [0.87]
divergences(cutter, [{"layer1.0.conv1": 8}], calibration)             # [0.21] nats
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from autoprune.criteria import Importance, plan_from_importance
from autoprune.data import Loader
from autoprune.errors import TrialError
from autoprune.execution import Setting
from autoprune.graph import Prunable
from autoprune.rebuilding import rebuild
from autoprune.reconstruction import Moments, repair_closed
from autoprune.support.memory import release_freed_memory
from autoprune.support.usercode import forward
from autoprune.train import Task, evaluate, main_output, recalibrate

Cut = Mapping[str, int]
"""{group name: width}; groups that it does not name are whole."""


@dataclass(frozen=True)
class Cutter:
    """Makes cut models to look at.

    Attributes:
        prunable: the traced dense model, never changed.
        importance: per group, an importance per channel; the least important channels are cut.
        setting: how forward passes run.
        calibration: training batches that BatchNorm's statistics are measured on, all of them for each model.
        moments: of the dense model, if cut models are repaired; None if they are not.
    """

    prunable: Prunable
    importance: Importance
    setting: Setting
    calibration: Loader
    moments: Moments | None = None

    def model(self, cut: Cut) -> nn.Module:
        """Rebuild the model at the cut's widths and recalibrate it, in eval mode; no cut is treated alike."""
        release_freed_memory()
        plan = plan_from_importance(self.prunable, cut, self.importance)
        model = rebuild(self.prunable, plan)
        if self.moments is not None:
            model = repair_closed(self.prunable, plan, model, self.moments).model
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
    """Return the task's metric on a part for every cut; NaN where a cut model's outputs are not finite.

    Args:
        cutter: makes the models.
        cuts: what to cut.
        part: of the data, the validation part or some of it.
        task: for its metric.
        done: told how many cuts are scored, after each.
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


def divergences(
    cutter: Cutter, cuts: Sequence[Cut], batches: Loader, *, done: Callable[[int], None] | None = None
) -> list[float]:
    """Return the Kullback-Leibler divergence of every cut model's outputs from the dense model's, in nats.

    The mean over all samples of KL(dense || cut) between the softmax of their logits. The dense model is
    recalibrated on the same batches, so that no cut diverges by exactly 0. Outputs that are not finite give
    infinity.

    Args:
        cutter: makes the models, the dense one too.
        cuts: what to cut.
        batches: inputs to compare on; their targets are not looked at.
        done: told how many cuts are compared, after each.
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
    """Return the mean of KL(reference || other) over samples, in nats; never below 0.

    Args:
        reference: logits [n, classes, ...], or [n] or [n, 1, ...] of one class against none.
        other: logits of the same shape.
    """
    first, second = (functional.log_softmax(_logits(each), dim=1) for each in (reference, other))
    value = float((first.exp() * (first - second)).sum(dim=1).mean())
    return max(value, 0.0) if math.isfinite(value) else math.inf


def _logits(outputs: Tensor) -> Tensor:
    outputs = outputs.double()
    if outputs.ndim > 1 and outputs.shape[1] > 1:
        return outputs
    column = outputs if outputs.ndim > 1 else outputs[:, None]
    return torch.cat([torch.zeros_like(column), column], dim=1)


def _outputs(model: nn.Module, batches: Loader, setting: Setting) -> list[Tensor]:
    with torch.inference_mode(), setting.autocast():
        return [main_output(forward(model, setting.arrange(inputs))).float().cpu() for inputs, _ in batches]


def _mean(values: Sequence[float], batches: Sequence[Tensor]) -> float:
    """Return the mean over all samples of values [batches] that are means over a batch each."""
    sizes = [len(batch) for batch in batches]
    return sum(value * size for value, size in zip(values, sizes, strict=True)) / sum(sizes)
