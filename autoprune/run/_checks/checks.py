"""Checks that run before anything is loaded: names, paths, the engine, and whether the study is new.

Example:
    check_names(spec)
    check_paths(spec)
    check_study_is_new(spec)
    check_engine_runs(spec)
"""

from __future__ import annotations

from pathlib import Path

from autoprune.config.settings import LatencySettings, SearchSettings
from autoprune.criteria import find_criterion
from autoprune.engines import PRUNERS, check_engine, find_pruner
from autoprune.errors import ConfigError, StudyError, shown_url
from autoprune.run._measuring.heuristics import find_warm_start
from autoprune.run._measuring.statistics import needed_statistics
from autoprune.run._resolving.budget_amounts import check_amounts
from autoprune.run._resolving.paths import probe_writable
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._resolving.train import trained_path
from autoprune.samplers import check_sampler
from autoprune.study import file_of, is_in_memory, study_command, study_state
from autoprune.support.rows import quoted
from autoprune.trackers import check_trackers


def check_names(spec: RunSpec, *, measured: bool = False) -> None:
    """Check all names in the settings, except for the engine's, and the numbers of the schedules.

    Args:
        spec: the settings, with names and paths filled in by `settle`.
        measured: whether the study already holds the latencies. Probe and device may be missing then.

    Raises:
        ConfigError: a setting cannot be used. The message names the first one, and the nearest known name.
    """
    check_search(spec)
    check_trackers(spec.report.trackers)
    _ = spec.device, spec.named_setting, spec.loss_and_metric, spec.prepare
    check_amounts(spec.budget, required=not spec.moved_costs)
    _ = spec.rungs
    is_timed = spec.measures_divisor or spec.latency != LatencySettings() or spec.limits_latency
    if is_timed and not measured:
        _ = spec.usable_runtime
    _ = spec.space, spec.train_schedule, spec.supernet_schedule
    if spec.finetune.epochs:
        _ = spec.finetune_schedule


def check_search(spec: RunSpec) -> None:
    """Check the names in [search], whether they can be combined, and the rates of evolution.

    Raises:
        ConfigError: a setting cannot be used. The message names the first one, and the nearest known name.
    """
    search = spec.search
    costs = spec.objectives
    check_sampler(search.sampler, 1 + len(costs), spec.evolution_rates, search.trials)
    needed_statistics(search.sampler)
    pruner = find_pruner(search.pruner)
    for name in spec.search.criteria:
        find_criterion(name)
    if len(set(spec.search.criteria)) < len(spec.search.criteria):
        raise ConfigError(
            f"search.criterion: got {quoted(spec.search.criteria)}, expected each criterion once."
        )
    if len(spec.search.criteria) > 1 and spec.has_supernet:
        raise ConfigError(
            "search.criterion: got several, but the sub-models of a supernet are all cut by one. Name one "
            'criterion, or leave "supernet" out of score.rungs.'
        )
    if spec.moved_costs and pruner.prunes and search.pruner != SearchSettings().pruner:
        none = quoted(name for name, row in PRUNERS.items() if not row.prunes)
        reason = (
            f"search.objectives has {1 + len(costs)} entries"
            if costs
            else "budget.tolerance moves the budget"
        )
        raise ConfigError(
            f'search.pruner: "{search.pruner}" judges by the score alone, but {reason}, and then every trial '
            f"climbs all rungs. Set {none}, or leave it out."
        )
    for name in search.warm_starts:
        find_warm_start(name)


def check_engine_runs(spec: RunSpec) -> None:
    """Check that the engine has its package, a cluster that answers, and its shares of the device.

    Raises:
        ConfigError: the engine cannot run here.
    """
    check_engine(spec.search.engine, spec.workers, spec.device)


def check_paths(spec: RunSpec, opened: str | None = None) -> None:
    """Check that the output folder and all files that a run will write can be written. Create nothing.

    Args:
        spec: the settings, with names and paths filled in by `settle`.
        opened: URL of the storage of an existing study, which also holds the measurements.

    Raises:
        ConfigError: a folder cannot be made or written, or the name of a checkpoint to train does not end in
            .safetensors.
    """
    storage = opened or str(spec.search.storage)
    probe_writable(str(spec.output.folder), "output.folder")
    file = file_of(storage)
    if file is not None:
        if file.is_dir():
            raise ConfigError(f"search.storage: {file} is a folder. Name a file in it.")
        probe_writable(file.parent, "search.storage")
    if opened is None and spec.latency.table is not None:
        probe_writable(Path(spec.latency.table).parent, "latency.table")
    checkpoint = spec.model.checkpoint
    is_trained = opened is None and spec.train.when_missing
    if is_trained and checkpoint is not None and not Path(checkpoint).exists():
        probe_writable(trained_path(checkpoint).parent, "model.checkpoint")


def check_study_is_new(spec: RunSpec) -> None:
    """Check that the storage has no study of the search's name.

    Raises:
        StudyError: the name is taken, or the storage cannot be used.
    """
    url, name = str(spec.search.storage), str(spec.search.study)
    state = _state(spec)
    if state == "foreign":
        raise StudyError(
            f"{name}: {shown_url(url)} has a study of that name that this version of autoprune did not "
            "create. Choose another search.study or search.storage."
        )
    if state == "ours":
        raise StudyError(
            f"{name}: {shown_url(url)} has a study of that name already. Resume it with "
            f"`{study_command('resume', name, url)}`, or choose another search.study."
        )


def study_exists(spec: RunSpec) -> bool:
    """Return whether the storage holds the study that the settings name, so that it can be resumed.

    Args:
        spec: the settings, with names and paths filled in by `settle`.

    Raises:
        StudyError: the storage cannot be used.
    """
    return _state(spec) == "ours"


def _state(spec: RunSpec) -> str:
    url = str(spec.search.storage)
    file = file_of(url)
    if is_in_memory(url) or (file is not None and not file.exists()):
        return "none"
    return study_state(url, str(spec.search.study))
