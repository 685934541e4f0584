"""Own the measurement of a table: candidates of a design, one beside the other, then the fit to them.

Before: `design` chooses the candidates, `profiles` times them; after: `table` keeps what came out.

    table = measure_table(prunable, LatencySetting("onnx", batch=32, threads=2), limit_seconds=240)

Candidates are timed in rounds, each beside the dense model: what slows the machine for a while slows both,
and is divided out; as it does not slow both alike, the faster half of a candidate's rounds counts. What the
dense model itself takes is told last, as `time_in_turn` tells it of finalists.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from autoprune.graph import Prunable
from autoprune.latency.fingerprint import device_fingerprint
from autoprune.latency.setting import LatencySetting
from autoprune.latency.table._experiment_design import LEVELS, LEVELS_WHOLE, design
from autoprune.latency.table._fits import fit_told, fit_whole
from autoprune.latency.table._interleaved import Beside, Reference, undisturbed_rounds
from autoprune.latency.table._latency_table import Calibration, LatencyTable
from autoprune.latency.table._least_squares import solve_non_negative
from autoprune.latency.table._operator_work import kind_of
from autoprune.latency.table._operators import sizes_of
from autoprune.latency.table._profiles import Profiler, make_profiler
from autoprune.latency.table._surfaces import Readings
from autoprune.latency.timing import Progress, time_in_turn
from autoprune.support.arrays import FloatArray, IntArray
from autoprune.support.memory import kept_memory

MOST_ROUNDS = 5

_DENSE_SECONDS = 5.0
"""That the dense model is timed for by itself."""

_MOST_OVERHEAD_MS = 0.005
"""No runtime takes longer to note a time."""


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
        setting: how it is run.
        limit_seconds: no further round over the candidates starts if it would not end by then; the first is
            always completed.
        levels: widths a group is measured at, a prime; its square is the number of candidates. None: LEVELS,
            or LEVELS_WHOLE where the probe cannot tell the times of operators.
        progress: told after each candidate; of how many in all shows when the first round is over.

    Raises:
        ConfigError: no such probe or device.
        LatencyError: the model does not run there.
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
    """Measure a table by a profiler; the arguments are those of `measure_table`."""
    started = time.perf_counter()
    full = np.array([group.width for group in prunable.groups], dtype=np.int64)
    operators = profiler.found.operators
    levels = levels or (LEVELS if profiler.tells else LEVELS_WHOLE)
    widths = np.concatenate([full[None], design(prunable, operators, levels)])
    times, dense_ms = _measure(profiler, widths, started + limit_seconds, progress)
    signatures = list(profiler.found.work)
    whole_ms = dense_ms * np.array([np.median([each.whole for each in mine]) for mine in times])
    whole_ms[0] = dense_ms  # by definition; its turns beside itself were for its operators
    operator_ms = _operator_ms(times, dense_ms, whole_ms)
    readings = Readings(
        sizes=sizes_of(operators, widths.shape[1])(widths),
        ms=np.zeros((len(widths), len(operators))) if operator_ms is None else operator_ms,
        whole_ms=whole_ms,
        signature=np.array([signatures.index(operator.signature) for operator in operators]),
    )
    works = list(profiler.found.work.values())
    if operator_ms is None:
        fit = fit_whole(readings, works)
    else:
        fit = fit_told(readings, [kind_of(work) for work in works])
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
) -> tuple[list[list[Beside]], float]:
    """Time all candidates, the dense model first among them, round by round.

    Returns:
        What each took in the rounds that nothing disturbed; the dense model's milliseconds.
    """
    times: list[list[Beside]] = [[] for _ in widths]
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
            if done == len(widths):
                rounds = int(np.clip(1 + (deadline - now) / (now - began), 1, MOST_ROUNDS))
            elif now + (now - began) / len(times[0]) > deadline:
                break
        timings = time_in_turn({"dense": opened.timed}, tolerance=0.005, limit_seconds=_DENSE_SECONDS)
        return [undisturbed_rounds(mine) for mine in times], timings.measurements["dense"].median_ms


def _operator_ms(
    times: Sequence[Sequence[Beside]], dense_ms: float, whole_ms: FloatArray
) -> FloatArray | None:
    """Return the operators' milliseconds [candidates, operators], without what noting a time adds to it.

    How much that is shows where candidates of equal sums differ in how many times were noted. None where the
    probe cannot tell the operators' times.
    """
    medians = [np.median([each.operators for each in mine], axis=0) for mine in times if mine[0].told]
    if not medians:
        return None
    operators = dense_ms * np.stack(medians)
    events = np.stack([mine[0].events for mine in times])
    sums, counts = operators.sum(axis=1), events.sum(axis=1)
    if np.ptp(counts) == 0:
        return operators
    columns = np.stack([np.ones(len(sums)), sums, -counts], axis=1)
    _, scale, overhead = solve_non_negative(columns / whole_ms[:, None], np.ones(len(sums)))
    overhead_ms = min(overhead / max(scale, 1e-9), _MOST_OVERHEAD_MS)
    return np.asarray(np.maximum(operators - events * overhead_ms, 0))
