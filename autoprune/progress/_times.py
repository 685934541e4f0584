"""Formats durations.

Example:
    time_text(1500)      # "25 min"
"""

from __future__ import annotations


def time_text(seconds: float) -> str:
    """Format a time in a suitable unit: "40 s", "25 min", "3.5 h", "12 days"."""
    for length, unit, most in ((1, "s", 90), (60, "min", 90), (3600, "h", 72)):
        if seconds < most * length:
            value = seconds / length
            return f"{value:.1f} {unit}" if unit == "h" and value < 10 else f"{max(1, round(value))} {unit}"
    return f"{seconds / 86400:.0f} days"
