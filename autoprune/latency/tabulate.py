"""Own the measurement of a table: candidates of a design, one beside the other, then the fit to them.

Before: `design` chooses the candidates, `profiles` times them; after: `table` keeps what came out.

    table = measure_table(prunable, LatencySetting("onnx", batch=32, threads=2), limit_seconds=240)

Candidates are timed in rounds, each beside a reference (all groups at half their width): what slows the
machine for a while slows both, and is divided out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from autoprune.graph import Prunable
from autoprune.latency.design import LEVELS, design
from autoprune.latency.fingerprint import device_fingerprint
from autoprune.latency.fits import best_fit
from autoprune.latency.operators import MOST_SIZES, Operator
from autoprune.latency.profiles import Opened, Profiler, make_profiler
from autoprune.latency.setting import LatencySetting
from autoprune.latency.surfaces import Readings
from autoprune.latency.table import Calibration, LatencyTable

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

Progress: TypeAlias = Callable[[int, int], None]
"""Is told how many candidates of how many have been timed."""

MOST_ROUNDS = 5

_TURN_SECONDS = 0.1
_FEWEST_RUNS, _MOST_RUNS = 2, 100


def measure_table(
    prunable: Prunable,
    setting: LatencySetting,
    *,
    limit_seconds: float = 240.0,
    levels: int = LEVELS,
    progress: Progress | None = None,
) -> LatencyTable:
    """Measure the latency table of a model on this device.

    Args:
        prunable: the traced model.
        setting: how it is run.
        limit_seconds: no further round over the candidates starts if it would not end by then; the first is
            always completed.
        levels: widths a group is measured at, a prime; its square is the number of candidates.
        progress: told after each candidate.

    Raises:
        ConfigError: no such probe or device.
        LatencyError: the model does not run there.
    """
    started = time.perf_counter()
    profiler = make_profiler(prunable, setting)
    full = np.array([group.width for group in prunable.groups], dtype=np.int64)
    widths = np.concatenate([full[None], design(prunable, profiler.operators, levels)])
    rounds = _measure(profiler, widths, _half(prunable), started + limit_seconds, progress)
    signatures = list(dict.fromkeys(operator.signature for operator in profiler.operators))
    readings = Readings(
        sizes=_sizes(profiler.operators, widths),
        ms=rounds.operator_ms,
        whole_ms=rounds.whole_ms,
        signature=np.array([signatures.index(operator.signature) for operator in profiler.operators]),
    )
    fit = best_fit(readings)
    return LatencyTable(
        setting=setting,
        device=device_fingerprint(setting),
        model=prunable.fingerprint,
        groups=len(full),
        operators=profiler.operators,
        grain=fit.grain,
        surfaces=dict(zip(signatures, fit.surfaces, strict=True)),
        calibration=Calibration(
            fit.constant_ms, fit.scale, fit.error, len(widths), time.perf_counter() - started
        ),
        dense_ms=float(rounds.whole_ms[0]),
    )


@dataclass(frozen=True, eq=False)
class _Rounds:
    """Medians over the rounds: whole_ms [candidates], operator_ms [candidates, operators]."""

    whole_ms: FloatArray
    operator_ms: FloatArray


def _measure(
    profiler: Profiler, widths: IntArray, half: IntArray, deadline: float, progress: Progress | None
) -> _Rounds:
    whole = np.full((MOST_ROUNDS, len(widths)), np.nan)
    beside = np.full((MOST_ROUNDS, len(widths)), np.nan)
    operators = np.full((MOST_ROUNDS, len(widths), len(profiler.operators)), np.nan)
    rng = np.random.default_rng(0)
    with profiler.open(half) as reference:
        reference.timed()
        for number in range(MOST_ROUNDS):
            began = time.perf_counter()
            for done, place in enumerate(rng.permutation(len(widths)).tolist()):
                with profiler.open(widths[place]) as opened:
                    whole[number, place], beside[number, place], operators[number, place] = _turn(
                        opened, reference
                    )
                if progress is not None:
                    progress(number * len(widths) + done + 1, MOST_ROUNDS * len(widths))
            ended = time.perf_counter()
            if ended + (ended - began) > deadline:
                break
    slowness = beside / np.nanmedian(beside)
    return _Rounds(
        np.nanmedian(whole / slowness, axis=0), np.nanmedian(operators / slowness[..., None], axis=0)
    )


def _turn(opened: Opened, reference: Opened) -> tuple[float, float, FloatArray]:
    """Time a candidate and the reference; returns the milliseconds of both, and those of each operator."""
    opened.timed()
    runs = _runs(opened.timed())
    operator_ms = opened.operator_ms(runs)
    whole = _median(opened, runs)
    return whole, _median(reference, _runs(reference.timed())), operator_ms


def _runs(milliseconds: float) -> int:
    return int(np.clip(math.ceil(_TURN_SECONDS * 1e3 / milliseconds), _FEWEST_RUNS, _MOST_RUNS))


def _median(opened: Opened, runs: int) -> float:
    opened.timed()
    return float(np.median([opened.timed() for _ in range(runs)]))


def _half(prunable: Prunable) -> IntArray:
    """Return the widths [groups] of the reference."""
    half = np.array([group.width for group in prunable.groups], dtype=np.int64)
    for group in prunable.searchable:
        half[prunable.position[group.name]] = -(-group.width // 2)
    return half


def _sizes(operators: Sequence[Operator], widths: IntArray) -> IntArray:
    """Return the sizes [candidates, operators, 2], 0 where an operator has fewer."""
    sizes = np.zeros((len(widths), len(operators), MOST_SIZES), dtype=np.int64)
    for place, operator in enumerate(operators):
        for axis, size in enumerate(operator.sizes):
            sizes[:, place, axis] = size.at(widths)
    return sizes
