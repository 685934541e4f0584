"""The rows of PENALTIES: a penalty with its traits."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from autoprune.criteria import Importance, channel_scales
from autoprune.errors import ConfigError, unknown
from autoprune.graph import Prunable
from autoprune.sparsity._penalties import (
    ChannelSizes,
    Penalty,
    bn_l1,
    group_lasso,
    growing,
    polarization,
    soft_threshold,
)
from autoprune.support.rows import Row


@dataclass(frozen=True)
class PenaltySpec(Row):
    """A row of PENALTIES.

    Attributes:
        penalty: gives the penalty's value, a scalar tensor.
        proximal: (scales, learning rate times strength) -> scales after the proximal step, which is taken
            after each optimizer step in place of a gradient, or None for the gradient.
        needs: the tensors that it acts on: the "scales" of BatchNorms, the "weights" of all searchable
            groups, or the weights of the channels that a "plan" cuts.
    """

    penalty: Penalty
    proximal: Callable[[Tensor, float], Tensor] | None = None
    needs: Literal["scales", "weights", "plan"] = "scales"

    def ranked(self, model: nn.Module, prunable: Prunable) -> Importance:
        """Return the size of each channel that the penalty drives to 0, {group name: float64 [width]}.

        It is the mean BatchNorm scale, or the norm over all parameters of the group.
        """
        if self.needs == "scales":
            return channel_scales(model, prunable.searchable)
        with torch.no_grad():
            sizes = ChannelSizes(model)
            return {each.name: sizes.norms(each).double().cpu().numpy() for each in prunable.searchable}

    def check_options(self, name: str, options: Mapping[str, float]) -> None:
        """Refuse options that the penalty has not.

        Raises:
            ConfigError: there is one.
        """
        known = list(inspect.signature(self.penalty).parameters)[1:]
        for option in options:
            if option not in known:
                message = unknown("sparsify.options", option, known, kind="option") if known else ""
                raise ConfigError(message or f'sparsify.options: got "{option}", but "{name}" has none.')


PENALTIES: dict[str, PenaltySpec] = {
    "bn-l1": PenaltySpec(bn_l1, about="the sum of absolute BatchNorm scales, by its subgradient"),
    "bn-l1-proximal": PenaltySpec(
        bn_l1, proximal=soft_threshold, about="the same, by a decoupled proximal step, which fits Adam too"
    ),
    "polarization": PenaltySpec(polarization, about="scales are pulled apart, to 0 or away from it"),
    "group-lasso": PenaltySpec(
        group_lasso, needs="weights", about="the norms of channels over all parameters of their group"
    ),
    "growing": PenaltySpec(
        growing, needs="plan", about="a growing l2 penalty on the channels that a plan cuts"
    ),
}
"""Name -> penalty. `about` names the quantity that it sums."""
