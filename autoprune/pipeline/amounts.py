"""Budgets as users write them ("50%", "20M", 2050000000), resolved against the dense model's cost.

Before: the [budget] section; after: `space`, which fits every proposal into the absolute numbers.

    resolve_budget(BudgetSettings(flops="50%"), Cost(macs=40_000_000, params=270_000))   # macs 20_000_000
"""

from __future__ import annotations

import re
from fractions import Fraction

from autoprune.errors import BudgetError, ConfigError
from autoprune.graph import Cost
from autoprune.settings import Amount, BudgetSettings
from autoprune.space import Budget

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12}
_AMOUNT = re.compile(r"([0-9][0-9_,]*(?:\.[0-9]+)?|\.[0-9]+)\s*([a-z%]?)")


def resolve_budget(settings: BudgetSettings, dense: Cost) -> Budget:
    """Turn a [budget] section into absolute limits; FLOPs are 2 x MACs.

    Args:
        settings: the section as it was read.
        dense: the dense model's cost, against which shares are taken.

    Raises:
        ConfigError: an amount is malformed, or no limit is given.
        BudgetError: a share or an amount is not below the dense model's own cost.
    """
    if settings.latency is not None:
        raise ConfigError(
            f"budget.latency: got {settings.latency!r}, but latency budgets are not available in this "
            "version; use flops, macs or params."
        )
    dense_macs, dense_params = int(dense.macs), int(dense.params)
    macs = [
        amount // per_mac
        for key, value, per_mac in (("flops", settings.flops, 2), ("macs", settings.macs, 1))
        if (amount := _amount(f"budget.{key}", value, dense_macs * per_mac)) is not None
    ]
    params = _amount("budget.params", settings.params, dense_params)
    if not macs and params is None:
        raise ConfigError(
            'budget: no limit is given; write e.g. flops = "50%", macs = "20M" or params = "40%".'
        )
    return Budget(macs=min(macs) if macs else None, params=params)


def _amount(key: str, value: Amount, dense: int) -> int | None:
    """Return the limit as an integer, given the dense model's own amount; None where there is no limit."""
    if value is None:
        return None
    found = None if isinstance(value, bool) else _AMOUNT.fullmatch(str(value).strip().lower())
    if not found or (found[2] not in _UNITS and found[2] != "%"):
        raise ConfigError(f'{key}: got {value!r}, expected a share such as "50%" or an amount such as "20M".')
    number = Fraction(found[1].replace("_", "").replace(",", ""))
    if found[2] == "%":
        limit = int(number * dense / 100)
    elif number < 1:
        raise ConfigError(
            f'{key}: got {value!r}, which is less than one; write a share as "{float(number):.0%}".'
        )
    else:
        limit = int(number * _UNITS[found[2]])
    if limit < 1 or limit >= dense:
        raise BudgetError(
            f"{key}: {value} is {limit:,}, expected more than 0 and less than the dense model's {dense:,}."
        )
    return limit
