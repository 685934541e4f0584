"""The configuration of a run: its settings, and how they are read from TOML, mappings and `--set`.

Example:
    config = load_config("digits", overrides=["search.trials=8"])     # a RunConfig
"""

from __future__ import annotations

from autoprune.config._loading import load_config
from autoprune.config._parsing import parse_override, parse_settings, set_key
from autoprune.config._presets import Preset, presets
from autoprune.config._profiles import Profile, find_profile, profiles

__all__ = [
    "Preset",
    "Profile",
    "find_profile",
    "load_config",
    "parse_override",
    "parse_settings",
    "presets",
    "profiles",
    "set_key",
]
