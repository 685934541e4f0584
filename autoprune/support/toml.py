r"""Read TOML files and texts, and write them. An invalid one raises an error with a message of one line.

Example:
    read_toml("run.toml", "a config file")       # {"model": {"name": "resnet20"}, ...}
    parse_toml("trials = 3")                     # {"trials": 3}
    write_toml({"search": {"trials": 3}})        # "[search]\ntrials = 3\n"
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from autoprune.errors import ConfigError, reason_of
from autoprune.support.files import read_text

MOST_BYTES = 2**20
"""Maximum size of a file. Python's parser takes about a second for it."""

# The parser's time grows with the cube of the number of parts in a key: 20,000 parts take minutes.
_ENDLESS_KEY = re.compile(r"(?<![\w-])(?:[\w-]+[ \t]*\.[ \t]*){100}")

# A dotted text in a string or a comment is no key. A quoted part of a key still counts as one part.
_QUOTED = re.compile(
    r'"""(?:\\.|[^\\])*?"""'
    r"|'''.*?'''"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|(?P<comment>#[^\n]*)",
    re.DOTALL,
)


def parse_toml(text: str) -> dict[str, Any]:
    """Parse a TOML text.

    Raises:
        ValueError: if it is not TOML, is nested too deep, or has a number with more digits than Python reads.
    """
    if _ENDLESS_KEY.search(_QUOTED.sub(lambda match: "" if match["comment"] else "q", text)):
        raise ValueError("a key has more than 100 parts")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("its lists or tables are nested too deeply") from None


def write_toml(values: Mapping[str, Any]) -> str:
    """Write nested dicts of strings, numbers, booleans and lists as TOML.

    `parse_toml` gives the values back. TOML has no None, and empty tables say nothing: both are left out.
    """
    return "\n".join(_table(values, ())).strip() + "\n"


def _table(values: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    plain = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    given = [f"{_key(key)} = {_value(value)}" for key, value in plain.items() if value is not None]
    if given and path:
        yield f"\n[{'.'.join(map(_key, path))}]"
    yield from given
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _table(value, (*path, key))


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _value(value: Any) -> str:
    """Write a value. A JSON string is a TOML string, but JSON leaves one control character unescaped."""
    if isinstance(value, Mapping):
        given = (f"{_key(key)} = {_value(each)}" for key, each in value.items() if each is not None)
        return f"{{{', '.join(given)}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def read_toml(path: str | Path, kind: str) -> dict[str, Any]:
    """Read a TOML file in UTF-8, with or without a byte order mark.

    Args:
        path: the file.
        kind: the kind of file for messages: "a config file".

    Raises:
        FileNotFoundError: if the file does not exist.
        ConfigError: if it cannot be read, is not a regular file, is too large, or is not TOML.
    """
    try:
        text = read_text(path, most_bytes=MOST_BYTES).removeprefix("\ufeff")
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # for example no permission, not UTF-8, or an impossible name
        raise ConfigError(f"{path}: cannot be read as {kind} ({reason_of(error)}).") from None
    try:
        return parse_toml(text)
    except ValueError as error:
        raise ConfigError(f"{path}: not valid TOML: {reason_of(error)}.") from None
