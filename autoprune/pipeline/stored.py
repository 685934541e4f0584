"""The config that a study holds, the few keys of it that may change later, and the setting of its trials.

Before: an opened study; after: `resume`, `finetune`, `export` and `report`, which need no config file.

    config = change_config(stored_config(study), ["search.trials=100"])
    setting = stored_setting(study)
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

from autoprune.errors import ConfigError, StudyError
from autoprune.parsing import parse_overrides, parse_settings
from autoprune.pipeline.places import settle, without_password
from autoprune.precision import Setting, resolve_device
from autoprune.settings import RunConfig
from autoprune.study import SearchStudy
from autoprune.threads import cpu_threads

CHANGEABLE = (
    "search.trials",
    "search.engine",
    "search.workers",
    "search.cpus_per_trial",
    "search.gpus_per_trial",
    "search.address",
    "search.pruner",
    "search.space",
    "model.checkpoint",
    "data.folder",
    "data.workers",
    "output.folder",
)
"""Keys that may change while a search goes on, beside [finetune]; others would make it another search."""


def stored_config(study: SearchStudy) -> RunConfig:
    """Read the config that a study was made with, without the password that earlier versions kept in it.

    Raises:
        StudyError: it was written by another version, and cannot be read by this one.
    """
    try:
        return without_password(parse_settings(study.config, where=study.name))
    except ConfigError as error:
        raise StudyError(f"{study.name}: its stored config cannot be read by this version: {error}") from None


def stored_setting(study: SearchStudy) -> Setting:
    """Return the setting under which all trials of a study run, chosen as it was made.

    Raises:
        StudyError: their device is not here; every trial would fail.
    """
    setting = Setting(**study.chosen["setting"])
    try:
        resolve_device(setting.device)
    except ConfigError:
        raise StudyError(
            f"{study.name}: its trials run on {setting.device}, which is not here; resume where it is."
        ) from None
    return setting


def on_device_of(setting: Setting, config: RunConfig) -> RunConfig:
    """Return the config with the device that a study's trials run on, whatever "auto" would be here."""
    return dataclasses.replace(config, search=dataclasses.replace(config.search, device=setting.device))


def threads_of(engine: str, setting: Setting) -> contextlib.AbstractContextManager[None]:
    """Return the context in which this process has the threads of a trial, if it runs the trials itself.

    Where workers run them, each with its share of the threads, this process has all of its own.
    """
    return cpu_threads(setting.threads) if engine == "serial" else contextlib.nullcontext()


def change_config(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """Apply "section.key=value" strings to a stored config.

    Raises:
        ConfigError: a key that may not change, or a wrong value.
    """
    values = dataclasses.asdict(config)
    for section, key, value in parse_overrides(overrides):
        if section != "finetune" and f"{section}.{key}" not in CHANGEABLE:
            raise ConfigError(
                f"--set {section}.{key}: not a key that may change in a study; begin another search. "
                f"Those that may: {', '.join(CHANGEABLE)}, finetune.*"
            )
        values[section][key] = value
    return settle(parse_settings(values, where="config with --set"), named=False)
