"""Own the budget: absolute limits on MACs and parameters, and how full a candidate makes the tightest.

Before: `pipeline` resolves "50%" against the dense cost; after: `fill` puts every proposal into the window.

    Budget(macs=20_000_000).usage(prunable.cost({"conv1": 8}))      # array(0.93): below 1 fits
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from autoprune.errors import BudgetError

if TYPE_CHECKING:
    from autoprune.graph import Cost

WINDOW_LOW = 0.98
"""A proposal uses at least this share of the tightest budget, wherever some plan does."""


@dataclass(frozen=True)
class Budget:
    """Upper limits on what a candidate may cost.

    Attributes:
        macs: multiply-adds of one forward at batch 1, or None for no limit.
        params: parameters, or None for no limit.

    Raises:
        BudgetError: no limit is given, or one is below 1.
    """

    macs: int | None = None
    params: int | None = None

    def __post_init__(self) -> None:
        limits = self.limits
        if not limits or min(limits.values()) < 1:
            raise BudgetError(f"budget: got {limits or 'no limit'}, expected macs or params of at least 1.")

    @property
    def limits(self) -> dict[str, int]:
        """The limits that are set, by the name of the cost that they bound."""
        named = {"macs": self.macs, "params": self.params}
        return {name: limit for name, limit in named.items() if limit is not None}

    def usage(self, cost: Cost) -> NDArray[np.float64]:
        """Return cost / limit for the limit that is fullest; a candidate fits where this is at most 1.

        Args:
            cost: of one candidate or of n.

        Returns:
            float64 array of the cost's own shape, [] or [n].
        """
        shares = [
            np.asarray(getattr(cost, name), dtype=np.float64) / limit for name, limit in self.limits.items()
        ]
        fullest: NDArray[np.float64] = np.maximum.reduce(shares)
        return fullest
