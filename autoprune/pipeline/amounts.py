"""Budgets as users write them ("50%", "20M", "4 ms"), resolved against the dense model's cost.

Before: the [budget] section; after: `space`, which fits every proposal into the absolute numbers.

    resolve_budget(BudgetSettings(flops="50%"), Cost(macs=40_000_000, params=270_000))   # macs 20_000_000
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from autoprune.errors import BudgetError, ConfigError
from autoprune.graph import Cost
from autoprune.settings import Amount, BudgetSettings
from autoprune.space import Asked, Budget

_AMOUNT = re.compile(r"([0-9][0-9_,]*(?:\.[0-9]+)?|\.[0-9]+)\s*([a-zµ]*|%)")
_COUNTS: Mapping[str, int | Fraction] = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12}
_TIMES: Mapping[str, int | Fraction] = {"us": Fraction(1, 1000), "µs": Fraction(1, 1000), "ms": 1, "s": 1000}


@dataclass(frozen=True)
class _Key:
    """A key of [budget].

    Attributes:
        name: of the key.
        cost: the field of `Cost` that it bounds.
        unit: what the key counts.
        per_cost: how many of that unit one of the cost is.
        suffixes: what may stand behind a number, and how many units it is.
        example: an amount in a user's words.
    """

    name: str
    cost: str
    unit: str
    per_cost: int
    suffixes: Mapping[str, int | Fraction]
    example: str


_KEYS = (
    _Key("flops", "macs", "FLOPs", 2, _COUNTS, "20M"),
    _Key("macs", "macs", "MACs", 1, _COUNTS, "20M"),
    _Key("params", "params", "parameters", 1, _COUNTS, "20M"),
    _Key("latency", "latency_ms", "ms", 1, _TIMES, "4 ms"),
)


@dataclass(frozen=True)
class _Amount:
    """A number as it was written: a share of the dense model, or so many units."""

    number: Fraction
    is_share: bool

    def units(self, dense: float) -> Fraction:
        return self.number * Fraction(dense) if self.is_share else self.number


def check_amounts(settings: BudgetSettings) -> None:
    """Refuse a [budget] section that is malformed whatever the dense model costs.

    Raises:
        ConfigError: an amount is malformed, or no limit is given.
    """
    if not any(read is not None for _, read in _written(settings)):
        raise ConfigError(
            'budget: no limit is given; write e.g. flops = "50%", macs = "20M", params = "40%" or '
            'latency = "4 ms".'
        )


def resolve_budget(settings: BudgetSettings, dense: Cost) -> Budget:
    """Turn a [budget] section into absolute limits; FLOPs are 2 x MACs.

    Args:
        settings: the section as it was read.
        dense: the dense model's cost, against which shares are taken; with its latency where that is limited.

    Raises:
        ConfigError: an amount is malformed, or no limit is given.
        BudgetError: a share or an amount is not below the dense model's own cost.
    """
    check_amounts(settings)
    limits: dict[str, int | float] = {}
    asked: dict[str, Asked] = {}
    for key, amount in _written(settings):
        if amount is None:
            continue
        dense_cost = getattr(dense, key.cost)
        text = str(getattr(settings, key.name))
        words = Asked(f"budget.{key.name}", text, key.unit, key.per_cost, dense_cost * key.per_cost)
        limit = _limit(amount, words, counted=isinstance(dense_cost, int))
        if limit < limits.get(key.cost, dense_cost):
            limits[key.cost], asked[key.cost] = limit, words
    return Budget(**limits, asked=asked)


def _limit(amount: _Amount, asked: Asked, *, counted: bool) -> int | float:
    """Return the limit in MACs or parameters, which are whole, or in milliseconds."""
    units = amount.units(asked.dense)
    limit = units / asked.per_cost
    if (counted and limit < 1) or limit <= 0 or units >= asked.dense:
        least = f"at least {asked.per_cost}" if counted else "more than 0"
        got, dense = (f"{int(n):,}" if counted else f"{float(n):.4g}" for n in (units, asked.dense))
        raise BudgetError(
            f"{asked.key}: {asked.text} is {got} {asked.unit}, expected {least} "
            f"and less than the dense model's {dense}."
        )
    return int(limit) if counted else float(limit)


def _written(settings: BudgetSettings) -> Iterator[tuple[_Key, _Amount | None]]:
    for key in _KEYS:
        yield key, _read(f"budget.{key.name}", getattr(settings, key.name), key)


def _read(where: str, value: Amount, key: _Key) -> _Amount | None:
    """Read an amount as it is written; None where there is no limit."""
    if value is None:
        return None
    found = None if isinstance(value, bool) else _AMOUNT.fullmatch(str(value).strip().lower())
    if not found or (found[2] not in key.suffixes and found[2] != "%"):
        raise ConfigError(
            f'{where}: got {value!r}, expected a share such as "50%" or an amount such as "{key.example}".'
        )
    number = Fraction(found[1].replace("_", "").replace(",", ""))
    if found[2] == "%":
        return _Amount(number / 100, is_share=True)
    if number < 1 and key.suffixes is _COUNTS:
        raise ConfigError(
            f'{where}: got {value!r}, which is less than one; write a share as "{float(number):.0%}".'
        )
    return _Amount(number * key.suffixes[found[2]], is_share=False)
