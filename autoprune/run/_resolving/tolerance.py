"""Parses the tolerance of [budget].

Example:
    tolerance_of(BudgetSettings(tolerance="0.5 points", of="latency")).allowed      # 0.005
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from autoprune.config.settings import BudgetSettings
from autoprune.cost import CostKey, budget_keys
from autoprune.errors import ConfigError, shown_value, unknown

POINT = Fraction(1, 100)
"""A point of a score."""

_DEFAULT_COST = "flops"
_TOLERANCE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?|\.[0-9]{1,20})\s*(points?)?")


@dataclass(frozen=True)
class Tolerance:
    """How far below the dense model's score the smallest model may be.

    Attributes:
        key: the key of [budget] that names the cost to minimise.
        allowed: the difference of the scores.
    """

    key: CostKey
    allowed: float


def tolerance_of(settings: BudgetSettings) -> Tolerance | None:
    """Return the tolerance of a [budget] section, or None if it has none.

    Raises:
        ConfigError: the tolerance is malformed or 0, or `of` is unknown, or is given without a tolerance.
    """
    name, text = settings.of, settings.tolerance
    if text is None:
        if name is not None:
            raise ConfigError(
                'budget.of: set without budget.tolerance. Write e.g. tolerance = "0.5 points", or leave "of" '
                "out."
            )
        return None
    known = budget_keys()
    if name is not None and name not in known:
        raise ConfigError(unknown("budget.of", name, known, kind="cost"))
    found = _TOLERANCE.fullmatch(str(text).strip().lower())
    allowed = Fraction(found[1]) * (POINT if found[2] else 1) if found else Fraction(0)
    if allowed <= 0:
        raise ConfigError(
            f'budget.tolerance: got {shown_value(text)}, expected points such as "0.5 points", each 0.01 of '
            "the score, or a number above 0 in the unit of the score."
        )
    return Tolerance(known[name or _DEFAULT_COST], float(allowed))
