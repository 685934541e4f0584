"""Measure a latency table: time the candidates of an experiment design, and fit the table to them.

Candidates are timed in rounds, each side by side with the dense model. Other load slows both models, so it
cancels out in their ratio. It need not slow both equally, so only the faster half of a candidate's rounds
counts. At the end the dense model is timed by `time_interleaved`, like finalists.

Example:
    table = measure_table(prunable, LatencySetting("onnx", batch=32, threads=2), limit_seconds=240)
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from autoprune.graph import Prunable
from autoprune.latency.fingerprint import device_fingerprint
from autoprune.latency.setting import LatencySetting
from autoprune.latency.table._experiment_design import LEVELS, LEVELS_WHOLE, design_candidates
from autoprune.latency.table._fits import fit_operators, fit_passes
from autoprune.latency.table._interleaved import Reference, RelativeTimes, undisturbed_rounds
from autoprune.latency.table._latency_table import Calibration, LatencyTable
from autoprune.latency.table._least_squares import solve_non_negative
from autoprune.latency.table._operator_work import kind_of
from autoprune.latency.table._operators import sizes_of
from autoprune.latency.table._profiles import Profiler, make_profiler
from autoprune.latency.table._surfaces import Readings
from autoprune.latency.timing import Progress, time_interleaved
from autoprune.support.arrays import FloatArray, IntArray
from autoprune.support.memory import kept_memory

MOST_ROUNDS = 5
"""Largest number of rounds over all candidates."""

_DENSE_SECONDS = 5.0
"""Seconds for which the dense model is timed by itself."""

_MOST_OVERHEAD_MS = 0.005
"""Upper bound of the time in which a runtime records one time."""


def measure_table(
    prunable: Prunable,
    setting: LatencySetting,
    *,
    limit_seconds: float = 240.0,
    levels: int | None = None,
    progress: Progress | None = None,
) -> LatencyTable:
    """Measure the latency table of a model on this device.

    Args:
        prunable: the traced model.
        setting: how the model is run.
        limit_seconds: a round over the candidates starts only if it would end by then. The first round is
            always completed.
        levels: number of widths at which each group is measured, a prime. Its square is the number of
            candidates. None means LEVELS, or LEVELS_WHOLE if the probe cannot time operators.
        progress: called after each candidate. The number of all candidates is final after the first round.

    Raises:
        ConfigError: there is no such probe or device.
        LatencyError: the model does not run under the setting.
    """
    return tabulate(
        prunable,
        setting,
        make_profiler(prunable, setting),
        limit_seconds=limit_seconds,
        levels=levels,
        progress=progress,
    )


def tabulate(
    prunable: Prunable,
    setting: LatencySetting,
    profiler: Profiler,
    *,
    limit_seconds: float,
    levels: int | None,
    progress: Progress | None,
) -> LatencyTable:
    """Measure a table with a profiler. The other arguments are those of `measure_table`."""
    started = time.perf_counter()
    full = np.array([group.width for group in prunable.groups], dtype=np.int64)
    operators = profiler.found.operators
    levels = levels or (LEVELS if profiler.times_operators else LEVELS_WHOLE)
    widths = np.concatenate([full[None], design_candidates(prunable, operators, levels)])
    times, dense_ms = _measure(profiler, widths, started + limit_seconds, progress)
    signatures = list(profiler.found.work)
    whole_ms = dense_ms * np.array([np.median([each.whole for each in mine]) for mine in times])
    whole_ms[0] = dense_ms  # by definition: it was timed side by side with itself only for its operators
    operator_ms = _operator_ms(times, dense_ms, whole_ms)
    readings = Readings(
        sizes=sizes_of(operators, widths.shape[1])(widths),
        ms=np.zeros((len(widths), len(operators))) if operator_ms is None else operator_ms,
        whole_ms=whole_ms,
        signature=np.array([signatures.index(operator.signature) for operator in operators]),
    )
    works = list(profiler.found.work.values())
    if operator_ms is None:
        fit = fit_passes(readings, works)
    else:
        fit = fit_operators(readings, [kind_of(work) for work in works])
    seconds = time.perf_counter() - started
    return LatencyTable(
        setting=setting,
        device=device_fingerprint(setting),
        model=prunable.fingerprint,
        groups=len(full),
        operators=operators,
        surfaces=dict(zip(signatures, fit.surfaces, strict=True)),
        calibration=Calibration(fit.constant_ms, fit.error, len(widths), seconds),
        dense_ms=dense_ms,
    )


def _measure(
    profiler: Profiler, widths: IntArray, deadline: float, progress: Progress | None
) -> tuple[list[list[RelativeTimes]], float]:
    """Time all candidates round by round. The first one is the dense model.

    Returns:
        The times of each candidate in its undisturbed rounds, and the dense model's milliseconds.
    """
    times: list[list[RelativeTimes]] = [[] for _ in widths]
    rng = np.random.default_rng(0)
    began = time.perf_counter()
    with kept_memory(), profiler.open(widths[0]) as opened:
        reference = Reference(opened)
        done, rounds = 0, 1
        while done < rounds * len(widths):
            for place in rng.permutation(len(widths)).tolist():
                with profiler.open(widths[place]) as candidate:
                    times[place].append(reference.time(candidate))
                done += 1
                if progress is not None:
                    progress(done, rounds * len(widths))
            now = time.perf_counter()
            if done == len(widths):  # the first round shows how many more there is time for
                rounds = int(np.clip(1 + (deadline - now) / (now - began), 1, MOST_ROUNDS))
            elif now + (now - began) / len(times[0]) > deadline:
                break
        timings = time_interleaved({"dense": opened.timed}, tolerance=0.005, limit_seconds=_DENSE_SECONDS)
        return [undisturbed_rounds(mine) for mine in times], timings.measurements["dense"].median_ms


def _operator_ms(
    times: Sequence[Sequence[RelativeTimes]], dense_ms: float, whole_ms: FloatArray
) -> FloatArray | None:
    """Return the operators' milliseconds [candidates, operators], or None if the probe cannot time operators.

    Recording a time takes time itself, which is subtracted. It is fitted to candidates that record different
    numbers of times, because a runtime fuses operators in some of them and not in others.
    """
    medians = [
        np.median([each.operators for each in mine], axis=0) for mine in times if mine[0].has_operators
    ]
    if not medians:
        return None
    operators = dense_ms * np.stack(medians)
    events = np.stack([mine[0].events for mine in times])
    sums, counts = operators.sum(axis=1), events.sum(axis=1)
    if np.ptp(counts) == 0:
        return operators
    # whole pass = constant + scale x (sum of the operators - overhead of one time x number of times)
    columns = np.stack([np.ones(len(sums)), sums, -counts], axis=1)
    _, scale, overhead = solve_non_negative(columns / whole_ms[:, None], np.ones(len(sums)))
    overhead_ms = min(overhead / max(scale, 1e-9), _MOST_OVERHEAD_MS)
    return np.asarray(np.maximum(operators - events * overhead_ms, 0))
