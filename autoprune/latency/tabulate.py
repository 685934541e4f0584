"""Own the measurement of a table: candidates of a design, one beside the other, then the fit to them.

Before: `design` chooses the candidates, `profiles` times them; after: `table` keeps what came out.

    table = measure_table(prunable, LatencySetting("onnx", batch=32, threads=2), limit_seconds=240)

Candidates are timed in rounds, each beside a reference (all groups at half their width): what slows the
machine for a while slows both, and is divided out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from autoprune.graph import Prunable
from autoprune.latency.design import LEVELS, design
from autoprune.latency.fingerprint import device_fingerprint
from autoprune.latency.fits import fit_told, fit_whole
from autoprune.latency.operators import MOST_SIZES, Operator
from autoprune.latency.profiles import Profiler, make_profiler
from autoprune.latency.setting import LatencySetting
from autoprune.latency.surfaces import Readings
from autoprune.latency.table import Calibration, LatencyTable
from autoprune.latency.turns import Beside, Reference
from autoprune.latency.works import kind_of

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

Progress: TypeAlias = Callable[[int, int], None]
"""Is told how many candidates of how many have been timed."""

MOST_ROUNDS = 5

_DENSE = 3
"""How often a round times the dense model, which all budgets relate to."""

_MOST_OVERHEAD_MS = 0.005
"""No runtime takes longer to note a time."""


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
    levels: int,
    progress: Progress | None,
) -> LatencyTable:
    """Measure a table by a profiler; the arguments are those of `measure_table`."""
    started = time.perf_counter()
    full = np.array([group.width for group in prunable.groups], dtype=np.int64)
    operators = profiler.found.operators
    widths = np.concatenate([np.repeat(full[None], _DENSE, axis=0), design(prunable, operators, levels)])
    times, typical_ms = _measure(profiler, widths, _half(prunable), started + limit_seconds, progress)
    signatures = list(profiler.found.work)
    whole_ms = typical_ms * np.array([np.median([each.whole for each in mine]) for mine in times])
    operator_ms = _operator_ms(times, typical_ms, whole_ms)
    readings = Readings(
        sizes=operator_sizes(operators, widths),
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
        calibration=Calibration(fit.constant_ms, fit.scale, fit.error, len(widths), seconds),
        dense_ms=float(np.median(whole_ms[:_DENSE])),
    )


def _measure(
    profiler: Profiler, widths: IntArray, half: IntArray, deadline: float, progress: Progress | None
) -> tuple[list[list[Beside]], float]:
    """Time all candidates round by round; returns what each took in each round, and the reference's ms."""
    times: list[list[Beside]] = [[] for _ in widths]
    rng = np.random.default_rng(0)
    with profiler.open(half) as opened:
        reference = Reference(opened)
        for number in range(MOST_ROUNDS):
            began = time.perf_counter()
            for done, place in enumerate(rng.permutation(len(widths)).tolist()):
                with profiler.open(widths[place]) as candidate:
                    times[place].append(reference.time(candidate))
                if progress is not None:
                    progress(number * len(widths) + done + 1, MOST_ROUNDS * len(widths))
            ended = time.perf_counter()
            if ended + (ended - began) > deadline:
                break
        return times, reference.typical_ms


def _operator_ms(
    times: Sequence[Sequence[Beside]], typical_ms: float, whole_ms: FloatArray
) -> FloatArray | None:
    """Return the operators' milliseconds [candidates, operators], without what noting a time adds to it.

    How much that is shows where candidates of equal sums differ in how many times were noted. None where the
    probe cannot tell the operators' times.
    """
    medians = [np.median([each.operators for each in mine], axis=0) for mine in times if mine[0].told]
    if not medians:
        return None
    operators = typical_ms * np.stack(medians)
    events = np.stack([mine[0].events for mine in times])
    sums, counts = operators.sum(axis=1), events.sum(axis=1)
    if np.ptp(counts) == 0:
        return operators
    columns = np.stack([np.ones(len(sums)), sums, -counts], axis=1)
    (_, scale, overhead), _ = nnls(columns / whole_ms[:, None], np.ones(len(sums)))
    overhead_ms = min(overhead / max(scale, 1e-9), _MOST_OVERHEAD_MS)
    return np.asarray(np.maximum(operators - events * overhead_ms, 0))


def _half(prunable: Prunable) -> IntArray:
    """Return the widths [groups] of the reference."""
    half = np.array([group.width for group in prunable.groups], dtype=np.int64)
    for group in prunable.searchable:
        half[prunable.position[group.name]] = -(-group.width // 2)
    return half


def operator_sizes(operators: Sequence[Operator], widths: IntArray) -> IntArray:
    """Return the sizes [candidates, operators, 2], 0 where an operator has fewer."""
    sizes = np.zeros((len(widths), len(operators), MOST_SIZES), dtype=np.int64)
    for place, operator in enumerate(operators):
        for axis, size in enumerate(operator.sizes):
            sizes[:, place, axis] = size.at(widths)
    return sizes
