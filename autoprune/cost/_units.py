"""The units of costs: which suffixes users may write, and how amounts are printed.

BYTES.write(1_234_567)         # "1.23 MB"
MILLISECONDS.suffixes["us"]    # Fraction(1, 1000)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

_PREFIXES = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))

_COUNTS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12}


@dataclass(frozen=True)
class Unit:
    """A unit of one or several costs.

    Attributes:
        name: for messages, such as "MACs".
        suffixes: {suffix of a number in a config, in lower case: the units that it stands for}.
        example: an amount as users write it.
        is_whole: whether amounts are whole numbers from 1 on. These are printed with prefixes: "20.3 M".
        symbol: follows a prefix in place of the name, if there is one: "1.2 MB".
    """

    name: str
    suffixes: Mapping[str, int | Fraction]
    example: str
    is_whole: bool = True
    symbol: str = ""

    def write(self, number: float) -> str:
        """Write an amount: "20.3 M MACs", "3.14 ms", "1.2 MB"."""
        if not self.is_whole:
            return f"{three_digits(number)} {self.name}"
        written = amount(number)
        return f"{written}{'' if self.symbol and written[-1].isalpha() else ' '}{self.symbol or self.name}"

    def round_up(self, number: float) -> str:
        """Write an amount as a config takes it, in three digits and never below it: "2.52 ms", "174 kB"."""
        size, suffix = 1.0, f" {self.name}"
        if self.is_whole:
            prefix, size = next((each for each in _PREFIXES if number >= each[1]), ("", 1.0))
            suffix = f" {prefix}{self.symbol}" if self.symbol else prefix
        digits = 2 - math.floor(math.log10(number / size))
        rounded = math.ceil(round(number / size * 10**digits, 6)) / 10**digits
        return f"{rounded:.10g}{suffix}"


def counts(name: str) -> Unit:
    """Return a unit of things that are counted, such as "MACs"."""
    return Unit(name, _COUNTS, "20M")


BYTES = Unit(
    "bytes",
    {
        **dict.fromkeys(("", "b"), 1),
        **{f"{letter}{rest}": 1000**power for power, letter in enumerate("kmgt", 1) for rest in ("", "b")},
        **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)},
    },
    "5 MB",
    symbol="B",
)

MILLISECONDS = Unit(
    "ms",
    {"us": Fraction(1, 1000), "µs": Fraction(1, 1000), "ms": 1, "s": 1000},
    "4 ms",
    is_whole=False,
)


def amount(number: float) -> str:
    """Write a count with a prefix: 20312576 as "20.3 M", 999700, which rounds to a million, as "1 M"."""
    rounded = float(f"{number:.3g}")
    for prefix, size in _PREFIXES:
        if rounded >= size:
            return f"{rounded / size:.3g} {prefix}"
    return f"{number:.0f}"


def three_digits(number: float) -> str:
    """Write a time with three digits that count, and no zeros behind them: 12.3456 as "12.3", 4.0 as "4"."""
    return f"{number:.3g}" if number < 100 else f"{number:.0f}"
