"""What can be refused before anything is loaded: names, folders, a study that is there already.

Before: a settled config; after: `search`, which then loads, traces and, last of all, makes the study.

    check_names(config); check_places(config); check_engine_runs(config); check_study_is_new(config)
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from autoprune.config.settings import EvolutionSettings, LatencySettings, RunConfig, SearchSettings
from autoprune.criteria import find_criterion
from autoprune.engines import PRUNERS, Workers, check_engine, find_pruner
from autoprune.errors import ConfigError, StudyError, shown_url
from autoprune.execution import resolve_device
from autoprune.run._budget_amounts import check_amounts
from autoprune.run._latency import latency_setting
from autoprune.run._objectives import objective_costs
from autoprune.run._paths import probe_writable
from autoprune.run._problem import asks_for_latency, measures_divisor, space_spec
from autoprune.run._scoring import parse_rungs
from autoprune.run._statistics import needed_statistics
from autoprune.run._train import AUTO, named_setting, schedule_of, trained_path
from autoprune.run._warm_starts import find_warm_start
from autoprune.samplers import EvolutionRates, check_sampler
from autoprune.study import file_of, is_in_memory, study_command, study_state
from autoprune.support.rows import quoted
from autoprune.train import make_task


def check_names(config: RunConfig, *, measured: bool = False) -> None:
    """Refuse names that no table has, and numbers that no schedule takes; `check_engine_runs` says the rest.

    Args:
        config: settled.
        measured: whether a study holds the latencies that are needed: probe and device may then be missing.

    Raises:
        ConfigError: the first that is wrong, with the nearest known name.
    """
    check_search(config)
    search = config.search
    device = resolve_device(search.device)
    if search.setting != AUTO:
        named_setting(search.setting, device)
    make_task(config.task.loss, config.task.metric)
    check_amounts(config.budget, required=not objective_costs(search))
    parse_rungs(config.score)
    _check_latency(config, measured)
    schedule_of(config.train)
    schedule_of(config.score.supernet)
    if config.finetune.epochs:
        schedule_of(config.finetune)


def check_search(config: RunConfig) -> None:
    """Refuse names in [search] that there are not, or that do not go together, and rates that breed nothing.

    Raises:
        ConfigError: the first that is wrong, with the nearest known name.
    """
    search = config.search
    costs = objective_costs(search)
    check_sampler(search.sampler, 1 + len(costs), rates_of(search.evolution), search.trials)
    needed_statistics(search.sampler)
    pruner = find_pruner(search.pruner)
    find_criterion(search.criterion)
    if costs and pruner.prunes and search.pruner != SearchSettings().pruner:
        none = quoted(name for name, spec in PRUNERS.items() if not spec.prunes)
        raise ConfigError(
            f'search.pruner: "{search.pruner}" judges by the score alone, and search.objectives names '
            f"{1 + len(costs)}: every trial climbs all rungs then. Set {none}, or leave it out."
        )
    for name in search.warm_starts:
        find_warm_start(name)


def _check_latency(config: RunConfig, measured: bool) -> None:
    """Refuse a space that cannot be, and a runtime that cannot be used where it is to be measured."""
    is_measured = measures_divisor(config)
    is_set = config.latency != LatencySettings()
    if not measured and (is_set or is_measured or asks_for_latency(config)):
        latency_setting(config.latency)
    search = dataclasses.replace(config.search, divisor=None if is_measured else config.search.divisor)
    space_spec(dataclasses.replace(config, search=search))


def rates_of(settings: EvolutionSettings) -> EvolutionRates:
    """Turn the [search.evolution] section into what the sampler takes."""
    return EvolutionRates(**dataclasses.asdict(settings))


def workers_of(search: SearchSettings) -> Workers:
    """Return the workers that [search] asks for.

    Raises:
        ConfigError: a share that cannot be.
    """
    return Workers(search.workers, search.cpus_per_trial, search.ray.gpus_per_trial, search.ray.address)


def check_engine_runs(config: RunConfig) -> None:
    """Refuse an engine that lacks what it needs: a package, a cluster that answers, shares of the device.

    Raises:
        ConfigError: it cannot run here.
    """
    check_engine(config.search.engine, workers_of(config.search), resolve_device(config.search.device))


def check_places(config: RunConfig, opened: str | None = None) -> None:
    """Refuse an output folder, or a folder of the storage, that cannot be written; nothing is made.

    Args:
        config: settled.
        opened: the URL of the storage in which the study was found; it holds what was measured, too.

    Raises:
        ConfigError: it cannot be made or written, or a checkpoint that is to be trained has another format's
            name.
    """
    storage = opened or str(config.search.storage)
    probe_writable(str(config.output.folder), "output.folder")
    file = file_of(storage)
    if file is not None:
        if file.is_dir():
            raise ConfigError(f"search.storage: {file} is a folder; name a file in it.")
        probe_writable(file.parent, "search.storage")
    if opened is None and config.latency.table is not None:
        probe_writable(Path(config.latency.table).parent, "latency.table")
    checkpoint = config.model.checkpoint
    is_trained = opened is None and config.train.when_missing
    if is_trained and checkpoint is not None and not Path(checkpoint).exists():
        probe_writable(trained_path(checkpoint).parent, "model.checkpoint")


def check_study_is_new(config: RunConfig) -> None:
    """Refuse to begin a search under a name that its storage has already.

    Raises:
        StudyError: it is taken, or the storage cannot be used.
    """
    url, name = str(config.search.storage), str(config.search.study)
    state = _state(config)
    if state == "foreign":
        raise StudyError(
            f"{name}: {shown_url(url)} holds a study of that name that this version of autoprune did not "
            "make; choose another search.study or search.storage."
        )
    if state == "ours":
        raise StudyError(
            f"{name}: a study of that name is in {shown_url(url)} already; go on with "
            f"`{study_command('resume', name, url)}`, or choose another search.study."
        )


def study_exists(config: RunConfig) -> bool:
    """Tell whether a settled config's storage holds its study, so that it can be resumed.

    Raises:
        StudyError: the storage cannot be used.
    """
    return _state(config) == "ours"


def _state(config: RunConfig) -> str:
    url = str(config.search.storage)
    file = file_of(url)
    if is_in_memory(url) or (file is not None and not file.exists()):
        return "none"
    return study_state(url, str(config.search.study))
