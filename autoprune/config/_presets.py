"""Presets of [flow]: TOML files that fill the keys that a config leaves out.

A preset has a section [preset] with `about`, `paper` and `needs`, and the sections of a config.

Example:
    presets()["network-slimming"].paper
    fill_preset({"flow": {"method": "network-slimming"}, "sparsify": {"strength": 1e-3}})
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from autoprune.errors import ConfigError, unknown
from autoprune.support.toml import parse_toml


@dataclass(frozen=True)
class Preset:
    """A founding method as settings.

    Attributes:
        name: the value of flow.method.
        about: the method in one line.
        paper: where it was published.
        needs: the properties that a model must have, as rows of `autoprune.flow.NEEDS`.
        sections: the sections of a config.
    """

    name: str
    about: str
    paper: str
    needs: tuple[str, ...]
    sections: Mapping[str, Any]


@functools.cache
def presets() -> dict[str, Preset]:
    """Return {name: preset} of all files in this package, in alphabetical order."""
    found = {}
    files = {entry.name: entry for entry in resources.files("autoprune.config.methods").iterdir()}
    for name in sorted(file.removesuffix(".toml") for file in files if file.endswith(".toml")):
        sections = parse_toml(files[f"{name}.toml"].read_text("utf-8"))
        head = sections.pop("preset")
        found[name] = Preset(name, head["about"], head["paper"], tuple(head["needs"]), sections)
    return found


def fill_preset(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return sections, filled up with the keys of the preset that flow.method names.

    Raises:
        ConfigError: there is no such preset. The message suggests the nearest one.
    """
    flow = values.get("flow")
    name = flow.get("method") if isinstance(flow, Mapping) else None
    if not isinstance(name, str):  # a wrong type is refused later
        return dict(values)
    if name not in presets():
        raise ConfigError(unknown("flow.method", name, presets(), kind="method"))
    return filled(values, presets()[name].sections)


def filled(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested sections with the keys of `defaults` that they leave out."""
    result = dict(values)
    for key, default in defaults.items():
        if key not in result:
            result[key] = default
        elif isinstance(default, Mapping) and isinstance(result[key], Mapping):
            result[key] = filled(result[key], default)
    return result
