"""The settings of a run and what they stand for: each is parsed once, when it is first read.

spec = settle(load_config("run.toml"))       # a RunSpec
spec.search.trials                           # a plain setting
spec.rungs, spec.objectives, spec.device     # what settings stand for
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
from autoprune.config.rungs import uses_repair, uses_supernet
from autoprune.config.settings import RunConfig
from autoprune.cost import LATENCY
from autoprune.engines import Workers, find_engine
from autoprune.errors import ConfigError, shown_url, unknown
from autoprune.execution import Setting, resolve_device
from autoprune.latency import LatencySetting
from autoprune.latency.probes import check_probe
from autoprune.latency.timing import check_device, check_threads
from autoprune.run._objectives import objective_costs
from autoprune.run._rungs import parse_rungs
from autoprune.run._schedules import schedule_of
from autoprune.samplers import EvolutionRates
from autoprune.score import Rung
from autoprune.space import SpaceSpec, load_spec
from autoprune.support.dtypes import DTYPES
from autoprune.train import Schedule, Task, make_task

ConfigSource = RunConfig | str | Path | Mapping[str, Any]
"""A config, a file or an embedded config's name that it is read from, or its sections."""

AUTO: Final = "auto"
"""The search.divisor, and the search.setting, that is measured."""


@dataclass(frozen=True)
class RunSpec(RunConfig):
    """The settings of one run, with what they stand for.

    A property raises a ConfigError if the setting that it reads cannot be used. Verbs read those that they
    need in the order in which mistakes are reported.
    """

    @classmethod
    def of(cls, config: ConfigSource) -> RunSpec:
        """Return the settings of a config as they are; `settle` fills in names and paths as well."""
        if not isinstance(config, RunConfig):
            config = load_config(config)
        return config if isinstance(config, cls) else cls(**vars(config))

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to a worker without what was parsed: functions of the user's are imported there."""
        return type(self), tuple(getattr(self, section.name) for section in dataclasses.fields(self))

    @cached_property
    def objectives(self) -> tuple[str, ...]:
        """The costs that are minimised beside the score."""
        return objective_costs(self.search)

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
        """The setting that search.setting names; None if it is to be measured."""
        if self.search.setting == AUTO:
            return None
        return named_setting(self.search.setting, self.device)

    @cached_property
    def loss_and_metric(self) -> Task:
        """The loss and the metric that [task] names."""
        return make_task(self.task.loss, self.task.metric)

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

    @property
    def is_parallel(self) -> bool:
        """Whether the engine runs several trials at once."""
        return find_engine(self.search.engine).parallel

    @cached_property
    def workers(self) -> Workers:
        """How many trials run at once, and what each of them may use."""
        search = self.search
        return Workers(search.workers, search.cpus_per_trial, search.ray.gpus_per_trial, search.ray.address)

    @cached_property
    def evolution_rates(self) -> EvolutionRates:
        """The section [search.evolution] as the sampler takes it."""
        return EvolutionRates(**dataclasses.asdict(self.search.evolution))

    @cached_property
    def runtime(self) -> LatencySetting:
        """The runtime of [latency], whether it can be used here or not."""
        names = [field.name for field in dataclasses.fields(LatencySetting)]
        return LatencySetting(**{name: getattr(self.latency, name) for name in names})

    @cached_property
    def usable_runtime(self) -> LatencySetting:
        """The same, once probe, device and threads are seen to be here."""
        check_probe(self.runtime)
        if self.runtime.command is None:  # a command's device is its own, and so are its cores
            check_device(self.runtime)
            check_threads(self.runtime)
        return self.runtime

    @cached_property
    def limits_latency(self) -> bool:
        """Whether the latency is limited or minimised."""
        return self.budget.latency is not None or LATENCY in self.objectives

    @cached_property
    def _space_file(self) -> SpaceSpec:
        return SpaceSpec() if self.search.space is None else load_spec(self.search.space)

    @cached_property
    def measures_divisor(self) -> bool:
        """Whether the divisor is to be measured: it is "auto", or left open although latency counts.

        At widths off a runtime's steps candidates take longer than the space knows when it fills a budget.
        """
        if self.search.divisor is not None or not self.limits_latency:
            return self.search.divisor == AUTO
        return self._space_file.divisor is None

    @cached_property
    def space(self) -> SpaceSpec:
        """The search space's file, if one is named, with the keys of [search] on top.

        A divisor that is to be measured is left open.
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
        """Return the same with other settings in [search]."""
        return dataclasses.replace(self, search=dataclasses.replace(self.search, **settings))

    def without_password(self) -> RunSpec:
        """Return the same as it may be written or sent to workers: a storage's password is no part of it."""
        storage = self.search.storage
        return self if storage is None else self.with_search(storage=shown_url(storage))

    def without_names(self) -> RunSpec:
        """Return the same without the names that the caller's own model and data stand for.

        A resume must not load those.
        """
        model = dataclasses.replace(self.model, name=None, factory=None, checkpoint=None, weights=None)
        return dataclasses.replace(
            self, model=model, data=dataclasses.replace(self.data, name=None, loaders=None)
        )


def named_setting(label: str, device: str) -> Setting:
    """Return the setting with a label such as "float32 contiguous" or "bfloat16 channels_last".

    Raises:
        ConfigError: there is none of that label.
    """
    threads = torch.get_num_threads()
    settings = [Setting(device, dtype, last, threads) for dtype in DTYPES for last in (False, True)]
    found = {setting.label: setting for setting in settings}
    if label not in found:
        raise ConfigError(unknown("search.setting", label, [AUTO, *found]))
    return found[label]
