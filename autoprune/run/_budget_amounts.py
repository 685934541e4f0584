"""Amounts of a cost as users write them ("50%", "20M", "4 ms"), resolved against the dense model's cost.

resolve_budget(BudgetSettings(flops="50%"), Cost(macs=40_000_000, params=270_000))   # macs 20_000_000
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from autoprune.config.settings import Amount, BudgetSettings
from autoprune.cost import LATENCY, CostKey, budget_keys
from autoprune.errors import BudgetError, ConfigError, shown_value, unknown
from autoprune.graph import Cost
from autoprune.space import Asked, Budget

_AMOUNT = re.compile(r"([0-9][0-9_,]{0,40}(?:\.[0-9]{1,40})?|\.[0-9]{1,40})\s*([a-zµ]*|%)")
_MOST_BITS = 64
"""Of a whole number: Python refuses to write one of thousands of digits."""


@dataclass(frozen=True)
class _Amount:
    """A number as it was written: a share of the dense model, or so many units."""

    number: Fraction
    is_share: bool

    def units(self, dense: float) -> Fraction:
        return self.number * Fraction(dense) if self.is_share else self.number


def check_amounts(settings: BudgetSettings, *, required: bool = True) -> None:
    """Refuse a [budget] section that cannot be met whatever the dense model costs.

    Raises:
        ConfigError: an amount is malformed, or no limit is given where one is `required`.
        BudgetError: an amount is 0, or a share is not below the dense model's own cost.
    """
    written = list(_written(settings))  # all are read, whether a limit is found or not
    for key, amount in written:
        if amount is not None and (amount.number <= 0 or (amount.is_share and amount.number >= 1)):
            raise BudgetError(
                f"budget.{key.name}: got {shown_value(getattr(settings, key.name))}, expected more than 0 "
                f'and less than the dense model\'s own; write e.g. "50%" or "{key.unit.example}".'
            )
    if required and all(amount is None for _, amount in written):
        raise ConfigError(
            'budget: no limit is given; write e.g. flops = "50%", macs = "20M", params = "40%" or '
            'latency = "4 ms".'
        )


def resolve_budget(
    settings: BudgetSettings, dense: Cost, objectives: Sequence[str] = (), runtime: object = "as measured"
) -> Budget:
    """Turn a [budget] section into absolute limits; FLOPs are 2 x MACs.

    A cost that is an objective and has no limit may be as high as the dense model's.

    Args:
        settings: the section as it was read.
        dense: the dense model's cost, against which shares are taken; with its latency where that is limited.
        objectives: the costs that are minimised.
        runtime: names what latency is measured with, for messages.

    Raises:
        ConfigError: an amount is malformed, or no limit is given.
        BudgetError: a share or an amount is 0, or not below the dense model's own cost.
    """
    check_amounts(settings, required=not objectives)
    limits: dict[str, float] = {}
    asked: dict[str, Asked] = {}
    for key, amount in _written(settings):
        if amount is None:
            continue
        dense_cost = getattr(dense, key.cost)
        text = str(getattr(settings, key.name))
        words = Asked(key, text, dense_cost * key.per_cost)
        if key.cost == LATENCY and amount.units(dense_cost) >= dense_cost:
            raise BudgetError(
                f"{words}: {text} is not below what the dense model takes already, {dense_cost:.3g} ms "
                f"({runtime}); ask for less, or check [latency]."
            )
        limit = _limit(amount, words, counted=isinstance(dense_cost, int))
        if limit < limits.get(key.cost, dense_cost):
            limits[key.cost], asked[key.cost] = limit, words
    limits = {cost: getattr(dense, cost) for cost in objectives} | limits
    return Budget(**limits, asked=asked)


@dataclass(frozen=True)
class Limit:
    """The most that a trial may cost, as a user wrote it.

    Attributes:
        key: what is limited.
        text: the amount as it is written.
        most: the same in units of the cost.
        is_share: whether it is a share of the dense model.
        whole: the dense model's cost; 0 where it is not known.
    """

    key: CostKey
    text: str
    most: float
    is_share: bool
    whole: float


def is_share(amount: float | str) -> bool:
    """Tell whether an amount of [budget] is a share of the dense model's cost, such as "50%"."""
    return isinstance(amount, str) and amount.strip().endswith("%")


def read_limit(name: str, text: str, dense: Mapping[str, float]) -> Limit:
    """Read what a user takes as the most that a trial may cost, such as "3ms", "40%" or "2G".

    Args:
        name: a key of [budget].
        text: what is written.
        dense: the dense model's cost by name, against which shares are taken.

    Raises:
        ConfigError: the name is unknown, the amount is malformed, or a share of what is not known.
    """
    named = budget_keys()
    if name not in named:
        raise ConfigError(unknown("limits", name, named, kind="cost"))
    key = named[name]
    whole = dense.get(key.cost, 0.0)
    limit = Limit(key, text, 0.0, is_share=False, whole=whole)
    amount = _parse(key.option, text, key)
    if amount.is_share and not whole:
        raise ConfigError(
            f"{key.option}: got {shown_value(text)}, but the dense model's own is not known; write e.g. "
            f'"{key.unit.example}".'
        )
    most = amount.units(whole) if amount.is_share else amount.number / key.per_cost
    return replace(limit, most=float(most), is_share=amount.is_share)


def _limit(amount: _Amount, asked: Asked, *, counted: bool) -> int | float:
    """Return the limit in the unit of the cost: a whole number if the cost is `counted` in such."""
    units = amount.units(asked.dense)
    limit = units / asked.key.per_cost
    if (counted and limit < 1) or limit <= 0 or units >= asked.dense:
        least = f"at least {asked.key.per_cost}" if counted else "more than 0"
        got, dense = (f"{int(n):,}" if counted else f"{float(n):.4g}" for n in (units, asked.dense))
        raise BudgetError(
            f"{asked}: {asked.text} is {got} {asked.key.unit.name}, expected {least} "
            f"and less than the dense model's {dense}."
        )
    return int(limit) if counted else float(limit)


def _written(settings: BudgetSettings) -> Iterator[tuple[CostKey, _Amount | None]]:
    for key in budget_keys().values():
        value: Amount = getattr(settings, key.name)
        yield key, None if value is None else _parse(f"budget.{key.name}", value, key)


def _parse(where: str, value: float | str, key: CostKey) -> _Amount:
    """Read an amount as it is written."""
    is_odd = isinstance(value, bool) or (isinstance(value, int) and value.bit_length() > _MOST_BITS)
    found = None if is_odd else _AMOUNT.fullmatch(str(value).strip().lower())
    if not found or (found[2] not in key.unit.suffixes and found[2] != "%"):
        raise ConfigError(
            f'{where}: got {shown_value(value)}, expected a share such as "50%" or an amount such as '
            f'"{key.unit.example}".'
        )
    number = Fraction(found[1].replace("_", "").replace(",", ""))
    if found[2] == "%":
        return _Amount(number / 100, is_share=True)
    units = number * key.unit.suffixes[found[2]]
    if units < 1 and key.unit.is_whole:
        raise ConfigError(
            f"{where}: got {shown_value(value)}, which is less than one; write a share as "
            f'"{float(number):.0%}".'
        )
    return _Amount(units, is_share=False)
