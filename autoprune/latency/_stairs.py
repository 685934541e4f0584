"""Measure the stairs of a runtime: latency over width, which rises in steps, and the divisor that follows.

Kernels process channels in blocks, so a width just above a multiple of the block takes as long as the next
multiple. Widths in a search space are therefore multiples of the divisor.

Example:
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
from autoprune.latency.timing import Progress, Timed, median_interval, time_interleaved
from autoprune.support.schema import read_as

DIVISORS = (1, 2, 4, 8, 16, 32)
"""Divisors to choose from."""

FREE = 0.5
"""Rounding widths up counts as free if it costs less than this share of the average cost of as many channels.

That share is 0 if latency rises in perfect steps, about 0.3 on real devices with steps, and 1 without steps.
"""

FLAT = 0.1
"""A curve that grows by less than this share of its largest value is ignored."""

_Point = tuple[str, int]
"""(name of a block, width)."""

_WIDEST = 64
"""Largest width that is measured. Steps show best at small widths, where a channel is a larger share."""

_COARSE = (0, 1, 2, 4, 5, 6, 8, 12, 13, 14, 16, 20, 21, 22, 24, 28, 30, 32)
"""Offsets from a multiple of 32 at which slow probes are timed.

For each divisor they contain widths that would be rounded up, and the widths that these are rounded to.
"""


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

    def __post_init__(self) -> None:
        """Refuse values of different lengths, or none."""
        if not 0 < len(self.widths) == len(self.milliseconds) == len(self.errors):
            raise ValueError("as many widths as milliseconds and errors")


@dataclass(frozen=True)
class Stairs:
    """Latency over width on one runtime, and the divisor chosen from it.

    Attributes:
        divisor: one of DIVISORS.
        runtime: the latency setting in words.
        curves: {layer: latency of its block over the width}.
    """

    divisor: int
    runtime: str
    curves: Mapping[str, Curve]

    def __post_init__(self) -> None:
        """Refuse a divisor that divides nothing."""
        if self.divisor < 1:
            raise ValueError("a divisor of at least 1")

    def to_json(self) -> dict[str, Any]:
        """Return the stairs as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Stairs:
        """Read the values that `to_json` returned.

        Raises:
            LatencyError: a value is missing or wrong.
        """
        return read_as(cls, values, where="stairs", error=LatencyError, advice="Measure them again.")


def measure_stairs(
    blocks: Sequence[Block],
    setting: LatencySetting,
    *,
    tolerance: float = 0.01,
    limit_seconds: float = 60.0,
    progress: Progress | None = None,
) -> Stairs:
    """Time the blocks at many widths with interleaved timing, and choose the divisor.

    Eager PyTorch is timed at each width up to 64. Other probes take long to make a model ready, so they are
    timed at a few widths above 32 that suffice to judge every divisor.

    Args:
        blocks: the blocks to time, each with a name of its own.
        setting: the runtime.
        tolerance: timing stops when the half-width of every interval, as a share of its median, is at most
            this.
        limit_seconds: timing stops after this time at the latest.
        progress: called with (ready, all) when a net is ready, which takes most of the time with slow probes.

    Raises:
        ConfigError: there is no such probe or device.
        LatencyError: a block does not run under the setting.
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
        timings = time_interleaved(
            timed, tolerance=tolerance, limit_seconds=limit_seconds, slice_seconds=0.005, reduce=min
        )
    levels = _levels(timings.slices)
    curves = {name: _curve({width: levels[name, width] for width in each}) for name, each in widths.items()}
    return Stairs(choose_divisor(curves.values()), str(setting), curves)


def _levels(slices: Mapping[_Point, Sequence[float]]) -> dict[_Point, tuple[float, tuple[float, float]]]:
    """Return the median milliseconds of each point and its interval, corrected for rounds that were slow."""
    # All points run once in each round, so a round in which most of them are slow was disturbed.
    times = np.array(list(slices.values()))
    slowness = np.median(times / np.median(times, axis=1, keepdims=True), axis=0)
    return {point: median_interval(row.tolist()) for point, row in zip(slices, times / slowness, strict=True)}


def _curve(levels: Mapping[int, tuple[float, tuple[float, float]]]) -> Curve:
    halves = tuple((high - low) / 2 for _, (low, high) in levels.values())
    return Curve(tuple(levels), tuple(median for median, _ in levels.values()), halves)


def choose_divisor(curves: Iterable[Curve]) -> int:
    """Return the divisor to whose multiples widths should be rounded up.

    The choice starts at 1. It moves to the next divisor to which the multiples of the present one can be
    rounded up for free, as long as there is one. If a runtime works in blocks of 16 and is slow at widths
    that are not multiples of 4, the choice moves from 1 to 4, to 8 and to 16. Rounding counts as free only
    if its cost is small beyond noise.
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
    """A curve divided by its largest value, with the slope per channel of a line fitted to it."""

    shares: Mapping[int, float]
    errors: Mapping[int, float]
    slope: float


def _scaled(curve: Curve) -> _Scaled | None:
    """Return a scaled curve, or None if it hardly grows with the width."""
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
    """Return whether multiples of `present` can be rounded up to multiples of `divisor` for free."""
    paid = expected = variance = 0.0
    for curve in curves:
        # A width may be the target of several others. Counting each measured time once per curve, with its
        # sign, keeps their errors independent, so that their squares may be added up.
        change: Counter[int] = Counter()
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
    """Return the widths at which a block is timed, all or a few of them.

    The largest is the width of the dense layer, at most 64. A few are those of `_COARSE` above 32, or above 0
    if the block is narrower than 64.
    """
    top = min(width, _WIDEST)
    if fine:
        return tuple(range(1, top + 1))
    start, below = (32, (16, 24)) if top == _WIDEST else (0, ())
    return (*below, *(start + distance for distance in _COARSE if 0 < start + distance <= top))
