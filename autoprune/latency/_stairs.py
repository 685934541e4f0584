"""Own the stairs: how latency grows with the width on a runtime, and the divisor that follows from it.

Kernels work on channels in blocks, so that a width just above a multiple of the block costs as much as the
next multiple. Before: `blocks` of the dense model; after: `space` snaps widths to the divisor, the report
draws them.

    stairs = measure_stairs(heavy_blocks(model, example), LatencySetting("onnx"))
    stairs.divisor                         # 16
    StudyFacts(..., stairs=stairs.to_json())
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from autoprune.errors import LatencyError
from autoprune.latency._stair_blocks import Block
from autoprune.latency.probes import find_probe, prepare
from autoprune.latency.setting import LatencySetting
from autoprune.latency.timing import Progress, Timed, median_interval, time_in_turn
from autoprune.support.schema import read_as

DIVISORS = (1, 2, 4, 8, 16, 32)

FREE = 0.5
"""Rounding up is free where it costs less than this share of what so many channels more cost on average: on
perfect stairs that is 0, on real ones about 0.3, without any 1."""

FLAT = 0.1
"""A curve that grows by less than this share of its largest value says nothing about widths."""

_Point = tuple[str, int]
"""A block and its width."""

_WIDEST = 64
"""Steps show at small widths, where a channel is a larger share of the time."""

_COARSE = (0, 1, 2, 4, 5, 6, 8, 12, 13, 14, 16, 20, 21, 22, 24, 28, 30, 32)
"""Distances from a multiple of 32 that hold widths to be moved, and where to, for each of the divisors."""


@dataclass(frozen=True)
class Curve:
    """A block's latency at ascending widths.

    Attributes:
        widths: channels.
        milliseconds: of one forward pass at each.
        errors: half-width of the 95% interval at each, in milliseconds.
    """

    widths: tuple[int, ...]
    milliseconds: tuple[float, ...]
    errors: tuple[float, ...]


@dataclass(frozen=True)
class Stairs:
    """What was measured, and what follows.

    Attributes:
        divisor: one of DIVISORS.
        runtime: the setting in words.
        curves: {layer: its block's latency by width}.
    """

    divisor: int
    runtime: str
    curves: Mapping[str, Curve]

    def to_json(self) -> dict[str, Any]:
        """Turn the stairs into JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Stairs:
        """Read the values that `to_json` gave.

        Raises:
            LatencyError: the values are no stairs.
        """
        return read_as(cls, values, where="stairs", error=LatencyError, advice="measure them again.")


def measure_stairs(
    blocks: Sequence[Block],
    setting: LatencySetting,
    *,
    tolerance: float = 0.01,
    limit_seconds: float = 60.0,
    progress: Progress | None = None,
) -> Stairs:
    """Time the blocks at many widths, all in turn, and choose the divisor.

    Eager PyTorch is measured at each width up to 64, other probes, which take long to get ready, at a few
    above 32 that suffice to judge every divisor.

    Args:
        blocks: nets of one width each, whose names differ.
        setting: the runtime.
        tolerance: half-width of the intervals, as a share, at which to stop.
        limit_seconds: when to stop otherwise.
        progress: told after each net is ready, of how many; with slow probes that takes the most time.

    Raises:
        ConfigError: no such probe or device.
        LatencyError: a block does not run there.
    """
    is_quick = find_probe(setting.probe).is_quick
    widths = {block.name: _widths(block.width, fine=is_quick) for block in blocks}
    with contextlib.ExitStack() as stack:
        points = [(block, width) for block in blocks for width in widths[block.name]]
        timed: dict[_Point, Timed] = {}
        for block, width in points:
            timed[block.name, width] = stack.enter_context(prepare(*block.make(width), setting))
            if progress is not None:
                progress(len(timed), len(points))
        timings = time_in_turn(
            timed, tolerance=tolerance, limit_seconds=limit_seconds, turn_seconds=0.005, of_turn=min
        )
    levels = _levels(timings.turns)
    curves = {name: _curve({width: levels[name, width] for width in each}) for name, each in widths.items()}
    return Stairs(choose_divisor(curves.values()), str(setting), curves)


def _levels(turns: Mapping[_Point, Sequence[float]]) -> dict[_Point, tuple[float, tuple[float, float]]]:
    """Return each point's median milliseconds and their interval, without what slowed whole rounds."""
    times = np.array(list(turns.values()))
    slowness = np.median(times / np.median(times, axis=1, keepdims=True), axis=0)
    return {point: median_interval(row.tolist()) for point, row in zip(turns, times / slowness, strict=True)}


def _curve(levels: Mapping[int, tuple[float, tuple[float, float]]]) -> Curve:
    halves = tuple((high - low) / 2 for _, (low, high) in levels.values())
    return Curve(tuple(levels), tuple(median for median, _ in levels.values()), halves)


def choose_divisor(curves: Iterable[Curve]) -> int:
    """Return the divisor to which widths are best rounded up.

    From 1 on, it moves to the next divisor to which the multiples of the present one can be rounded up for
    free, for as long as there is one: where a runtime works in blocks of 16, and is slow at widths that
    are no multiples of 4, from 1 to 4, to 8 and to 16. What may be due to noise is not free.
    """
    growing = [scaled for curve in curves if (scaled := _scaled(curve)) is not None]
    chosen = 1
    while True:
        free = [d for d in DIVISORS if d > chosen and _is_free(growing, chosen, d)]
        if not free:
            return chosen
        chosen = free[0]


@dataclass(frozen=True)
class _Scaled:
    """A curve as a share of its largest value, with the slope of the line through it, per channel."""

    shares: Mapping[int, float]
    errors: Mapping[int, float]
    slope: float


def _scaled(curve: Curve) -> _Scaled | None:
    """Scale a curve; None where it does not grow, so that it says nothing."""
    largest = max(curve.milliseconds)
    shares = [value / largest for value in curve.milliseconds]
    slope = float(np.polyfit(curve.widths, shares, 1)[0]) if len(shares) > 1 else 0.0
    if slope * (curve.widths[-1] - curve.widths[0]) < FLAT:
        return None
    errors = [error / largest for error in curve.errors]
    return _Scaled(
        dict(zip(curve.widths, shares, strict=True)), dict(zip(curve.widths, errors, strict=True)), slope
    )


def _is_free(curves: Iterable[_Scaled], present: int, divisor: int) -> bool:
    """Tell whether multiples of `present` can be rounded up to multiples of `divisor` for free."""
    paid = expected = variance = 0.0
    for curve in curves:
        change: Counter[int] = Counter()  # how often a width's time is paid, less how often it was before
        for width in curve.shares:
            rounded = -(-width // divisor) * divisor
            if width % present == 0 and rounded != width and rounded in curve.shares:
                change[rounded] += 1
                change[width] -= 1
                expected += curve.slope * (rounded - width)
        paid += sum(count * curve.shares[width] for width, count in change.items())
        variance += sum((count * curve.errors[width]) ** 2 for width, count in change.items())
    return expected > 0 and paid + math.sqrt(variance) < FREE * expected


def _widths(width: int, *, fine: bool) -> tuple[int, ...]:
    """Return the widths at which a block is timed.

    The largest is the dense one's, or 64 of a wider block's; where not each is timed, blocks of less than 64
    have the distances that fit from 0 on, up to 32.
    """
    top = min(width, _WIDEST)
    if fine:
        return tuple(range(1, top + 1))
    start, below = (32, (16, 24)) if top == _WIDEST else (0, ())
    return (*below, *(start + distance for distance in _COARSE if 0 < start + distance <= top))
