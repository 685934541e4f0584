"""What is measured of the runtime under [latency] before a search: the divisor, and a table.

Before: settings and the dense model; after: the space is built from it, and the study keeps it.

    config, stairs = settle_divisor(config, dense, watch)
    tables = LatencyTables(config, watch)
    problem = pose(dense, config, tables)          # measures where the config limits or minimises the latency
    tables.to_json()                               # what the study keeps, and `stored_tables` reads
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from autoprune.config.settings import BudgetSettings, LatencySettings, RunConfig
from autoprune.errors import LatencyError
from autoprune.graph import Cost, Prunable
from autoprune.latency import LatencySetting, Stairs, heavy_blocks, measure_stairs, prepare, time_in_turn
from autoprune.latency.probes import check_probe
from autoprune.latency.table import LatencyPredictor, LatencyTable, load_table, measure_table, table_of_json
from autoprune.latency.timing import check_device, check_threads
from autoprune.run._budget_amounts import is_share, resolve_budget
from autoprune.run._dense import Dense
from autoprune.run._events import Counted, Stage, Watcher, silent
from autoprune.run._paths import plain, probe_writable
from autoprune.run._problem import measures_divisor, runtime_of
from autoprune.study import SearchStudy, damaged

_DENSE_SECONDS = 2.0
"""That the dense model is timed for at most before its table is measured."""


def latency_setting(settings: LatencySettings) -> LatencySetting:
    """Return the setting that the section asks for, after a look whether it can be used here at all.

    Raises:
        ConfigError: an unknown probe, a command that is missing, a device or more cores than there are.
    """
    setting = runtime_of(settings)
    check_probe(setting)
    if setting.command is None:  # a command's device is its own, and so are its cores
        check_device(setting)
        check_threads(setting)
    return setting


def settle_divisor(config: RunConfig, dense: Dense, watch: Watcher) -> tuple[RunConfig, Stairs | None]:
    """Measure the divisor where it is "auto", or where it is left open and latency is limited or minimised.

    The config that is returned has a number then.

    Raises:
        ConfigError: the runtime of [latency] cannot be used here.
        LatencyError: nothing of the model can be measured there.
    """
    if not measures_divisor(config):
        return config, None
    setting = latency_setting(config.latency)
    open_yet = "" if config.search.divisor is not None else "search.divisor is not given: "
    watch(Stage(f"{open_yet}measuring which multiples of channels {setting.probe} is fast at"))
    stairs = measure_stairs(
        heavy_blocks(dense.model, dense.example_inputs),
        setting,
        progress=lambda done, total: watch(Counted("preparing widths", done, total)),
    )
    watch(Stage(f"widths are multiples of {stairs.divisor}"))
    search = dataclasses.replace(config.search, divisor=stairs.divisor)
    return dataclasses.replace(config, search=search), stairs


class LatencyTables:
    """Finds what predicts the latency of a model's candidates; its table is read or measured once.

    Attributes:
        table: None until it was asked for.
    """

    def __init__(self, config: RunConfig, watch: Watcher = silent, table: LatencyTable | None = None) -> None:
        self.table = table
        self._config = config
        self._watch = watch

    def __call__(self, prunable: Prunable) -> LatencyPredictor:
        """Return the predictor for a traced model.

        Raises:
            BudgetError: the dense model keeps to budget.latency already.
            LatencyError: the file of latency.table belongs to another model, setting or device, or the model
                does not run there.
        """
        if self.table is None:
            self.table = self._find(prunable)
        return LatencyPredictor(self.table)

    def to_json(self) -> dict[str, Any] | None:
        """Return the table as the study keeps it; None where none was asked for."""
        return None if self.table is None else self.table.to_json()

    def _find(self, prunable: Prunable) -> LatencyTable:
        setting = latency_setting(self._config.latency)
        path = self._path()
        table = None if path is None or not path.exists() else self._read(path, prunable, setting)
        if table is None:
            if path is not None:
                key = "output.folder" if self._config.latency.table is None else "latency.table"
                probe_writable(path.parent, key)
            table = self._measure(prunable, setting)
            if path is not None:
                table.save(path)
        found = table.calibration
        self._watch(
            Stage(
                f"latency table: dense model {table.dense_ms:.3g} ms; predictions err by {found.error:.1%} "
                f"on candidates held out ({found.candidates} timed in {found.seconds:.0f} s)"
            )
        )
        return table

    def _path(self) -> Path | None:
        """Return the file that is named, or one in the output folder, which the next run finds."""
        named, folder = self._config.latency, self._config.output.folder
        if named.table is not None:
            return Path(named.table)
        return None if folder is None else Path(folder) / f"latency-{plain(named.probe)}-{named.batch}.json"

    def _read(self, path: Path, prunable: Prunable, setting: LatencySetting) -> LatencyTable | None:
        """Read a table; None where nobody named the file and it is of another model, setting or device."""
        try:
            table = load_table(path)
            table.require(prunable, setting)
        except LatencyError:
            if self._config.latency.table is not None:
                raise
            return None
        self._watch(Stage(f"the latencies in {path} are taken"))
        return table

    def _measure(self, prunable: Prunable, setting: LatencySetting) -> LatencyTable:
        self._refuse_what_is_met(prunable, setting)
        self._watch(Stage(f"measuring the latency of the model's operators with {setting.probe}"))
        return measure_table(
            prunable,
            setting,
            progress=lambda done, total: self._watch(Counted("timing candidates", done, total)),
        )

    def _refuse_what_is_met(self, prunable: Prunable, setting: LatencySetting) -> None:
        """Time the dense model, which may keep to the limit already, before minutes are spent on the rest.

        A share of its own time it cannot keep to, so that is not looked at.

        Raises:
            BudgetError: it does.
        """
        asked = self._config.budget.latency
        if asked is None or is_share(asked):
            return
        with prepare(prunable.model, prunable.example_inputs, setting) as timed:
            timings = time_in_turn({"dense": timed}, limit_seconds=_DENSE_SECONDS)
        dense = Cost(macs=0, params=0, latency_ms=timings.measurements["dense"].median_ms)
        resolve_budget(BudgetSettings(latency=asked), dense, runtime=setting)


def stored_tables(study: SearchStudy, config: RunConfig) -> LatencyTables:
    """Return the table that a study was made with, wherever it goes on.

    Raises:
        StudyError: it is damaged.
    """
    values = study.facts.latency
    try:
        return LatencyTables(config, table=None if values is None else table_of_json(values))
    except LatencyError as error:
        raise damaged(study.name, f"chosen.latency: {error}") from error
