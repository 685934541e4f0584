"""The settings of a run, with properties that parse them. Each setting is parsed once, at its first use.

Example:
    spec = settle(load_config("run.toml"))       # a RunSpec
    spec.search.trials                           # a plain setting
    spec.rungs, spec.objectives, spec.device     # parsed settings
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch

from autoprune.config import load_config
from autoprune.config.rungs import scores_the_export, uses_repair, uses_supernet
from autoprune.config.settings import RunConfig
from autoprune.cost import LATENCY
from autoprune.data import Prepare
from autoprune.engines import Workers, find_engine
from autoprune.errors import ConfigError, shown_url, unknown
from autoprune.execution import Setting, resolve_device
from autoprune.flow import schedule_of
from autoprune.latency import LatencySetting
from autoprune.latency.probes import check_probe
from autoprune.latency.timing import check_device, check_threads
from autoprune.run._resolving.objectives import objective_costs
from autoprune.run._resolving.rungs import parse_rungs
from autoprune.run._resolving.tolerance import Tolerance, tolerance_of
from autoprune.samplers import EvolutionRates
from autoprune.score import Rung
from autoprune.space import SpaceSpec, load_spec
from autoprune.support.dtypes import DTYPES
from autoprune.support.userfunction import load_function, path_of
from autoprune.training import OPTIMIZERS, Schedule, Task, make_task

RATE_DIVISOR = 2.5
"""Learning rate of the winner's finetune over that of the rungs, which are too short for all of it."""

ConfigSource = RunConfig | str | Path | Mapping[str, Any]
"""A config, the path of a TOML file, the name of an embedded config, or a mapping of sections."""

AUTO: Final = "auto"
"""The value of search.divisor and of search.setting that requests a measurement."""


@dataclass(frozen=True)
class RunSpec(RunConfig):
    """The settings of one run, with properties that parse and check them.

    A property raises a ConfigError if the setting that it reads cannot be used. The order in which a verb
    reads the properties is therefore the order in which mistakes are reported.
    """

    @classmethod
    def of(cls, config: ConfigSource) -> RunSpec:
        """Return the settings of a config unchanged. `settle` also fills in names and paths."""
        if not isinstance(config, RunConfig):
            config = load_config(config)
        return config if isinstance(config, cls) else cls(**vars(config))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the settings without the parsed values. A worker imports the user's functions itself."""
        return type(self), tuple(getattr(self, section.name) for section in dataclasses.fields(self))

    @cached_property
    def objectives(self) -> tuple[str, ...]:
        """The costs that are minimised in addition to the score."""
        return objective_costs(self.search)

    @cached_property
    def tolerance(self) -> Tolerance | None:
        """The tolerance of [budget], or None."""
        return tolerance_of(self.budget)

    @cached_property
    def moved_costs(self) -> tuple[str, ...]:
        """The costs whose budget differs between trials: those that are minimised, or that of the tolerance.

        Raises:
            ConfigError: there are both.
        """
        if self.tolerance is None:
            return self.objectives
        if self.objectives:
            raise ConfigError(
                "budget.tolerance: got several search.objectives as well. Leave out one of the two."
            )
        return (self.tolerance.key.cost,)

    @cached_property
    def rungs(self) -> tuple[Rung, ...]:
        """The rungs that a candidate climbs."""
        return parse_rungs(self.score)

    @cached_property
    def trains_candidates(self) -> bool:
        """Whether a rung finetunes."""
        return any(rung.steps is not None or rung.epochs is not None for rung in self.rungs)

    @cached_property
    def is_repaired(self) -> bool:
        """Whether candidates are repaired."""
        return uses_repair(self.score.rungs)

    @cached_property
    def has_supernet(self) -> bool:
        """Whether candidates are cut from a supernet."""
        return uses_supernet(self.score.rungs)

    @cached_property
    def device(self) -> str:
        """The device that trains and scores the trials."""
        return resolve_device(self.search.device)

    @cached_property
    def named_setting(self) -> Setting | None:
        """The setting that search.setting names, or None if the fastest has to be measured."""
        if self.search.setting == AUTO:
            return None
        return named_setting(self.search.setting, self.device)

    @cached_property
    def loss_and_metric(self) -> Task:
        """The loss and the metric that [task] names."""
        task = self.task
        return make_task(task.loss, task.metric, train_step=task.train_step, evaluate=task.evaluate)

    @cached_property
    def prepare(self) -> Prepare | None:
        """The function that splits a batch of the loaders, or None."""
        named = self.task.prepare
        return None if named is None else load_function(named, "task.prepare")

    @cached_property
    def train_schedule(self) -> Schedule:
        """The schedule of the dense model's training."""
        return schedule_of(self.train)

    @cached_property
    def supernet_schedule(self) -> Schedule:
        """The schedule of the supernet's training."""
        return schedule_of(self.score.supernet)

    @cached_property
    def finetune_schedule(self) -> Schedule:
        """The schedule of the winner's finetune, which must have epochs."""
        return schedule_of(self.finetune)

    @cached_property
    def rung_schedule(self) -> Schedule:
        """The schedule of the finetunes by which candidates are scored, of one step.

        By default they have the optimiser of the winner's finetune, and a lower learning rate.
        """
        score, finetune = self.score, self.finetune
        optimizer = score.optimizer or finetune.optimizer
        if optimizer not in OPTIMIZERS:
            key = "finetune.optimizer" if score.optimizer is None else "score.optimizer"
            raise ConfigError(unknown(key, optimizer, list(OPTIMIZERS)))
        rate = score.learning_rate or float(f"{finetune.learning_rate / RATE_DIVISOR:.6g}")
        return Schedule(steps=1, warmup=0.0, optimizer=optimizer, learning_rate=rate)

    @cached_property
    def has_race(self) -> bool:
        """Whether the best trials race after the search."""
        is_trained = self.finetune.epochs > 0 and not scores_the_export(self.score.rungs)
        return self.race.entrants > 1 and is_trained and not self.moved_costs

    @property
    def is_parallel(self) -> bool:
        """Whether the engine runs several trials at once."""
        return find_engine(self.search.engine).parallel

    @cached_property
    def workers(self) -> Workers:
        """The number of parallel trials, and the cores and GPUs of each."""
        search = self.search
        return Workers(search.workers, search.cpus_per_trial, search.ray.gpus_per_trial, search.ray.address)

    @cached_property
    def evolution_rates(self) -> EvolutionRates:
        """The section [search.evolution] in the form that the sampler expects."""
        return EvolutionRates(**dataclasses.asdict(self.search.evolution))

    @cached_property
    def runtime(self) -> LatencySetting:
        """The runtime that [latency] names. It may not be available on this machine."""
        names = [field.name for field in dataclasses.fields(LatencySetting)]
        return LatencySetting(**{name: getattr(self.latency, name) for name in names})

    @cached_property
    def usable_runtime(self) -> LatencySetting:
        """The same runtime, after a check that its probe, device and threads are available here."""
        check_probe(self.runtime)
        if self.runtime.command is None:  # a command may run on another device
            check_device(self.runtime)
            check_threads(self.runtime)
        return self.runtime

    @cached_property
    def limits_latency(self) -> bool:
        """Whether the latency is limited or minimised."""
        return self.budget.latency is not None or LATENCY in self.moved_costs

    @cached_property
    def _space_file(self) -> SpaceSpec:
        return SpaceSpec() if self.search.space is None else load_spec(self.search.space)

    @cached_property
    def measures_divisor(self) -> bool:
        """Whether the divisor has to be measured.

        It is measured if it is "auto". That is the default if latency is limited or minimised and the space's
        file has no divisor. Without one, candidates with widths between the steps of a runtime are slower
        than the space assumes.
        """
        if self.search.divisor is not None or not self.limits_latency:
            return self.search.divisor == AUTO
        return self._space_file.divisor is None

    @cached_property
    def space(self) -> SpaceSpec:
        """The search space from its file, if one is named, with the keys of [search] on top.

        The divisor is 1 until it is measured, unless a number is given.
        """
        search, file = self.search, self._space_file
        divisor = search.divisor if isinstance(search.divisor, int) else file.divisor or 1
        return dataclasses.replace(
            file,
            low=file.low if search.low is None else search.low,
            high=file.high if search.high is None else search.high,
            divisor=divisor,
        )

    @property
    def folder(self) -> Path:
        """The output folder."""
        return Path(str(self.output.folder))

    def with_search(self, **settings: Any) -> RunSpec:
        """Return a copy with other settings in [search]."""
        return dataclasses.replace(self, search=dataclasses.replace(self.search, **settings))

    def with_rung_recipe(self) -> RunSpec:
        """Return a copy that names the recipe of its rungs, for a study whose [finetune] may change later."""
        if not self.trains_candidates:
            return self
        rate, optimizer = self.rung_schedule.learning_rate, self.rung_schedule.optimizer
        return dataclasses.replace(
            self, score=dataclasses.replace(self.score, learning_rate=rate, optimizer=optimizer)
        )

    def without_rung_recipe(self) -> RunSpec:
        """Return a copy whose rungs follow [finetune], if their recipe is the one that follows from it."""
        score = dataclasses.replace(self.score, learning_rate=None, optimizer=None)
        free = dataclasses.replace(self, score=score)
        return free if free.rung_schedule == self.rung_schedule else self

    def with_learning_rate(self, learning_rate: float | None) -> RunSpec:
        """Return a copy with another learning rate in [finetune], or the same settings for None."""
        if learning_rate is None:
            return self
        return dataclasses.replace(
            self, finetune=dataclasses.replace(self.finetune, learning_rate=learning_rate)
        )

    def with_task(self, **functions: object) -> RunSpec:
        """Return a copy with functions, or their names, in [task]. None changes nothing."""
        named = {key: path_of(each) for key, each in functions.items() if each is not None}
        return dataclasses.replace(self, task=dataclasses.replace(self.task, **named)) if named else self

    def without_password(self) -> RunSpec:
        """Return a copy without the storage's password, which can be stored and sent to workers."""
        storage = self.search.storage
        return self if storage is None else self.with_search(storage=shown_url(storage))

    def without_names(self) -> RunSpec:
        """Return a copy that names neither model nor data, for callers that pass both.

        A resume would load a named model instead of the caller's.
        """
        model = dataclasses.replace(self.model, name=None, factory=None, weights=None)
        if self.model.name or self.model.factory:
            model = dataclasses.replace(model, checkpoint=None)
        return dataclasses.replace(
            self, model=model, data=dataclasses.replace(self.data, name=None, loaders=None)
        )


def named_setting(label: str, device: str) -> Setting:
    """Return the setting with a label such as "float32 contiguous" or "bfloat16 channels_last".

    Raises:
        ConfigError: no setting has that label.
    """
    threads = torch.get_num_threads()
    settings = [Setting(device, dtype, last, threads) for dtype in DTYPES for last in (False, True)]
    found = {setting.label: setting for setting in settings}
    if label not in found:
        raise ConfigError(unknown("search.setting", label, [AUTO, *found]))
    return found[label]
