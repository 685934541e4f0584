"""Own the budget: limits on MACs, parameters and latency, and how full a candidate makes the tightest.

Before: `pipeline` resolves "50%" against the dense cost; after: `fill` puts every proposal into the window.

    Budget(macs=20_000_000).usage(prunable.cost({"conv1": 8}))      # array(0.93): below 1 fits
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from autoprune.errors import BudgetError

if TYPE_CHECKING:
    from autoprune.graph import Cost

WINDOW_LOW = 0.98
"""A proposal uses at least this share of the tightest budget, wherever some plan does."""


@dataclass(frozen=True)
class Asked:
    """How a user wrote a limit, so that the answer can be given in the same words.

    Attributes:
        key: of the config, e.g. "budget.flops".
        text: its value, e.g. "1%".
        unit: what the key counts, e.g. "FLOPs".
        per_cost: units per MAC, parameter or millisecond, e.g. 2 FLOPs.
        dense: what the dense model has, in units.
    """

    key: str
    text: str
    unit: str
    per_cost: int
    dense: float

    @property
    def is_share(self) -> bool:
        """Whether it was asked as a share of the dense model."""
        return self.text.strip().endswith("%")

    def out_of_reach(self, limit: float, smallest: float) -> str:
        """Say that `limit` cannot be met, since `smallest` is the least; both in the cost's own unit."""
        asked, least = (_shown(cost * self.per_cost) for cost in (limit, smallest))
        share = math.ceil(1000 * smallest * self.per_cost / self.dense) / 10
        return (
            f"{self.key}: {self.text} asks for {asked} {self.unit}, but {least} {self.unit} is the "
            f"smallest reachable here: ask for at least {share:g}%"
        )


@dataclass(frozen=True)
class Budget:
    """Upper limits on what a candidate may cost.

    Attributes:
        macs: multiply-adds of one forward at batch 1, or None for no limit.
        params: parameters, or None for no limit.
        latency_ms: milliseconds of one forward as they are predicted, or None for no limit.
        asked: {"macs": ..., "params": ..., "latency_ms": ...} as the user wrote them, where they come from a
            config.

    Raises:
        BudgetError: no limit is given, or one is not positive, or below one MAC or parameter.
    """

    macs: int | None = None
    params: int | None = None
    latency_ms: float | None = None
    asked: Mapping[str, Asked] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        counts = [limit for limit in (self.macs, self.params) if limit is not None]
        if not self.limits or min(self.limits.values()) <= 0 or min(counts, default=1) < 1:
            raise BudgetError(
                f"budget: got {self.limits or 'no limit'}, expected macs or params of at least 1, or a "
                "latency above 0 ms."
            )

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, by the name of the cost that they bound."""
        named = {"macs": self.macs, "params": self.params, "latency_ms": self.latency_ms}
        return {name: limit for name, limit in named.items() if limit is not None}

    def out_of_reach(self, name: str, smallest: float) -> str:
        """Say that the limit called `name` cannot be met, and what can be, in the user's own key and unit."""
        limit = self.limits[name]
        if name in self.asked:
            return self.asked[name].out_of_reach(limit, smallest)
        return (
            f"budget.{name}: got {_shown(limit)}, but {_shown(smallest)} is the smallest reachable here; "
            "raise the budget"
        )

    def usage(self, cost: Cost) -> NDArray[np.float64]:
        """Return cost / limit for the limit that is fullest; a candidate fits where this is at most 1.

        Args:
            cost: of one candidate or of n.

        Returns:
            float64 array of the cost's own shape, [] or [n].

        Raises:
            AssertionError: latency is limited, and the cost holds none.
        """
        if self.latency_ms is not None and cost.latency_ms is None:
            raise AssertionError("a limit on latency needs costs that predict it")
        shares = [
            np.asarray(getattr(cost, name), dtype=np.float64) / limit for name, limit in self.limits.items()
        ]
        fullest: NDArray[np.float64] = np.maximum.reduce(shares)
        return fullest


def _shown(amount: float) -> str:
    """Write a count with commas, and milliseconds to four digits."""
    return f"{amount:,}" if isinstance(amount, int) else f"{amount:.4g}"
