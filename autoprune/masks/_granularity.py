"""The units that a mask keeps or drops: single weights, vectors, kernels, filters, or two of four.

Example:
    GRANULARITIES["kernel"].units(weight.abs())      # [out, in]: one score for each kernel
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from autoprune.errors import MaskError
from autoprune.support.rows import Row


@dataclass(frozen=True)
class GranularitySpec(Row):
    """A row of GRANULARITIES.

    Attributes:
        leading: number of leading axes of a convolution's weight [out, in, *kernel] that distinguish its
            units. 0 means all axes, and -1 all but the last. A unit spans the other axes.
        two_of_four: whether two of every four consecutive inputs stay, in place of a share of the units.
    """

    leading: int = 0
    two_of_four: bool = False

    def axes(self, weight: Tensor) -> int:
        """Return the number of leading axes that distinguish the units of a weight.

        If a kernel is a single weight, as in a linear layer, vectors and kernels are single weights.
        """
        if self.leading == 1:
            return 1
        return max(2, self.leading if self.leading > 0 else weight.ndim + self.leading)

    def units(self, scores: Tensor) -> Tensor:
        """Return the mean score of each unit, so that units of different sizes compare."""
        return scores.flatten(self.axes(scores)).mean(-1) if self.axes(scores) < scores.ndim else scores

    def spread(self, kept: Tensor, weight: Tensor) -> Tensor:
        """Return the mask of a weight from one bool for each unit."""
        return kept.reshape(*kept.shape, *[1] * (weight.ndim - kept.ndim)).expand(weight.shape).contiguous()


GRANULARITIES: Mapping[str, GranularitySpec] = {
    "weight": GranularitySpec(about="single weights"),
    "vector": GranularitySpec(leading=-1, about="the rows of kernels"),
    "kernel": GranularitySpec(
        leading=2, about="kernels, the weights between one input and one output channel"
    ),
    "filter": GranularitySpec(
        leading=1, about="filters, the weights of one output channel, so that whole channels can be cut"
    ),
    "2:4": GranularitySpec(
        two_of_four=True, about="two weights of every four inputs, as sparse tensor cores"
    ),
}
"""Name -> granularity. `about` names its units."""


def two_of_four(scores: Tensor) -> Tensor:
    """Return a mask that keeps the two highest of every four consecutive input channels.

    Of equal ones the first stay.

    Reference: Mishra et al., Accelerating Sparse Deep Neural Networks, 2021, section 3.
    """
    fours = scores.movedim(1, -1)
    shape = fours.shape
    fours = fours.reshape(-1, 4)
    best = fours.argsort(dim=1, descending=True, stable=True)[:, :2]
    kept = torch.zeros_like(fours, dtype=torch.bool).scatter_(1, best, True)
    return kept.reshape(shape).movedim(-1, 1).contiguous()


def require_fours(weights: Mapping[str, Tensor]) -> None:
    """Refuse weights whose inputs do not divide by four.

    Raises:
        MaskError: there are some. The message names them all.
    """
    odd = [f"{name} ({weight.shape[1]} inputs)" for name, weight in weights.items() if weight.shape[1] % 4]
    if odd:
        modules = ", ".join(f'"{each.split(" ")[0].rpartition(".")[0]}"' for each in odd)
        raise MaskError(
            f'granularity "2:4": the number of inputs must divide by 4, and does not in {", ".join(odd)}. '
            f"Leave these layers dense with skip=[{modules}]."
        )
