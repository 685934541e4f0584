"""Reads the settings that a study stores, and changes those few that may change after its start.

Example:
    spec = change_spec(stored_spec(study), ["search.trials=100"])
    setting = stored_setting(study)      # number format, layout and threads of its trials
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from autoprune.config import parse_override, parse_settings, set_key
from autoprune.config.settings import OutputSettings, RunConfig
from autoprune.criteria import Importance, mixed
from autoprune.engines import find_engine
from autoprune.errors import ConfigError, StudyError, abridged, reason_of
from autoprune.execution import Setting, fit_to_machine, resolve_device
from autoprune.graph import Prunable
from autoprune.run._resolving.paths import settle
from autoprune.run._resolving.ranking import decode_ranking
from autoprune.run._resolving.spec import RunSpec
from autoprune.study import SearchStudy, TrialRecord, damaged, file_of, is_in_memory
from autoprune.support.dtypes import DTYPES
from autoprune.support.schema import read_as
from autoprune.support.threads import cpu_threads
from autoprune.support.userfunction import GivenObject

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
    "race.entrants",
    "race.learning_rates",
    "output.folder",
    "output.formats",
    "report.trackers",
)
"""Keys that may change during a search, in addition to [finetune]. Other keys would change its results."""


def stored_spec(study: SearchStudy) -> RunSpec:
    """Read the settings with which a study was created.

    Raises:
        StudyError: another version of autoprune wrote them, and this one cannot read them.
    """
    try:
        # Earlier versions held no race and one optimiser, and stored the password of the storage as well.
        config: dict[str, Any] = {"race": {"entrants": 1}, **study.config}
        if isinstance(config.get("score"), dict):
            config["score"] = {"optimizer": "sgd", **config["score"]}
        return RunSpec.of(parse_settings(config, where=study.name)).without_password()
    except ConfigError as error:
        raise StudyError(f"{study.name}: its stored config cannot be read by this version: {error}") from None


def stored_setting(study: SearchStudy) -> Setting:
    """Return the setting of all trials of a study, chosen at its start and adapted to this machine.

    Raises:
        StudyError: this machine lacks the device of the trials.
    """
    setting = read_setting(study.facts.setting, where=f"{study.name}: its header is damaged: setting")
    try:
        resolve_device(setting.device)
    except ConfigError:
        raise StudyError(
            f"{study.name}: its trials run on {setting.device}, which this machine lacks. Resume it on a "
            "machine that has it."
        ) from None
    return fit_to_machine(setting)


def read_setting(values: Any, *, where: str) -> Setting:
    """Read a setting from JSON.

    Args:
        values: the result of `Setting.facts`.
        where: the file or study that holds the values, which opens an error message.

    Raises:
        StudyError: the values are no setting.
    """
    advice = "Restore it from a copy, or begin again without it."
    setting = read_as(Setting, values, where=where, error=StudyError, advice=advice)
    missing = sorted(setting.facts.keys() - values.keys())  # defaults would make another setting of it
    if missing:
        raise StudyError(f"{where}: {missing[0]} is missing. {advice}")
    if setting.dtype not in DTYPES or not 1 <= setting.threads <= _MOST_THREADS:
        raise StudyError(
            f"{where}: got dtype {abridged(setting.dtype)} and {abridged(setting.threads)} threads, expected "
            f"one of {', '.join(DTYPES)} and 1 to {_MOST_THREADS} threads. {advice}"
        )
    return setting


def stored_ranking(study: SearchStudy, prunable: Prunable, record: TrialRecord | None) -> Importance:
    """Return the importance of all channels, which was measured before the study was created.

    Args:
        study: the study.
        prunable: the traced model.
        record: the trial whose criteria rank its groups, or None for the study's first criterion.

    Raises:
        StudyError: the ranking is damaged, or belongs to other channel groups.
    """
    ranking, *others = stored_rankings(study, prunable)
    named = dict(zip(study.facts.rankings, others, strict=True))
    return mixed(ranking, named, {} if record is None else record.criteria)


def stored_rankings(study: SearchStudy, prunable: Prunable) -> tuple[Importance, ...]:
    """Return the importance of all channels by each criterion of a study, the first criterion first.

    Raises:
        StudyError: a ranking is damaged, or belongs to other channel groups.
    """
    facts = study.facts
    texts = {"ranking": facts.ranking, **{f"rankings.{name}": each for name, each in facts.rankings.items()}}
    return tuple(_decoded(study, prunable, key, each) for key, each in texts.items())


def _decoded(study: SearchStudy, prunable: Prunable, key: str, texts: Mapping[str, str]) -> Importance:
    try:
        ranking = decode_ranking(texts)
    except ValueError as error:
        raise damaged(study.name, f"chosen.{key}: {reason_of(error)}") from error
    for group in prunable.searchable:
        if len(ranking.get(group.name, ())) != group.width:
            raise damaged(study.name, f"chosen.{key} has no order of the {group.width} of {group.name}")
    return ranking


def threads_of(engine: str, setting: Setting) -> contextlib.AbstractContextManager[None]:
    """Return a context that limits this process to the threads of a trial if it runs the trials itself.

    If workers run the trials, each with its own share of the threads, the context changes nothing.
    """
    return contextlib.nullcontext() if find_engine(engine).parallel else cpu_threads(setting.threads)


def derived_spec(study: SearchStudy, overrides: Sequence[str] = ()) -> RunSpec:
    """Return the settings of a new search: those of a study, in its setting, with any changes.

    The names of the study and of its output folder follow from the new settings. A database server stays the
    storage. A storage in a file gets its own file.

    Raises:
        ConfigError: an override has a wrong value.
        StudyError: the settings of the study cannot be read.
    """
    spec = stored_spec(study).without_rung_recipe()
    setting = read_setting(study.facts.setting, where=f"{study.name}: its header is damaged: setting")
    storage = None if file_of(study.url) is not None or is_in_memory(study.url) else study.url
    fresh = spec.with_search(study=None, storage=storage, setting=setting.label)
    values = dataclasses.asdict(replace(fresh, output=OutputSettings()))
    for override in overrides:
        set_key(values, *parse_override(override))
    return RunSpec.of(parse_settings(values, where="config with --set"))


def objects_of(spec: RunConfig) -> dict[str, dict[str, Any]] | None:
    """Return the sections and keys whose values carry objects of this Python session, or None without any."""
    sections = {
        section: {key: value for key, value in keys.items() if any(_objects_in(value))}
        for section, keys in dataclasses.asdict(spec).items()
    }
    return {section: keys for section, keys in sections.items() if keys} or None


def with_objects(spec: RunSpec, own: RunConfig | None) -> RunSpec:
    """Return stored settings with the objects that a caller has passed again.

    Args:
        spec: the settings, which have the names of such objects alone.
        own: a config of the caller. Its objects take the places of equal names under the same keys.
    """
    passed = None if own is None else objects_of(own)
    if not passed:
        return spec
    values = dataclasses.asdict(spec)
    for section, keys in passed.items():
        for key, value in keys.items():
            known = {str(each): each for each in _objects_in(value)}
            stored = values[section][key]
            several = isinstance(stored, (list, tuple))
            values[section][key] = [known.get(x, x) for x in stored] if several else known.get(stored, stored)
    return RunSpec.of(parse_settings(values))


def _objects_in(value: Any) -> list[GivenObject]:
    values = value if isinstance(value, (list, tuple)) else [value]
    return [each for each in values if isinstance(each, GivenObject)]


def change_spec(spec: RunSpec, overrides: Sequence[str]) -> RunSpec:
    """Apply "section.key=value" strings to the settings of a study.

    Raises:
        ConfigError: an override has a wrong value, or its key may not change.
    """
    values = dataclasses.asdict(spec)
    for override in overrides:
        path, value = parse_override(override)
        if not path.startswith("finetune.") and path not in CHANGEABLE:
            raise ConfigError(
                f"--set {path}: this key cannot change during a study. Begin another search. "
                f"Keys that can: {', '.join(CHANGEABLE)}, finetune.*"
            )
        set_key(values, path, value)
    return settle(parse_settings(values, where="config with --set"), named=False)
