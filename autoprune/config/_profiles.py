"""Profiles of a search: TOML files that decide how long it takes.

A profile has a section [profile] with `about`, and the sections of a config.

Example:
    profiles()["thorough"].sections["search"]                         # {"trials": 200}
    fill_profile({"search": {"profile": "thorough", "trials": 90}})   # the other keys of the profile as well
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from autoprune.config._presets import filled
from autoprune.errors import ConfigError, unknown
from autoprune.support.toml import parse_toml


@dataclass(frozen=True)
class Profile:
    """The length of a search as settings.

    Attributes:
        name: the value of search.profile.
        about: one line about it.
        is_trial_run: whether it only finds faults, so that its figures mean nothing.
        sections: the sections of a config.
    """

    name: str
    about: str
    is_trial_run: bool
    sections: Mapping[str, Any]


@functools.cache
def profiles() -> dict[str, Profile]:
    """Return {name: profile} of all files in this package, from the shortest search to the longest."""
    found = {}
    for entry in resources.files("autoprune.config.profiles").iterdir():
        if entry.name.endswith(".toml"):
            sections = parse_toml(entry.read_text("utf-8"))
            head = sections.pop("profile")
            name = entry.name.removesuffix(".toml")
            found[name] = Profile(name, head["about"], head.get("is_trial_run", False), sections)
    return dict(sorted(found.items(), key=lambda item: item[1].sections["search"]["trials"]))


def find_profile(name: str, where: str = "search.profile") -> Profile:
    """Return a profile by its name.

    Raises:
        ConfigError: there is no such profile. The message suggests the nearest one.
    """
    if name not in profiles():
        raise ConfigError(unknown(where, name, profiles(), kind="profile"))
    return profiles()[name]


def fill_profile(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return sections, filled up with the keys of the profile that search.profile names."""
    search = values.get("search")
    name = search.get("profile") if isinstance(search, Mapping) else None
    if not isinstance(name, str):  # a wrong type is refused later
        return dict(values)
    return filled(values, find_profile(name).sections)


def with_profile(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return sections in which the keys of a profile replace those that the sections have."""
    profile = find_profile(name, "--profile")
    return filled({**profile.sections, "search": {**profile.sections["search"], "profile": name}}, values)
