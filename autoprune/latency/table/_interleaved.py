"""Own the turns of a table's measurement: each candidate in short slices between those of the dense model.

A shared machine runs fast and slow by turns of a second or less. What neighbouring slices take has the same
ratio all the while, so times are shares of the dense model's, as budgets are. Before: `profiles` opens the
models; after: `tabulate` fits what came out.

    reference = Reference(opened)
    beside = reference.time(candidate)
    beside.whole, beside.operators              # 0.4; float64 [operators]: times over the reference's
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
"""What the passes of a slice fill; slower models pass once."""

_MOST_PASSES = 50

_PHASE_SECONDS = 0.15
"""What a candidate's slices of one kind fill; slower models have a single one."""

_MOST_SECONDS = 0.5
"""What these slices and those of the reference between them take together, unless single ones take longer."""

_MOST_SLICES = 30

_COLD_SECONDS = 0.1
"""A model that takes longer is not run in vain before each slice: no cache would hold what that brings."""


@dataclass(frozen=True)
class Beside:
    """A candidate's times over those of the reference.

    Attributes:
        whole: of a whole forward pass.
        reference_ms: what a pass of the reference took meanwhile.
        operators: of each operator, [operators]; empty where the probe cannot tell.
        events: int64 [operators], how many times were added up for each; likewise.
    """

    whole: float
    reference_ms: float
    operators: FloatArray = field(default_factory=lambda: np.empty(0))
    events: IntArray = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def told(self) -> bool:
        """Whether the probe can tell the times of the operators."""
        return len(self.operators) > 0


class Reference:
    """A model that is timed beside every candidate.

    Times are means of the faster half of the passes: what else runs on a machine only ever adds to them.
    """

    def __init__(self, opened: ReadyCandidate) -> None:
        self._timed = opened.timed
        self._seconds = _warmed_up(self._timed)
        if opened.profile is not None:
            opened.profile()

    def time(self, candidate: ReadyCandidate) -> Beside:
        """Time a candidate's operators, where the probe can tell, and its whole passes."""
        if candidate.profiled is None or candidate.profile is None:
            return Beside(*self._whole(candidate, _warmed_up(candidate.timed)))
        seconds = _warmed_up(candidate.profiled)
        counted, _, beside = self._slices(candidate.profiled, seconds)
        profile = candidate.profile()
        operators = faster_half(profile.ms[-len(counted) :][counted]) / beside
        return Beside(*self._whole(candidate, seconds), operators, profile.events)

    def _whole(self, candidate: ReadyCandidate, seconds: float) -> tuple[float, float]:
        """Return the candidate's time over the reference's, and the reference's milliseconds."""
        _, milliseconds, beside = self._slices(candidate.timed, seconds)
        return float(faster_half(np.array(milliseconds)) / beside), beside

    def _slices(self, run: Timed, seconds: float) -> tuple[list[bool], list[float], float]:
        """Run slices of a candidate and of the reference in turn.

        Returns:
            For each pass of the candidate whether it counts; the milliseconds of those that do; the
            reference's.
        """
        counted: list[bool] = []
        milliseconds: list[float] = []
        beside: list[float] = []
        for _ in range(self._slices_of(seconds)):
            beside += _slice(self._timed, self._seconds)[1]
            skipped, counting = _slice(run, seconds)
            milliseconds += counting
            counted += [False] * skipped + [True] * len(counting)
        return counted, milliseconds, float(faster_half(np.array(beside)))

    def _slices_of(self, seconds: float) -> int:
        """Return how many slices a candidate gets whose pass takes so many seconds."""
        both = _slice_seconds(seconds) + _slice_seconds(self._seconds)
        slices = min(_PHASE_SECONDS / (_passes(seconds) * seconds), _MOST_SECONDS / both)
        return int(np.clip(slices, 1, _MOST_SLICES))


def undisturbed_rounds(rounds: Sequence[Beside]) -> list[Beside]:
    """Return the half of a candidate's rounds in which it and the reference ran fastest."""
    times = [(each.whole * each.reference_ms, each.reference_ms) for each in rounds]
    return [rounds[place] for place in undisturbed(times, share=0.5, least=1)]


def faster_half(passes: FloatArray) -> FloatArray:
    """Return the mean over the faster half of the passes, along axis 0 and for each column by itself."""
    kept = np.sort(passes, axis=0)[: -(-len(passes) // 2)]
    return np.asarray(kept.mean(axis=0))


def _slice(run: Timed, seconds: float) -> tuple[int, list[float]]:
    """Run a model for one slice; returns how many passes were made in vain, and what the others returned."""
    skipped = int(seconds < _COLD_SECONDS)
    for _ in range(skipped):
        run()
    return skipped, [run() for _ in range(_passes(seconds))]


def _slice_seconds(seconds: float) -> float:
    return (_passes(seconds) + int(seconds < _COLD_SECONDS)) * seconds


def _passes(seconds: float) -> int:
    return int(np.clip(round(_SLICE_SECONDS / seconds), 1, _MOST_PASSES))


def _warmed_up(run: Callable[[], object]) -> float:
    """Run a model until it is warm; returns the seconds of a pass.

    Twice at least: ONNX Runtime lays its memory out after the first pass, and takes it in the second.
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
