"""Measures the runtime of [latency] before a search: the divisor and the latency table.

Example:
    measured = measure_runtime(prunable, spec, watch)
    problem = build_problem(prunable, measured.spec, measured.predictor(prunable))
    stored_table(study)                            # the table of an existing study
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autoprune.config.settings import BudgetSettings
from autoprune.errors import LatencyError
from autoprune.graph import Cost, Prunable
from autoprune.latency import Stairs, heavy_blocks, measure_stairs, prepare, time_interleaved
from autoprune.latency.table import LatencyPredictor, LatencyTable, load_table, measure_table, table_of_json
from autoprune.run._resolving.budget_amounts import is_share, resolve_budget
from autoprune.run._resolving.paths import file_name_of, probe_writable
from autoprune.run._resolving.problem import check_unmeasured_limits
from autoprune.run._resolving.spec import RunSpec
from autoprune.study import SearchStudy, damaged
from autoprune.support.events import Counted, Stage, Watcher, silent

_DENSE_SECONDS = 2.0
"""Time limit for the dense model before its table is measured, in seconds."""


@dataclass(frozen=True)
class Measured:
    """The measurements of a runtime that a run needs.

    Attributes:
        spec: the settings, with the measured divisor.
        stairs: the latencies at several widths from which the divisor follows, if it was measured.
        table: the latency table, or None if latency is neither limited nor minimised.
    """

    spec: RunSpec
    stairs: Stairs | None = None
    table: LatencyTable | None = None

    def predictor(self, prunable: Prunable) -> LatencyPredictor | None:
        """Return the predictor of the latency of candidates, if there is a table."""
        return None if self.table is None else LatencyPredictor(self.table, prunable.blocks)


def measure_runtime(
    prunable: Prunable, spec: RunSpec, watch: Watcher = silent, known: LatencyTable | None = None
) -> Measured:
    """Measure the divisor and the latency table as far as the settings need them, or read an existing table.

    The measurements take minutes, so the other limits and the search space are checked first. A `known` table
    is used if it fits.

    Raises:
        ConfigError: the runtime of [latency] or the search space cannot be used.
        BudgetError: the dense model already meets budget.latency, or another limit cannot be met.
        LatencyError: the file of latency.table belongs to another model, setting or device, or the model
            does not run in the runtime.
    """
    if spec.limits_latency or spec.measures_divisor:
        check_unmeasured_limits(prunable, spec)
    spec, stairs = settle_divisor(spec, prunable, watch)
    if not spec.limits_latency:
        return Measured(spec, stairs)
    if stairs is not None and spec.budget != BudgetSettings(latency=spec.budget.latency):
        check_unmeasured_limits(prunable, spec)  # this divisor may put other limits out of reach
    return Measured(spec, stairs, find_table(prunable, spec, watch, known))


def settle_divisor(
    spec: RunSpec, prunable: Prunable, watch: Watcher = silent
) -> tuple[RunSpec, Stairs | None]:
    """Measure the divisor if the settings request it, see `RunSpec.measures_divisor`.

    Returns:
        The settings with the measured divisor, and the measurement, or None if the divisor was given.

    Raises:
        ConfigError: the runtime of [latency] cannot be used here.
        LatencyError: no part of the model can be measured in that runtime.
    """
    if not spec.measures_divisor:
        return spec, None
    setting = spec.usable_runtime
    open_yet = "" if spec.search.divisor is not None else "search.divisor is not given: "
    watch(Stage(f"{open_yet}measuring which multiples of channels {setting.probe} is fast at"))
    stairs = measure_stairs(
        heavy_blocks(prunable.part, prunable.example_inputs),
        setting,
        progress=lambda done, total: watch(Counted("preparing widths", done, total)),
    )
    watch(Stage(f"widths are multiples of {stairs.divisor}"))
    return spec.with_search(divisor=stairs.divisor), stairs


def find_table(
    prunable: Prunable, spec: RunSpec, watch: Watcher = silent, known: LatencyTable | None = None
) -> LatencyTable:
    """Return a known latency table if it fits, or read that of a traced model, or measure it and write it.

    Raises:
        BudgetError: the dense model already meets budget.latency.
        LatencyError: the file of latency.table belongs to another model, setting or device, or the model
            does not run in the runtime.
    """
    if known is not None and spec.latency.table is None:
        try:
            known.require(prunable, spec.usable_runtime)
        except LatencyError as error:
            watch(Stage(f"the latency table of the earlier study is not reused: {error}"))
        else:
            watch(Stage(f"latency table: reused from the earlier study, dense model {known.dense_ms:.3g} ms"))
            return known
    path = table_path(spec)
    table = None if path is None or not path.exists() else _read_table(path, prunable, spec)
    if table is None:
        if path is not None:
            key = "output.folder" if spec.latency.table is None else "latency.table"
            probe_writable(path.parent, key)
        _require_unmet_limit(prunable, spec)
        watch(Stage(f"measuring the latency of the model's operators with {spec.runtime.probe}"))
        table = measure_table(
            prunable,
            spec.usable_runtime,
            progress=lambda done, total: watch(Counted("timing candidates", done, total)),
        )
        if path is not None:
            table.save(path)
    else:
        watch(Stage(f"using the latencies in {path}"))
    found = table.calibration
    watch(
        Stage(
            f"latency table: dense model {table.dense_ms:.3g} ms, predictions err by {found.error:.1%} "
            f"on held-out candidates ({found.candidates} timed in {found.seconds:.0f} s)"
        )
    )
    return table


def table_path(spec: RunSpec) -> Path | None:
    """Return the file of latency.table, or else a file in the output folder, which the next run finds."""
    named, folder = spec.latency, spec.output.folder
    if named.table is not None:
        return Path(named.table)
    return (
        None if folder is None else Path(folder) / f"latency-{file_name_of(named.probe)}-{named.batch}.json"
    )


def _read_table(path: Path, prunable: Prunable, spec: RunSpec) -> LatencyTable | None:
    """Read a table. Return None if it belongs to another model, setting or device.

    Raises:
        LatencyError: it does, and latency.table names the file.
    """
    try:
        table = load_table(path)
        table.require(prunable, spec.usable_runtime)
    except LatencyError:
        if spec.latency.table is not None:
            raise
        return None
    return table


def _require_unmet_limit(prunable: Prunable, spec: RunSpec) -> None:
    """Time the dense model, to refuse a limit in ms that it meets already before the longer measurements.

    A limit that is a share is below the dense model's own time by definition.

    Raises:
        BudgetError: the dense model meets the limit.
    """
    requested = spec.budget.latency
    if requested is None or is_share(requested):
        return
    with prepare(prunable.part, prunable.example_inputs, spec.usable_runtime) as timed:
        timings = time_interleaved({"dense": timed}, limit_seconds=_DENSE_SECONDS)
    dense = Cost(macs=0, params=0, latency_ms=timings.measurements["dense"].median_ms)
    resolve_budget(BudgetSettings(latency=requested), dense, runtime=spec.runtime)


def stored_table(study: SearchStudy) -> LatencyTable | None:
    """Return the latency table with which a study began, also on another machine.

    Raises:
        StudyError: the table is damaged.
    """
    values = study.facts.latency
    try:
        return None if values is None else table_of_json(values)
    except LatencyError as error:
        raise damaged(study.name, f"chosen.latency: {error}") from error
