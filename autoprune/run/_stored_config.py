"""The settings that a study holds, the few of them that may change later, and the setting of its trials.

spec = change_spec(stored_spec(study), ["search.trials=100"])
setting = stored_setting(study)
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

from autoprune.config import parse_override, parse_settings, set_key
from autoprune.criteria import Importance
from autoprune.engines import find_engine
from autoprune.errors import ConfigError, StudyError, abridged, reason_of
from autoprune.execution import Setting, fit_to_machine, resolve_device
from autoprune.graph import Prunable
from autoprune.run._paths import settle
from autoprune.run._ranking import decode_ranking
from autoprune.run._spec import RunSpec
from autoprune.study import SearchStudy, damaged
from autoprune.support.dtypes import DTYPES
from autoprune.support.schema import read_as
from autoprune.support.threads import cpu_threads

_MOST_THREADS = 2**14

CHANGEABLE = (
    "search.trials",
    "search.engine",
    "search.workers",
    "search.cpus_per_trial",
    "search.ray.address",
    "search.ray.gpus_per_trial",
    "search.pruner",
    "search.space",
    "model.checkpoint",
    "data.folder",
    "data.workers",
    "output.folder",
)
"""Keys that may change while a search goes on, beside [finetune]; others would make it another search."""


def stored_spec(study: SearchStudy) -> RunSpec:
    """Read the settings that a study was made with, without the password that earlier versions kept in it.

    Raises:
        StudyError: it was written by another version, and cannot be read by this one.
    """
    try:
        return RunSpec.of(parse_settings(study.config, where=study.name)).without_password()
    except ConfigError as error:
        raise StudyError(f"{study.name}: its stored config cannot be read by this version: {error}") from None


def stored_setting(study: SearchStudy) -> Setting:
    """Return the setting of all trials of a study, as it was chosen at its start, fit to this machine.

    Raises:
        StudyError: their device is not here; every trial would fail.
    """
    setting = read_setting(study.facts.setting, where=f"{study.name}: its header is damaged: setting")
    try:
        resolve_device(setting.device)
    except ConfigError:
        raise StudyError(
            f"{study.name}: its trials run on {setting.device}, which is not here; resume where it is."
        ) from None
    return fit_to_machine(setting)


def read_setting(values: Any, *, where: str) -> Setting:
    """Read a setting from JSON.

    Args:
        values: as `Setting.facts` gave them.
        where: their file or study, which opens the message.

    Raises:
        StudyError: they are no setting.
    """
    advice = "restore it from a copy, or begin again without it."
    setting = read_as(Setting, values, where=where, error=StudyError, advice=advice)
    missing = sorted(setting.facts.keys() - values.keys())  # whatever fills them in is another setting
    if missing:
        raise StudyError(f"{where}: {missing[0]} is missing; {advice}")
    if setting.dtype not in DTYPES or not 1 <= setting.threads <= _MOST_THREADS:
        raise StudyError(
            f"{where}: got dtype {abridged(setting.dtype)} and {abridged(setting.threads)} threads, expected "
            f"one of {', '.join(DTYPES)} and 1 to {_MOST_THREADS} threads; {advice}"
        )
    return setting


def stored_ranking(study: SearchStudy, prunable: Prunable) -> Importance:
    """Return the importance of all channels, as it was measured when a study was made.

    Raises:
        StudyError: it is damaged, or is not of this model's groups.
    """
    try:
        ranking = decode_ranking(study.facts.ranking)
    except ValueError as error:
        raise damaged(study.name, f"chosen.ranking: {reason_of(error)}") from error
    for group in prunable.searchable:
        if len(ranking.get(group.name, ())) != group.width:
            raise damaged(study.name, f"chosen.ranking has no order of the {group.width} of {group.name}")
    return ranking


def threads_of(engine: str, setting: Setting) -> contextlib.AbstractContextManager[None]:
    """Return the context in which this process has the threads of a trial, if it runs the trials itself.

    If workers run them, each with its share of the threads, this process keeps all of its own.
    """
    return contextlib.nullcontext() if find_engine(engine).parallel else cpu_threads(setting.threads)


def change_spec(spec: RunSpec, overrides: Sequence[str]) -> RunSpec:
    """Apply "section.key=value" strings to the settings of a study.

    Raises:
        ConfigError: a key that may not change, or a wrong value.
    """
    values = dataclasses.asdict(spec)
    for override in overrides:
        path, value = parse_override(override)
        if not path.startswith("finetune.") and path not in CHANGEABLE:
            raise ConfigError(
                f"--set {path}: not a key that may change in a study; begin another search. "
                f"Those that may: {', '.join(CHANGEABLE)}, finetune.*"
            )
        set_key(values, path, value)
    return settle(parse_settings(values, where="config with --set"), named=False)
