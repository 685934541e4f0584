"""How costs are shown: what a table or a plot calls them, and an amount of them in words.

Before: numbers by the names of `Cost`; after: tables, plots and sentences of the command line.

    label("latency_ms"), said("latency_ms", 3.1416)      # "latency", "3.14 ms"
    option("latency_ms")                                 # "--latency"
"""

from __future__ import annotations

_LABELS = {
    "macs": ("MACs", "MACs", "--flops"),
    "params": ("params", "parameters", "--params"),
    "latency_ms": ("latency", "ms", "--latency"),
    "size_bytes": ("size", "B", "--size"),
    "peak_memory_bytes": ("memory", "B", "--peak-memory"),
}
"""Name of the cost -> heading, unit, and the option of `autoprune best` that limits it."""


def label(cost: str) -> str:
    """Return a cost's heading."""
    return _LABELS[cost][0]


def option(cost: str) -> str:
    """Return the option of `autoprune best` that limits a cost."""
    return _LABELS[cost][2]


def said(cost: str, value: float) -> str:
    """Write an amount of a cost: "20.3 M MACs", "3.14 ms", "1.2 MB"."""
    unit = _LABELS[cost][1]
    if unit == "ms":
        return f"{milliseconds(value)} ms"
    number = amount(value)
    return f"{number}{'' if unit == 'B' and number[-1].isalpha() else ' '}{unit}"


def amount(number: float) -> str:
    """Write a count with a unit: 20312576 as "20.3 M"."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"


def milliseconds(number: float) -> str:
    """Write a time with three digits that count: 12.3456 as "12.3"."""
    return f"{number:.3g}" if number < 100 else f"{number:.0f}"
