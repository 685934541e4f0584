"""The description of a search space, from a file of search_spaces/: groups, ratios, steps and ties.

spec = load_spec("search_spaces/resnet20.toml")
spec = dataclasses.replace(spec, divisor=8)
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from autoprune.config.settings import MOST
from autoprune.errors import ConfigError, shown_value, unknown
from autoprune.support.toml import read_toml


@dataclass(frozen=True)
class Tie:
    """Groups that share one keep ratio, and so one variable called `name`."""

    name: str
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Override:
    """Other values for the groups that match. None keeps the value of the space. The last match wins."""

    groups: tuple[str, ...]
    low: float | None = None
    high: float | None = None
    divisor: int | None = None
    floor: int | None = None


@dataclass(frozen=True)
class Bounds:
    """The ratios, divisor and floor of one group."""

    low: float
    high: float
    divisor: int
    floor: int


@dataclass(frozen=True)
class SpaceSpec:
    """Which groups are searched and which widths they may take.

    Attributes:
        low: smallest keep ratio.
        high: largest keep ratio.
        divisor: every tensor dimension that is narrowed becomes a multiple of it. None leaves it open: 1,
            unless a search measures it.
        floor: fewest channels of a group.
        ties: groups that share one ratio. A group in no tie has its own.
        skip: groups that stay full, as patterns over group names like those of the shell ("layer1.*").
        overrides: other values for some groups.
    """

    low: float = 0.1
    high: float = 1.0
    divisor: int | None = None
    floor: int = 1
    ties: tuple[Tie, ...] = ()
    skip: tuple[str, ...] = ()
    overrides: tuple[Override, ...] = ()

    def __post_init__(self) -> None:
        parts: list[tuple[str, SpaceSpec | Override]] = [("space", self)]
        parts += [("space.override", override) for override in self.overrides]
        for where, part in parts:
            low = self.low if part.low is None else part.low
            high = self.high if part.high is None else part.high
            if not 0 < low <= high <= 1:
                raise ConfigError(
                    f"{where}: low {shown_value(low)} and high {shown_value(high)}, expected "
                    "0 < low <= high <= 1."
                )
            for key in ("divisor", "floor"):
                value = getattr(part, key)
                if value is not None and not 1 <= value <= MOST:
                    raise ConfigError(
                        f"{where}.{key}: got {shown_value(value)}, expected an integer >= 1 and <= {MOST:,}."
                    )

    def resolved(self, group: str) -> Bounds:
        """Return the ratios, divisor and floor that hold for one group.

        Raises:
            ConfigError: the overrides that match it leave no ratio.
        """
        values: dict[str, Any] = {
            "low": self.low,
            "high": self.high,
            "divisor": self.divisor or 1,
            "floor": self.floor,
        }
        for override in self.overrides:
            if matches(group, override.groups):
                values |= {key: value for key in values if (value := getattr(override, key)) is not None}
        if values["low"] > values["high"]:
            raise ConfigError(
                f"space.override: those that match {group} give low {values['low']} and high "
                f"{values['high']}, expected low <= high."
            )
        return Bounds(**values)


def tie_stages(spec: SpaceSpec, stages: Mapping[tuple[int, ...], Sequence[str]]) -> SpaceSpec:
    """Return a space in which the groups of each stage share one keep ratio.

    Groups that are skipped, or that a tie of the space names, are left as they are.

    Args:
        spec: the space.
        stages: {map size: groups of that size}, as `autoprune.graph.writers.map_stages` returns them.

    Reference: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, section 3.2.
    """
    settled = [*spec.skip, *(pattern for tie in spec.ties for pattern in tie.groups)]
    ties = []
    for size, names in stages.items():
        free = tuple(name for name in names if not matches(name, settled))
        if len(free) > 1:
            ties.append(Tie(f"stage {'x'.join(map(str, size)) or 'of vectors'}", free))
    return replace(spec, ties=(*spec.ties, *ties))


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Return whether a group's name matches one of the shell patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def load_spec(path: str | Path) -> SpaceSpec:
    """Read a search space from TOML.

    Raises:
        ConfigError: the file is missing or is not TOML, a key is unknown, or a value is wrong.
    """
    try:
        values = read_toml(path, "a search space")
    except FileNotFoundError:
        raise ConfigError(f"{path}: cannot be read as a search space (no such file).") from None
    tables = {"tie": Tie, "override": Override}
    plain = {spec.name for spec in fields(SpaceSpec)} - {"ties", "overrides"}
    _refuse_unknown(str(path), values, plain | tables.keys())
    parts: dict[str, tuple[Any, ...]] = {}
    for table, kind in tables.items():
        entries = values.get(table, [])
        if not isinstance(entries, list):
            raise ConfigError(f"{path}: {table}: expected a list of tables [[{table}]].")
        parts[table] = tuple(_read_entry(f"{path}: {table}", kind, entry) for entry in entries)
    top = _checked(str(path), {key: value for key, value in values.items() if key in plain})
    return SpaceSpec(**top, ties=parts["tie"], overrides=parts["override"])


def _read_entry(where: str, kind: type[Tie] | type[Override], entry: Mapping[str, Any]) -> Tie | Override:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where}: got {shown_value(entry)}, expected a table of keys.")
    _refuse_unknown(where, entry, {spec.name for spec in fields(kind)})
    required = ("name", "groups") if kind is Tie else ("groups",)
    for key in required:
        if key not in entry:
            raise ConfigError(f"{where}: the key {key} is missing.")
    if entry["groups"] == []:
        raise ConfigError(f"{where}: groups is empty, expected the names of at least one group.")
    return kind(**_checked(where, entry))


def _refuse_unknown(where: str, values: Mapping[str, Any], known: set[str]) -> None:
    for key in values:
        if key not in known:
            raise ConfigError(unknown(where, key, sorted(known), kind="key"))


def _checked(where: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Check the kinds of plain values, and turn lists into tuples."""
    kinds: dict[str, tuple[type, ...]] = {
        "low": (float, int),
        "high": (float, int),
        "divisor": (int,),
        "floor": (int,),
        "name": (str,),
        "groups": (list,),
        "skip": (list,),
    }
    checked: dict[str, Any] = {}
    if values.get("divisor") == "auto":
        raise ConfigError(
            f'{where}: divisor = "auto" is no property of a space: write search.divisor = "auto" in the '
            "run's config."
        )
    for key, value in values.items():
        texts = not isinstance(value, list) or all(isinstance(item, str) for item in value)
        if isinstance(value, bool) or not isinstance(value, kinds[key]) or not texts:
            expected = "a list of strings" if kinds[key] == (list,) else kinds[key][0].__name__
            raise ConfigError(f"{where}: {key}: got {shown_value(value)}, expected {expected}.")
        checked[key] = tuple(value) if isinstance(value, list) else value
    return checked
