"""Parses amounts of a cost ("50%", "20M", "4 ms") and resolves them against the dense model's cost.

Example:
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
from autoprune.space import Budget, RequestedLimit

_AMOUNT = re.compile(r"([0-9][0-9_,]{0,40}(?:\.[0-9]{1,40})?|\.[0-9]{1,40})\s*([a-zµ]*|%)")
_MOST_BITS = 64
"""The longest whole number that is accepted. Python refuses to print numbers of thousands of digits."""


@dataclass(frozen=True)
class _Amount:
    """A parsed amount: a share of the dense model, or a number of units."""

    number: Fraction
    is_share: bool

    def units(self, dense: float) -> Fraction:
        return self.number * Fraction(dense) if self.is_share else self.number


def check_amounts(settings: BudgetSettings, *, required: bool = True) -> None:
    """Check a [budget] section as far as the dense model's cost is not needed.

    Args:
        settings: the section.
        required: whether at least one limit has to be given.

    Raises:
        ConfigError: an amount is malformed, or no limit is given although one is required.
        BudgetError: an amount is 0, or a share is not below 100%.
    """
    written = list(_written(settings))  # a list, so that every amount is parsed
    for key, amount in written:
        if amount is not None and (amount.number <= 0 or (amount.is_share and amount.number >= 1)):
            raise BudgetError(
                f"budget.{key.name}: got {shown_value(getattr(settings, key.name))}, expected more than 0 "
                f'and less than the dense model\'s own. Write e.g. "50%" or "{key.unit.example}".'
            )
    if required and all(amount is None for _, amount in written):
        raise ConfigError(
            'budget: no limit is given. Write e.g. flops = "50%", macs = "20M", params = "40%", '
            'latency = "4 ms" or tolerance = "0.5 points".'
        )


def resolve_budget(
    settings: BudgetSettings, dense: Cost, objectives: Sequence[str] = (), runtime: object = "as measured"
) -> Budget:
    """Turn a [budget] section into absolute limits. One MAC counts as 2 FLOPs.

    A minimised cost without a limit may be as high as the dense model's.

    Args:
        settings: the section.
        dense: the dense model's cost, to which shares refer. It includes the latency if that is limited.
        objectives: the costs that are minimised.
        runtime: the runtime on which latency is measured, for messages.

    Raises:
        ConfigError: an amount is malformed, or no limit is given.
        BudgetError: a share or an amount is 0, or not below the dense model's own cost.
    """
    check_amounts(settings, required=not objectives)
    limits: dict[str, float] = {}
    requested: dict[str, RequestedLimit] = {}
    for key, amount in _written(settings):
        if amount is None:
            continue
        dense_cost = getattr(dense, key.cost)
        text = str(getattr(settings, key.name))
        words = RequestedLimit(key, text, dense_cost * key.per_cost)
        if key.cost == LATENCY and amount.units(dense_cost) >= dense_cost:
            raise BudgetError(
                f"{words}: {text} is not below the dense model's {dense_cost:.3g} ms ({runtime}). Set a "
                "lower limit, or check [latency]."
            )
        limit = _limit(amount, words, counted=isinstance(dense_cost, int))
        if limit < limits.get(key.cost, dense_cost):
            limits[key.cost], requested[key.cost] = limit, words
    limits = {cost: getattr(dense, cost) for cost in objectives} | limits
    return Budget(**limits, requested=requested)


@dataclass(frozen=True)
class Limit:
    """An upper limit on one cost of a trial.

    Attributes:
        key: the key of [budget] that names the cost.
        text: the amount as the user wrote it.
        most: the amount in units of the cost.
        is_share: whether the amount is a share of the dense model's cost.
        whole: the dense model's cost, or 0 if it is not known.
    """

    key: CostKey
    text: str
    most: float
    is_share: bool
    whole: float


def is_share(amount: float | str) -> bool:
    """Return whether an amount of [budget] is a share of the dense model's cost, such as "50%"."""
    return isinstance(amount, str) and amount.strip().endswith("%")


def read_limit(name: str, text: str, dense: Mapping[str, float], where: str | None = None) -> Limit:
    """Parse an upper limit on one cost of a trial, such as "3ms", "40%" or "2G".

    Args:
        name: a key of [budget].
        text: the amount.
        dense: the costs of the dense model by name, to which shares refer.
        where: the option that held both, for messages. By default the option of the key.

    Raises:
        ConfigError: the name is unknown, the amount is malformed, or it is a share of an unknown cost.
    """
    named = budget_keys()
    if name not in named:
        raise ConfigError(unknown(where or "limits", name, named, kind="cost"))
    key = named[name]
    whole = dense.get(key.cost, 0.0)
    limit = Limit(key, text, 0.0, is_share=False, whole=whole)
    option = where or key.option
    amount = _parse(option, text, key)
    if amount.is_share and not whole:
        raise ConfigError(
            f"{option}: got {shown_value(text)}, but the dense model's cost is not known. Write e.g. "
            f'"{key.unit.example}".'
        )
    most = amount.units(whole) if amount.is_share else amount.number / key.per_cost
    return replace(limit, most=float(most), is_share=amount.is_share)


def _limit(amount: _Amount, requested: RequestedLimit, *, counted: bool) -> int | float:
    """Return the limit in the unit of the cost, rounded down if the cost is `counted` in whole numbers."""
    units = amount.units(requested.dense)
    limit = units / requested.key.per_cost
    if (counted and limit < 1) or limit <= 0 or units >= requested.dense:
        least = f"at least {requested.key.per_cost}" if counted else "more than 0"
        got, dense = (f"{int(n):,}" if counted else f"{float(n):.4g}" for n in (units, requested.dense))
        raise BudgetError(
            f"{requested}: {requested.text} is {got} {requested.key.unit.name}, expected {least} "
            f"and less than the dense model's {dense}."
        )
    return int(limit) if counted else float(limit)


def _written(settings: BudgetSettings) -> Iterator[tuple[CostKey, _Amount | None]]:
    for key in budget_keys().values():
        value: Amount = getattr(settings, key.name)
        yield key, None if value is None else _parse(f"budget.{key.name}", value, key)


def _parse(where: str, value: float | str, key: CostKey) -> _Amount:
    """Parse one amount. `where` is the key or the option that opens an error message."""
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
            f"{where}: got {shown_value(value)}, which is less than one. Write a share as "
            f'"{float(number):.0%}".'
        )
    return _Amount(units, is_share=False)
