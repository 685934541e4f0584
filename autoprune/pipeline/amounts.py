"""Budgets as users write them ("50%", "20M", 2050000000), resolved against the dense model's cost.

Before: the [budget] section; after: `space`, which fits every proposal into the absolute numbers.

    resolve_budget(BudgetSettings(flops="50%"), Cost(macs=40_000_000, params=270_000))   # macs 20_000_000
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from autoprune.errors import BudgetError, ConfigError
from autoprune.graph import Cost
from autoprune.settings import Amount, BudgetSettings
from autoprune.space import Asked, Budget

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12}
_AMOUNT = re.compile(r"([0-9][0-9_,]*(?:\.[0-9]+)?|\.[0-9]+)\s*([a-z%]?)")


_KEYS = (("flops", "macs", "FLOPs", 2), ("macs", "macs", "MACs", 1), ("params", "params", "parameters", 1))
"""Key of the section, the cost that it bounds, its unit, and how many units one of that cost is."""


@dataclass(frozen=True)
class _Amount:
    """A number as it was written: a share of the dense model, or so many units."""

    number: Fraction
    is_share: bool

    def units(self, dense: int) -> Fraction:
        return self.number * dense if self.is_share else self.number


def check_amounts(settings: BudgetSettings) -> None:
    """Refuse a [budget] section that is malformed whatever the dense model costs.

    Raises:
        ConfigError: an amount is malformed, or no limit is given.
    """
    if settings.latency is not None:
        raise ConfigError(
            f"budget.latency: got {settings.latency!r}, but latency budgets are not available in this "
            "version; use flops, macs or params."
        )
    if not any(read is not None for _, read in _written(settings)):
        raise ConfigError(
            'budget: no limit is given; write e.g. flops = "50%", macs = "20M" or params = "40%".'
        )


def resolve_budget(settings: BudgetSettings, dense: Cost) -> Budget:
    """Turn a [budget] section into absolute limits; FLOPs are 2 x MACs.

    Args:
        settings: the section as it was read.
        dense: the dense model's cost, against which shares are taken.

    Raises:
        ConfigError: an amount is malformed, or no limit is given.
        BudgetError: a share or an amount is not below the dense model's own cost.
    """
    check_amounts(settings)
    limits: dict[str, int] = {}
    asked: dict[str, Asked] = {}
    for (key, cost, unit, per_cost), amount in _written(settings):
        if amount is None:
            continue
        dense_cost = int(getattr(dense, cost))
        words = Asked(f"budget.{key}", str(getattr(settings, key)), unit, per_cost, dense_cost * per_cost)
        limit = _limit(amount, words)
        if limit < limits.get(cost, dense_cost):
            limits[cost], asked[cost] = limit, words
    return Budget(macs=limits.get("macs"), params=limits.get("params"), asked=asked)


def _limit(amount: _Amount, asked: Asked) -> int:
    """Return the limit in whole MACs or parameters."""
    units = amount.units(asked.dense)
    limit = int(units / asked.per_cost)
    if limit < 1 or units >= asked.dense:
        raise BudgetError(
            f"{asked.key}: {asked.text} is {int(units):,} {asked.unit}, expected at least {asked.per_cost} "
            f"and less than the dense model's {asked.dense:,}."
        )
    return limit


def _written(settings: BudgetSettings) -> Iterator[tuple[tuple[str, str, str, int], _Amount | None]]:
    for row in _KEYS:
        yield row, _read(f"budget.{row[0]}", getattr(settings, row[0]))


def _read(key: str, value: Amount) -> _Amount | None:
    """Read an amount as it is written; None where there is no limit."""
    if value is None:
        return None
    found = None if isinstance(value, bool) else _AMOUNT.fullmatch(str(value).strip().lower())
    if not found or (found[2] not in _UNITS and found[2] != "%"):
        raise ConfigError(f'{key}: got {value!r}, expected a share such as "50%" or an amount such as "20M".')
    number = Fraction(found[1].replace("_", "").replace(",", ""))
    if found[2] == "%":
        return _Amount(number / 100, is_share=True)
    if number < 1:
        raise ConfigError(
            f'{key}: got {value!r}, which is less than one; write a share as "{float(number):.0%}".'
        )
    return _Amount(number * _UNITS[found[2]], is_share=False)
