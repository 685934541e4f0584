"""The hooks that hold masked weights at zero while a model trains, with fixed or growing masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from autoprune.errors import MaskError
from autoprune.graph import Prunable
from autoprune.masks._channels import whole_channels
from autoprune.masks._making import MaskRule
from autoprune.masks._masks import Masks
from autoprune.masks._scores import LossFunction
from autoprune.support.userfunction import reference
from autoprune.training import Moment, StepHook


class MaskHook(StepHook):
    """Holds masked weights at zero.

    Gradients of masked weights are set to zero, so that momentum forgets them, and the weights after each
    step, whatever the optimizer does. The average of the weights is masked too.

    Args:
        masks: of the model in training.
    """

    def __init__(self, masks: Masks) -> None:
        self.masks = masks
        self.identity = f"masks {masks.fingerprint}"
        self._average: list[tuple[nn.Parameter, Tensor]] | None = None
        self._pairs: list[tuple[nn.Parameter, Tensor]] = []

    def begin(self, model: nn.Module) -> None:
        """Set the masked weights to zero.

        Raises:
            MaskError: the masks are of another model.
        """
        self._set(self.masks, model)
        _zero(self._pairs)

    def after_backward(self, model: nn.Module, moment: Moment) -> None:
        """Set the gradients of masked weights to zero."""
        for parameter, zero in self._pairs:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(zero, 0)

    def after_step(self, model: nn.Module, moment: Moment) -> None:
        """Set the masked weights to zero."""
        _zero(self._pairs)

    def after_average(self, average: nn.Module, moment: Moment) -> None:
        """Set the averages of masked weights to zero."""
        if self._average is None:
            self._average = self.masks.placed(average)
        _zero(self._average)

    def _set(self, masks: Masks, model: nn.Module) -> None:
        self.masks, self._pairs, self._average = masks, masks.placed(model), None


class GradualMasks(MaskHook):
    """Masks that grow during a training, by the cubic schedule, and hold weights at zero from then on.

    Args:
        rule: how masks are made from the weights of the moment.
        sparsity: at the end.
        initial: sparsity at the first update.
        begin_share: share of the training before the first update.
        end_share: share of the training after which the masks stay.
        updates: number of updates, the first and the last included.
        start: masks that hold from the beginning.
        prunable: the traced model, so that whole channels are masked in all parameters of their group.
        data: batches (inputs, targets), for scores that run the model.
        loss: (outputs, targets) -> scalar, for scores that read gradients.

    Raises:
        MaskError: a number is out of its range, or the granularity has no other sparsity than its own.

    Reference: Zhu and Gupta, To Prune, or Not to Prune, ICLR 2018 workshop, section 3.
    """

    def __init__(
        self,
        rule: MaskRule,
        sparsity: float,
        *,
        initial: float = 0.0,
        begin_share: float = 0.0,
        end_share: float = 0.75,
        updates: int = 20,
        start: Masks | None = None,
        prunable: Prunable | None = None,
        data: Iterable[Any] | None = None,
        loss: LossFunction = functional.cross_entropy,
    ) -> None:
        super().__init__(start or Masks({}))
        if rule.units.two_of_four:
            raise MaskError('gradual masks: "2:4" has one sparsity only. Make its masks in one shot.')
        rule.check(sparsity)
        rule.check(initial)
        if not 0 <= begin_share < end_share <= 1 or updates < 2 or initial > sparsity:
            raise MaskError(
                f"gradual masks: got {updates} updates from {begin_share} to {end_share} of the training and "
                f"a sparsity from {initial} to {sparsity}. Expected 2 updates or more, rising shares in "
                "[0, 1] and a rising sparsity."
            )
        self._rule, self._sparsity, self._initial = rule, sparsity, initial
        self._shares, self._updates = (begin_share, end_share), updates
        self._prunable, self._data, self._loss = prunable, data, loss
        self._start = self.masks
        self._model: nn.Module | None = None
        graph = prunable.fingerprint if prunable is not None else "none"
        schedule = f"{initial} to {sparsity} in {updates} updates from {begin_share} to {end_share}"
        begun = f", {self.identity}" if start else ""
        self.identity = f"{rule}, {schedule}, loss {reference(loss)}, groups {graph}{begun}"

    def begin(self, model: nn.Module) -> None:
        """Set the weights to zero that are masked from the beginning."""
        self._rule.maskable(model)
        self._model = model
        self._set(self._start, model)
        _zero(self._pairs)

    def after_step(self, model: nn.Module, moment: Moment) -> None:
        """Let the masks grow if it is time, and set the masked weights to zero."""
        number = self._due(moment)
        if number is not None:
            progress = number / (self._updates - 1)
            sparsity = cubic_sparsity(self._initial, self._sparsity, progress)
            masks = self._rule.masks(model, sparsity, self._data, self._loss, before=self.masks)
            if self._prunable is not None:
                masks = whole_channels(self._prunable, masks)
            self._set(masks, model)
        super().after_step(model, moment)

    def state(self) -> dict[str, Any]:
        """Return the masks of the moment."""
        return {"masks": dict(self.masks)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the masks back."""
        assert self._model is not None, "a training begins before it is restored"
        self._set(Masks(state["masks"]), self._model)

    def _due(self, moment: Moment) -> int | None:
        """Return the number of the update after this step, or None."""
        first, last = (round(share * (moment.total - 1)) for share in self._shares)
        steps = [first + round(each * (last - first) / (self._updates - 1)) for each in range(self._updates)]
        if moment.step not in steps:
            return None
        return self._updates - 1 - steps[::-1].index(moment.step)  # the last of several at one step


def cubic_sparsity(initial: float, final: float, progress: float) -> float:
    """Return the sparsity at a progress in [0, 1]: most weights go early, while many are left.

    Reference: Zhu and Gupta, To Prune, or Not to Prune, ICLR 2018 workshop, section 3, equation 1.
    """
    return final + (initial - final) * (1 - progress) ** 3


@torch.no_grad()
def _zero(pairs: list[tuple[nn.Parameter, Tensor]]) -> None:
    for parameter, zero in pairs:
        parameter.masked_fill_(zero, 0)
