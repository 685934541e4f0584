"""The history of the scales of a training under a penalty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ScaleHistory:
    """The scale of every channel at several steps of a training.

    Attributes:
        steps: steps done when the scales were recorded. The first is 0.
        scales: at each of them float64 [channels], group after group.
    """

    steps: tuple[int, ...]
    scales: tuple[NDArray[np.float64], ...]

    @property
    def last(self) -> NDArray[np.float64]:
        """The scales at the end."""
        return self.scales[-1]

    def share_below(self, limit: float) -> tuple[float, ...]:
        """Return the share of channels whose scale is below a limit, at each recorded step."""
        return tuple(float((scales < limit).mean()) for scales in self.scales)
