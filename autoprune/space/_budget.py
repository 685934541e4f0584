"""The budget: upper limits on any of a model's costs, and how full a candidate makes the tightest one.

Budget(macs=20_000_000).usage(prunable.cost({"conv1": 8}))      # array(0.93): below 1 fits
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from autoprune.cost import COSTS, CostKey
from autoprune.errors import BudgetError, unknown
from autoprune.graph import Cost

WINDOW_LOW = 0.98
"""A proposal uses at least this share of the tightest budget, if any plan does."""


@dataclass(frozen=True)
class RequestedLimit:
    """A limit as a user wrote it, so that messages can use the same words.

    Attributes:
        key: of [budget].
        text: its value, e.g. "1%".
        dense: the cost of the dense model, in the unit of the key.
    """

    key: CostKey
    text: str
    dense: float

    def __str__(self) -> str:
        """Return the key as it stands in a config: "budget.flops"."""
        return f"budget.{self.key.name}"

    @property
    def is_share(self) -> bool:
        """Whether it was written as a share of the dense model."""
        return self.text.strip().endswith("%")

    def out_of_reach(self, limit: float, smallest: float) -> str:
        """Return the message that `limit` is below the `smallest` reachable cost, both in the cost's unit."""
        unit, per_cost = self.key.unit, self.key.per_cost
        requested, least = (_shown(cost * per_cost) for cost in (limit, smallest))
        share = math.ceil(1000 * smallest * per_cost / self.dense) / 10
        needed = f"{share:g}%"
        if not self.is_share:
            needed = f"{unit.round_up(smallest * per_cost)} ({needed})"
        return (
            f"{self}: {self.text} asks for {requested} {unit.name}, but {least} {unit.name} is the "
            f"smallest reachable here: ask for at least {needed}"
        )


@dataclass(frozen=True, init=False)
class Budget:
    """Upper limits on the costs of a candidate.

    Attributes:
        limits: {"macs": ..., "latency_ms": ...}, by the names of costs.
        requested: the limits as the user wrote them, if they come from a config.

    Raises:
        BudgetError: no limit is given, or one on no known cost, or one that is not positive, or below 1 for a
            cost that is counted in whole numbers.
    """

    limits: Mapping[str, float]
    requested: Mapping[str, RequestedLimit] = field(compare=False, repr=False)

    def __init__(
        self, *, requested: Mapping[str, RequestedLimit] | None = None, **limits: float | None
    ) -> None:
        """Take each limit by the name of its cost in `autoprune.cost.COSTS`."""
        for name in limits:
            if name not in COSTS:
                raise BudgetError(unknown("budget", name, COSTS, kind="cost"))
        given = {name: limit for name, limit in limits.items() if limit is not None}
        if not given or any(
            limit <= 0 or (limit < 1 and COSTS[name].unit.is_whole) for name, limit in given.items()
        ):
            raise BudgetError(
                f"budget: got {given or 'no limit'}, expected macs or params of at least 1, or a "
                "latency above 0 ms."
            )
        self.__dict__.update(limits=given, requested=requested or {})

    def excess(self, costs: Mapping[str, float]) -> dict[str, float]:
        """Return by how much costs exceed their limits, as shares of those: at most 0 if they fit."""
        return {name: costs[name] / limit - 1 for name, limit in self.limits.items() if name in costs}

    def only(self, costs: Collection[str]) -> Budget:
        """Return the budget without the limits on other costs."""
        limits = {name: limit for name, limit in self.limits.items() if name in costs}
        return Budget(**limits, requested=self.requested)

    def scaled(self, share: float, costs: Collection[str]) -> Budget:
        """Return the budget with a share of its limits on some costs, and the other limits as they are."""
        limits = {name: limit * share if name in costs else limit for name, limit in self.limits.items()}
        return Budget(**limits, requested=self.requested)

    def out_of_reach(self, name: str, smallest: float) -> str:
        """Return the message that the limit on the cost `name` cannot be met, and which one can."""
        limit = self.limits[name]
        if name in self.requested:
            return self.requested[name].out_of_reach(limit, smallest)
        return (
            f"budget.{name}: got {_shown(limit)}, but {_shown(smallest)} is the smallest reachable here. "
            "Raise the budget"
        )

    def usage(self, cost: Cost) -> NDArray[np.float64]:
        """Return cost / limit for the fullest limit. A candidate fits if this is at most 1.

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


def _shown(amount: float) -> str:
    """Write a count with commas, and milliseconds to four digits."""
    return f"{amount:,}" if isinstance(amount, int) else f"{amount:.4g}"
