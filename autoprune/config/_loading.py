"""Reads a run's configuration: a TOML file or an embedded default, then `--set section.key=value` on top.

Example:
    config = load_config("digits", overrides=["search.trials=8", "budget.flops=25%"])
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from autoprune.config._parsing import parse_override, parse_settings, set_key, spell_out
from autoprune.config._presets import fill_preset
from autoprune.config._profiles import fill_profile, with_profile
from autoprune.config.settings import RunConfig
from autoprune.errors import ConfigError, suggest
from autoprune.support.toml import parse_toml, read_toml
from autoprune.support.userfunction import path_of


def embedded_configs() -> tuple[str, ...]:
    """Return the names of the configs that ship inside the package."""
    entries = resources.files("autoprune.config.defaults").iterdir()
    return tuple(
        sorted(entry.name.removesuffix(".toml") for entry in entries if entry.name.endswith(".toml"))
    )


def load_config(
    source: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), profile: str | None = None
) -> RunConfig:
    """Read and check a configuration.

    The profile that search.profile names fills the keys that the config leaves out, and then the preset that
    flow.method names.

    Args:
        source: path of a TOML file, the name of an embedded config ("digits"), or a mapping of sections. In a
            mapping, functions, classes and objects may stand for their names.
        overrides: "section.key=value" strings. The value is TOML, and a bare word is a string. If a key
            occurs twice, the later value is used.
        profile: name of a profile whose keys replace those of the source, but not those of `overrides`.

    Returns:
        The settings, with defaults for all keys that are left out.

    Raises:
        ConfigError: the file is missing or no TOML, a key is unknown, or a value has the wrong type.

    Example:
        config = autoprune.load_config("digits", ["search.trials=8"])
        config.search.trials  # 8
    """
    if isinstance(source, Mapping):
        where, values = "config", _as_in_toml(source)
    else:
        where = str(source)
        values = _read_toml(where)
    values = spell_out(values)
    if profile is not None:
        values = with_profile(values, profile)
    for override in overrides:
        set_key(values, *parse_override(override))
    values = fill_preset(fill_profile(values))
    return parse_settings(values, where=where if not overrides else f"{where} with --set")


def _as_in_toml(value: Any) -> Any:
    """Return a value of a mapping with names for functions, classes, objects and paths, at any depth."""
    if isinstance(value, Mapping):
        return {key: _as_in_toml(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_in_toml(each) for each in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    is_object = callable(value) or dataclasses.is_dataclass(value) or hasattr(value, "compute")
    return path_of(value) if is_object else value


def _read_toml(source: str) -> dict[str, Any]:
    names = embedded_configs()
    if source in names and not Path(source).is_file():
        return parse_toml(
            resources.files("autoprune.config.defaults").joinpath(f"{source}.toml").read_text("utf-8")
        )
    try:
        return read_toml(source, "a config file")
    except FileNotFoundError:
        hint = suggest(source, names) or f" Embedded configs: {', '.join(names)}."
        raise ConfigError(f"{source}: no such config file.{hint}") from None
