"""Parses the settings of a run from sections of TOML or JSON, and from `--set`, and checks keys and types.

Example:
    config = parse_settings({"model": {"name": "resnet20"}, "budget": {"flops": "50%"}})
    parse_override("search.trials=20")                    # ("search.trials", 20)
"""

from __future__ import annotations

import dataclasses
import functools
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, cast, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from autoprune.config.settings import RunConfig
from autoprune.errors import ConfigError, reason_of, shown_url, shown_value, unknown
from autoprune.support.toml import parse_toml

MOVED = {
    "evolution": "search.evolution",
    "supernet": "score.supernet",
    "search.address": "search.ray.address",
    "search.gpus_per_trial": "search.ray.gpus_per_trial",
}
"""{key or section of earlier versions: its new place}. Old configs and studies can still be read."""


def parse_settings(values: Mapping[str, Any], *, where: str = "config") -> RunConfig:
    """Check a mapping of sections against the known keys and types.

    Args:
        values: {section: {key: value}}, as read from TOML or JSON.
        where: the source, such as a path, with which every message starts.

    Raises:
        ConfigError: a section or key is unknown (the message suggests the nearest), or a value has the wrong
            type.
    """
    values = spell_out(values)
    _check_keys(values, RunConfig, where)
    try:
        return _adapter().validate_python(values)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_first_problem(error)}") from None


@functools.cache  # a search parses its settings several times, and the schema takes 30 ms
def _adapter() -> TypeAdapter[RunConfig]:
    return TypeAdapter(RunConfig)


@functools.cache
def _types_of(settings: type) -> dict[str, Any]:
    return get_type_hints(settings, include_extras=True)


def _check_keys(values: Mapping[str, Any], settings: type, where: str, section: str = "") -> None:
    """Refuse unknown keys, and values in place of a section, at any depth."""
    hints = _types_of(settings)
    for key, content in values.items():
        if key not in hints:
            kind, place = ("key", f"{where}: [{section}]") if section else ("section", where)
            raise ConfigError(unknown(place, str(key), hints, kind=kind))
        if dataclasses.is_dataclass(hints[key]):
            inner = f"{section}.{key}".lstrip(".")
            if not isinstance(content, Mapping):
                raise ConfigError(
                    f"{where}: {inner}: got {shown_value(content)}, expected a section [{inner}] of keys."
                )
            _check_keys(content, hints[key], where, inner)


def spell_out(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the sections with shorthands and keys of earlier versions replaced.

    `score = "supernet"` is short for a section [score] with rungs = ["supernet"]. It works for every rung and
    for a list of rungs. A key of MOVED is ignored if its new key is also present.
    """
    values = {key: dict(each) if isinstance(each, Mapping) else each for key, each in values.items()}
    score = values.get("score")
    if isinstance(score, (str, list)):
        values["score"] = {"rungs": [score] if isinstance(score, str) else score}
    for old, new in MOVED.items():
        *parents, key = old.split(".")
        holder = values.get(parents[0]) if parents else values
        if not isinstance(holder, dict) or key not in holder:
            continue
        content = holder.pop(key)
        for path, each in _leaves(new, content):
            set_key(values, path, each, replace=False)
    return values


def _leaves(path: str, content: Any) -> list[tuple[str, Any]]:
    """Return (path, value) of each key of a section, or of the value in place of a section."""
    if isinstance(content, Mapping):
        return [(f"{path}.{name}", each) for name, each in content.items()]
    return [(path, content)]


def set_key(values: dict[str, Any], path: str, value: Any, *, replace: bool = True) -> None:
    """Set "section.key" or "section.subsection.key" in a mapping of sections, in place.

    If there is a value in place of a section, nothing is set, and `parse_settings` refuses that value.

    Args:
        values: the sections.
        path: the dotted key.
        value: its value.
        replace: whether to replace an existing value.
    """
    *parents, key = path.split(".")
    for name in parents:
        content = values.get(name, {})
        if not isinstance(content, Mapping):
            return
        values[name] = inner = dict(content)
        values = inner
    if replace or key not in values:
        values[key] = value


def parse_override(override: str) -> tuple[str, Any]:
    """Split "section.key=value" into the key and the value. The value is TOML, and a bare word is a string.

    "none" is None for a key that may be left out without a default, such as budget.flops. It unsets the key.
    "score=supernet" is short for "score.rungs=['supernet']". A key of an earlier version becomes its new key.

    Raises:
        ConfigError: the text does not have this form, or has more than one assignment.
    """
    path, equals, text = override.partition("=")
    if path.strip() == "score" and text.strip():
        rungs = _value(override, text)
        return "score.rungs", rungs if isinstance(rungs, list) else [str(rungs)]
    path = path.strip()
    old = next((old for old in MOVED if path == old or path.startswith(f"{old}.")), "")
    path = MOVED.get(old, "") + path.removeprefix(old)
    names = path.split(".")
    if not (equals and all(names) and 2 <= len(names) <= 3):
        raise ConfigError(
            f"--set {_shown_override(override)}: expected section.key=value with one section and one key, "
            'e.g. "search.trials=20" or "search.ray.address=auto".'
        )
    value = _value(override, text)
    return path, None if value == "none" and _may_be_unset(path) else value


def _may_be_unset(path: str) -> bool:
    """Return whether a key accepts None. Keys that do not exist are refused later."""
    *sections, key = path.split(".")
    spec: Any = RunConfig
    for name in sections:
        spec = _types_of(spec).get(name)
        if not dataclasses.is_dataclass(spec):
            return False
    return type(None) in get_args(_types_of(spec).get(key))


def _value(override: str, text: str) -> Any:
    """Parse a value as TOML. A bare word is a string.

    Raises:
        ConfigError: the text has more than one line, or cannot be parsed.
    """
    text = text.strip()
    try:
        read = parse_toml(f"value = {text}")
    except tomllib.TOMLDecodeError:
        if "\n" in text or "\r" in text:
            raise ConfigError(
                f"--set {_shown_override(override)}: got several lines, expected one value. Quote it as in "
                "TOML, or use one --set for each key."
            ) from None
        return text
    except ValueError as error:
        raise ConfigError(
            f"--set {_shown_override(override)}: cannot be read ({reason_of(error)})."
        ) from None
    if len(read) != 1:
        raise ConfigError(
            f"--set {_shown_override(override)}: got {len(read)} assignments, expected one. Use one --set "
            "for each key."
        )
    return read["value"]


def _shown_override(override: str) -> str:
    """Return an override for a message: without a password, and cut if it is long."""
    cut = override if len(override) <= 100 else f"{override[:100]}..."
    return shown_url(cut)


def _first_problem(error: ValidationError) -> str:
    """Return the first problem of a pydantic error as "section.key: got X, expected Y"."""
    problems = error.errors(include_url=False)
    first = problems[0]
    path, spec = _key_at(first["loc"])
    more = len({_key_at(problem["loc"])[0] for problem in problems}) - 1
    others = f" ({more} more like this)" if more else ""
    got = shown_url(shown_value(first["input"]))
    return f"{path}: got {got}, expected {describe_type(spec)}.{others}"


def _key_at(location: Sequence[int | str]) -> tuple[str, Any]:
    """Return the dotted key at a location in a config, and its type hint."""
    spec: Any = RunConfig
    names: list[str] = []
    for name in location:
        if not dataclasses.is_dataclass(spec):
            break
        names.append(str(name))
        spec = _types_of(cast(type, spec))[str(name)]
    return ".".join(names), spec


def describe_type(spec: Any) -> str:
    """Describe a type hint in plain words, such as "an integer >= 1"."""
    words: Mapping[Any, str] = {
        int: "an integer",
        float: "a number",
        str: "a string",
        bool: "true or false",
        type(None): "nothing",
    }
    origin, arguments = get_origin(spec), get_args(spec)
    if origin is Annotated:
        described = [info.description for info in arguments[1:] if getattr(info, "description", None)]
        if described:
            return str(described[-1])
        signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "of length >="}
        limits = [
            f"{sign} {getattr(limit, name):,}"
            for info in arguments[1:]
            for limit in getattr(info, "metadata", ())
            for name, sign in signs.items()
            if hasattr(limit, name)
        ]
        return " ".join([describe_type(arguments[0]), " and ".join(limits)]).strip()
    if origin is Literal:
        return "one of " + ", ".join(f'"{value}"' for value in arguments)
    if origin is tuple:
        return 'a list of strings (["a", "b"])'
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe_type(part) for part in arguments if part is not type(None))
    return words.get(spec, str(spec))
