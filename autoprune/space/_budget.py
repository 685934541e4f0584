"""Own the budget: upper limits on any of a model's costs, and how full a candidate makes the tightest.

Before: `pipeline` resolves "50%" against the dense cost; after: `fill` puts every proposal into the window.

    Budget(macs=20_000_000).usage(prunable.cost({"conv1": 8}))      # array(0.93): below 1 fits
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from autoprune.errors import BudgetError
from autoprune.graph import COSTS, Cost

WINDOW_LOW = 0.98
"""A proposal uses at least this share of the tightest budget, wherever some plan does."""


_SIZES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


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
        needed = f"{share:g}%"
        if not self.is_share:
            needed = f"{_rounded_up(smallest * self.per_cost, self.unit)} ({needed})"
        return (
            f"{self.key}: {self.text} asks for {asked} {self.unit}, but {least} {self.unit} is the "
            f"smallest reachable here: ask for at least {needed}"
        )


@dataclass(frozen=True)
class Budget:
    """Upper limits on what a candidate may cost.

    Attributes:
        macs: multiply-adds of one forward at batch 1, or None for no limit.
        params: parameters, or None for no limit.
        latency_ms: milliseconds of one forward as they are predicted, or None for no limit.
        size_bytes: bytes of parameters and buffers, or None for no limit.
        peak_memory_bytes: bytes at the fullest moment of a forward, or None for no limit.
        asked: {"macs": ..., "latency_ms": ...} as the user wrote them, where they come from a config.

    Raises:
        BudgetError: no limit is given, or one is not positive, or below one MAC or parameter.
    """

    macs: float | None = None
    params: float | None = None
    latency_ms: float | None = None
    size_bytes: float | None = None
    peak_memory_bytes: float | None = None
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
        named = {name: getattr(self, name) for name in COSTS}
        return {name: limit for name, limit in named.items() if limit is not None}

    def excess(self, costs: Mapping[str, float]) -> dict[str, float]:
        """Return by how much costs exceed their limits, as shares of those: at most 0 if they fit."""
        return {name: costs[name] / limit - 1 for name, limit in self.limits.items() if name in costs}

    def only(self, costs: Collection[str]) -> Budget:
        """Return the budget without the limits on other costs."""
        limits = {name: limit for name, limit in self.limits.items() if name in costs}
        return Budget(**limits, asked=self.asked)

    def scaled(self, share: float, costs: Collection[str]) -> Budget:
        """Return the budget with a share of its limits on some costs; the others stay."""
        limits = {name: limit * share if name in costs else limit for name, limit in self.limits.items()}
        return Budget(**limits, asked=self.asked)

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
            AssertionError: a cost is limited that was not computed, such as a latency without a table.
        """
        known = cost.known()
        missing = self.limits.keys() - known.keys()
        if missing:
            raise AssertionError(f"a limit on {', '.join(missing)} needs costs that hold it")
        shares = [np.asarray(known[name], dtype=np.float64) / limit for name, limit in self.limits.items()]
        fullest: NDArray[np.float64] = np.maximum.reduce(shares)
        return fullest


def _rounded_up(amount: float, unit: str) -> str:
    """Write an amount as a config takes it, in three digits and never below it: "2.52 ms", "174 kB"."""
    if unit == "ms":
        size, suffix = 1.0, " ms"
    else:
        size, letter = next((each for each in _SIZES if amount >= each[0]), (1.0, ""))
        suffix = f" {letter}B" if unit == "bytes" else letter
    digits = 2 - math.floor(math.log10(amount / size))
    number = math.ceil(round(amount / size * 10**digits, 6)) / 10**digits
    return f"{number:.10g}{suffix}"


def _shown(amount: float) -> str:
    """Write a count with commas, and milliseconds to four digits."""
    return f"{amount:,}" if isinstance(amount, int) else f"{amount:.4g}"
