"""Interleaved timing of a table's candidates, each in short slices between slices of the dense model.

A shared machine changes its speed within a second, but the ratio of neighbouring slices stays. So times are
shares of the dense model's time, like budgets.

Example:
    reference = Reference(opened)
    times = reference.time(candidate)
    times.whole, times.operators              # 0.4; float64 [operators]: times over the reference's
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from autoprune.latency.table._profiles import ReadyCandidate
from autoprune.latency.timing import Timed, undisturbed
from autoprune.support.arrays import FloatArray, IntArray

_SLICE_SECONDS = 0.005
"""Seconds of forward passes in a slice. A slower model runs one pass."""

_MOST_PASSES = 50
"""Largest number of forward passes in a slice."""

_PHASE_SECONDS = 0.15
"""Seconds of all slices of a candidate, with or without a profile. A slower model has one slice."""

_MOST_SECONDS = 0.5
"""Seconds of these slices with the reference's slices between them, unless a single one takes longer."""

_MOST_SLICES = 30
"""Largest number of slices of a candidate."""

_COLD_SECONDS = 0.1
"""A faster model runs once untimed before each slice. A slower one is too large for the caches anyway."""


@dataclass(frozen=True)
class RelativeTimes:
    """A candidate's times over those of the reference.

    Attributes:
        whole: time of a whole forward pass over the reference's.
        reference_ms: milliseconds of a pass of the reference during this timing.
        operators: float64 [operators], time of each operator over a pass of the reference, or empty if the
            probe cannot time operators.
        events: int64 [operators], number of times that were added up for each operator, or empty too.
    """

    whole: float
    reference_ms: float
    operators: FloatArray = field(default_factory=lambda: np.empty(0))
    events: IntArray = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def has_operators(self) -> bool:
        """Whether the operators were timed."""
        return len(self.operators) > 0


class Reference:
    """A model that is timed side by side with every candidate.

    Times are means over the faster half of the passes, because other load on a machine only adds to them.
    """

    def __init__(self, opened: ReadyCandidate) -> None:
        self._timed = opened.timed
        self._seconds = _warm_up(self._timed)
        if opened.profile is not None:
            opened.profile()

    def time(self, candidate: ReadyCandidate) -> RelativeTimes:
        """Time a candidate's whole passes, and its operators if the probe can."""
        if candidate.profiled is None or candidate.profile is None:
            return RelativeTimes(*self._whole(candidate, _warm_up(candidate.timed)))
        seconds = _warm_up(candidate.profiled)
        counted, _, reference_ms = self._slices(candidate.profiled, seconds)
        profile = candidate.profile()
        # The profile also holds the passes of the warm-up, which come first.
        operators = faster_half(profile.ms[-len(counted) :][counted]) / reference_ms
        return RelativeTimes(*self._whole(candidate, seconds), operators, profile.events)

    def _whole(self, candidate: ReadyCandidate, seconds: float) -> tuple[float, float]:
        """Return the candidate's time over the reference's, and the reference's milliseconds."""
        _, milliseconds, reference_ms = self._slices(candidate.timed, seconds)
        return float(faster_half(np.array(milliseconds)) / reference_ms), reference_ms

    def _slices(self, run: Timed, seconds: float) -> tuple[list[bool], list[float], float]:
        """Alternate slices of the reference and of a candidate.

        Returns:
            Whether each pass of the candidate counts, the milliseconds of those that do, and the reference's
            milliseconds.
        """
        counted: list[bool] = []
        milliseconds: list[float] = []
        reference_ms: list[float] = []
        for _ in range(self._slice_count(seconds)):
            reference_ms += _slice(self._timed, self._seconds)[1]
            skipped, counting = _slice(run, seconds)
            milliseconds += counting
            counted += [False] * skipped + [True] * len(counting)
        return counted, milliseconds, float(faster_half(np.array(reference_ms)))

    def _slice_count(self, seconds: float) -> int:
        """Return the number of slices for a candidate whose pass takes this time."""
        both = _slice_seconds(seconds) + _slice_seconds(self._seconds)
        slices = min(_PHASE_SECONDS / (_passes(seconds) * seconds), _MOST_SECONDS / both)
        return int(np.clip(slices, 1, _MOST_SLICES))


def undisturbed_rounds(rounds: Sequence[RelativeTimes]) -> list[RelativeTimes]:
    """Return the half of a candidate's rounds in which it and the reference ran fastest, at least one."""
    times = [(each.whole * each.reference_ms, each.reference_ms) for each in rounds]
    return [rounds[place] for place in undisturbed(times, share=0.5, least=1)]


def faster_half(passes: FloatArray) -> FloatArray:
    """Return the mean of the faster half of the passes along axis 0, for each column by itself."""
    kept = np.sort(passes, axis=0)[: -(-len(passes) // 2)]
    return np.asarray(kept.mean(axis=0))


def _slice(run: Timed, seconds: float) -> tuple[int, list[float]]:
    """Run a model for one slice, and return the number of untimed passes and the times of the others."""
    skipped = int(seconds < _COLD_SECONDS)
    for _ in range(skipped):
        run()
    return skipped, [run() for _ in range(_passes(seconds))]


def _slice_seconds(seconds: float) -> float:
    return (_passes(seconds) + int(seconds < _COLD_SECONDS)) * seconds


def _passes(seconds: float) -> int:
    return int(np.clip(round(_SLICE_SECONDS / seconds), 1, _MOST_PASSES))


def _warm_up(run: Callable[[], object]) -> float:
    """Run a model until it is warm, and return the seconds of a pass.

    It runs twice at least: ONNX Runtime plans its memory after the first pass and allocates it in the second.
    """
    run()
    seconds = _seconds(run)
    if seconds < _COLD_SECONDS:
        seconds = _seconds(run)
    return max(seconds, 1e-6)


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
