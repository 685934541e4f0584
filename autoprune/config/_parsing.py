"""Checks a run's settings: sections as TOML and JSON give them, or one `--set`, against the known keys.

Before: `config` reads a file, a study holds the settings of its search as JSON; after: `settings.RunConfig`:

    config = parse_settings({"model": {"name": "resnet20"}, "budget": {"flops": "50%"}})
    parse_override("search.trials=20")                    # ("search", "trials", 20)
"""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from autoprune.config.settings import RunConfig
from autoprune.errors import ConfigError, reason_of, shown_url, shown_value, unknown
from autoprune.support.toml import parse_toml


def parse_settings(values: Mapping[str, Any], *, where: str = "config") -> RunConfig:
    """Check a mapping of sections against the known keys and types.

    Args:
        values: {section: {key: value}}, as TOML and JSON give it.
        where: name of the source (a path), which opens every message.

    Raises:
        ConfigError: an unknown section or key (the nearest known one is named), or a value of the wrong kind.
    """
    values = spell_out(values)
    sections = {spec.name: spec for spec in dataclasses.fields(RunConfig)}
    hints = get_type_hints(RunConfig)
    for section, content in values.items():
        if section not in sections:
            raise ConfigError(unknown(where, str(section), sections, kind="section"))
        if not isinstance(content, Mapping):
            raise ConfigError(
                f"{where}: {section}: got {shown_value(content)}, expected a section [{section}] of keys."
            )
        known = [spec.name for spec in dataclasses.fields(hints[section])]
        for key in content:
            if key not in known:
                raise ConfigError(unknown(f"{where}: [{section}]", str(key), known, kind="key"))
    try:
        return TypeAdapter(RunConfig).validate_python(values)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_first_problem(error)}") from None


def spell_out(values: Mapping[str, Any]) -> dict[str, Any]:
    """Spell out the one shorthand: `score = "supernet"` stands for the section [score], rungs = ["supernet"].

    Any other rung can be written so too, and a list of them. The rest of the mapping is handed on as it is.
    """
    score = values.get("score")
    if isinstance(score, (str, list)):
        return {**values, "score": {"rungs": [score] if isinstance(score, str) else score}}
    return dict(values)


def parse_override(override: str) -> tuple[str, str, Any]:
    """Split "section.key=value" into its parts; the value is TOML, a bare word is taken as a string.

    "score=supernet" is short for "score.rungs=['supernet']".

    Raises:
        ConfigError: it has not that form, or is more than one assignment.
    """
    path, equals, text = override.partition("=")
    if path.strip() == "score" and text.strip():
        rungs = _value(override, text)
        return "score", "rungs", rungs if isinstance(rungs, list) else [str(rungs)]
    section, dot, key = path.strip().partition(".")
    if not (equals and dot and section and key) or "." in key:
        raise ConfigError(
            f"--set {_shown_override(override)}: expected section.key=value with one section and one key, "
            'e.g. "search.trials=20".'
        )
    return section, key, _value(override, text)


def _value(override: str, text: str) -> Any:
    """Read a value as TOML; a bare word is a string.

    Raises:
        ConfigError: it is more than one line of text, or cannot be read.
    """
    text = text.strip()
    try:
        read = parse_toml(f"value = {text}")
    except tomllib.TOMLDecodeError:
        if "\n" in text or "\r" in text:
            raise ConfigError(
                f"--set {_shown_override(override)}: got several lines, expected one value; quote it as TOML "
                "does, or give each key a --set of its own."
            ) from None
        return text
    except ValueError as error:
        raise ConfigError(
            f"--set {_shown_override(override)}: cannot be read ({reason_of(error)})."
        ) from None
    if len(read) != 1:
        raise ConfigError(
            f"--set {_shown_override(override)}: got {len(read)} assignments, expected one; give each key a "
            "--set of its own."
        )
    return read["value"]


def _shown_override(override: str) -> str:
    """Return an override for a message: without a password, and cut if it is long."""
    cut = override if len(override) <= 100 else f"{override[:100]}..."
    return shown_url(cut)


def _first_problem(error: ValidationError) -> str:
    """Turn pydantic's report into "section.key: got X, expected Y"; the first problem is enough to act on."""
    problems = error.errors(include_url=False)
    first = problems[0]
    path = [str(part) for part in first["loc"][:2]]
    section = get_type_hints(RunConfig)[path[0]]
    spec = get_type_hints(section, include_extras=True)[path[1]]
    more = len({problem["loc"][:2] for problem in problems}) - 1
    others = f" ({more} more like this)" if more else ""
    got = shown_url(shown_value(first["input"]))
    return f"{'.'.join(path)}: got {got}, expected {describe_type(spec)}.{others}"


def describe_type(spec: Any) -> str:
    """Return a type hint in a user's words, such as "an integer >= 1"."""
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
