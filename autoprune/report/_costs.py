"""How costs are shown: what a table or a plot calls them, and an amount of them in words.

Before: numbers by the names of `Cost`; after: tables, plots, messages and sentences of the command line.

    label("latency_ms"), said("latency_ms", 3.1416)      # "latency", "3.14 ms"
    option("peak_memory_bytes")                          # "--peak-memory"
"""

from __future__ import annotations

_LABELS = {
    "macs": ("MACs", "MACs", "flops"),
    "params": ("params", "parameters", "params"),
    "latency_ms": ("latency", "ms", "latency"),
    "size_bytes": ("size", "bytes", "size"),
    "peak_memory_bytes": ("memory", "bytes", "peak_memory"),
}
"""Name of the cost -> heading, unit, and the key of [budget] that limits it."""

_SIZES = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))


def label(cost: str) -> str:
    """Return a cost's heading."""
    return _LABELS[cost][0]


def option(cost: str) -> str:
    """Return the option of `autoprune best` that limits a cost."""
    return option_of_key(_LABELS[cost][2])


def option_of_key(key: str) -> str:
    """Return the option of `autoprune best` that limits by a key of [budget]: "--peak-memory"."""
    return f"--{key.replace('_', '-')}"


def said(cost: str, value: float) -> str:
    """Write an amount of a cost: "20.3 M MACs", "3.14 ms", "1.2 MB"."""
    return said_in(_LABELS[cost][1], value)


def said_in(unit: str, value: float) -> str:
    """Write an amount in a unit: "40.6 M FLOPs", "3.14 ms"; bytes as "1.2 MB"."""
    if unit == "ms":
        return f"{milliseconds(value)} ms"
    number = amount(value)
    if unit == "bytes":
        return f"{number}B" if number[-1].isalpha() else f"{number} B"
    return f"{number} {unit}"


def amount(number: float) -> str:
    """Write a count with a unit: 20312576 as "20.3 M", 999700, which rounds to a million, as "1 M"."""
    rounded = float(f"{number:.3g}")
    for unit, size in _SIZES:
        if rounded >= size:
            return f"{rounded / size:.3g} {unit}"
    return f"{number:.0f}"


def milliseconds(number: float) -> str:
    """Write a time with three digits that count, and no zeros behind them: 12.3456 as "12.3", 4.0 as "4"."""
    return f"{number:.3g}" if number < 100 else f"{number:.0f}"
