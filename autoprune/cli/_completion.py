"""Completes words of a command line: configs, studies, keys of --set and the names that a config accepts.

A shell calls it at each press of the tab key, so it imports no heavy module. The names come from the page
"config" of the guide, which is made from the code, and from the files of the package.

Example:
    complete_override("search.sampler=t")      # ["search.sampler=tpe"]
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import shlex
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "_AUTOPRUNE_COMPLETE"
"""The environment variable by which a shell asks for completions."""

_PACKAGE = Path(__file__).parents[1]
_SECTION = re.compile(r"## \[(?P<name>[a-z._]+)\]")
_KEY = re.compile(r"- \*\*`(?P<name>\w+)`\*\* \([^)]*?(?:default `(?P<default>[^`]*)`)?\):")
_CHOICE = re.compile(r"  - `(?P<name>[^`]+)`: ")


@dataclass
class _Key:
    """A key of a config, with its default and the names that it accepts, as TOML."""

    default: str
    choices: list[str]


@contextlib.contextmanager
def completing() -> Iterator[None]:
    """Let bash complete the value behind a key. Bash splits words at "=", and replaces only the last part."""
    key = _join_words() if os.environ.get(VARIABLE) == "complete_bash" else ""
    if not key:
        yield
        return
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        sys.stdout.writelines(line.removeprefix(f"{key}=") for line in printed.getvalue().splitlines(True))


def _join_words() -> str:
    """Join a key, "=" and the value to complete in the words from bash. Return the key, or ""."""
    with contextlib.suppress(KeyError, ValueError):
        words, current = shlex.split(os.environ["COMP_WORDS"]), int(os.environ["COMP_CWORD"])
        equals = next((place for place in (current, current - 1) if words[place : place + 1] == ["="]), 0)
        if equals > 1:
            key, value = words[equals - 1], "".join(words[equals + 1 : current + 1])
            joined = [*words[: equals - 1], f"{key}={value}"]
            os.environ.update(COMP_WORDS=shlex.join(joined), COMP_CWORD=str(equals - 1))
            return key
    return ""


def complete_override(incomplete: str) -> list[str]:
    """Complete KEY=VALUE of --set: the names of keys, then the names or the default that a key accepts."""
    name, equals, value = incomplete.partition("=")
    keys = _keys()
    if not equals:
        found = [key for key in keys if key.startswith(name)]
        if len(found) != 1:
            return [f"{key}=" for key in found]
        name = found[0]
    if name not in keys:
        return []
    key = keys[name]
    offered = [] if key.default.startswith("[") else key.choices or [key.default]
    return [f"{name}={each}" for each in offered if each.startswith(value)]


def complete_config(incomplete: str) -> list[str]:
    """Complete the path of a TOML file, or the name of an embedded config."""
    names = [path.stem for path in sorted((_PACKAGE / "config" / "defaults").glob("*.toml"))]
    folder, _, start = incomplete.rpartition("/")
    place = Path(folder or ("/" if incomplete.startswith("/") else ".")).expanduser()
    prefix = incomplete[: len(incomplete) - len(start)]
    files = [f"{prefix}{path.name}" for path in sorted(place.glob("*.toml"))] if place.is_dir() else []
    return _starting(incomplete, [*files, *names])


def complete_study(incomplete: str) -> list[str]:
    """Complete the name of a study in one of the files runs/*.db."""
    names: list[str] = []
    for file in sorted(Path("runs").glob("*.db")):
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(
                sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=0.1)
            ) as database,
        ):
            names += [row[0] for row in database.execute("SELECT study_name FROM studies")]
    return _starting(incomplete, names)


def complete_method(incomplete: str) -> list[str]:
    return _starting(incomplete, _stems("methods"))


def complete_profile(incomplete: str) -> list[str]:
    return _starting(incomplete, _stems("profiles"))


def complete_model(incomplete: str) -> list[str]:
    return _starting(incomplete, _keys()["model.name"].choices)


def complete_data(incomplete: str) -> list[str]:
    return _starting(incomplete, _keys()["data.name"].choices)


def complete_format(incomplete: str) -> list[str]:
    return _starting(incomplete, ["onnx", "pt2", "safetensors", "folder"])


def complete_topic(incomplete: str) -> list[str]:
    from autoprune.guide import TOPICS

    return _starting(incomplete, TOPICS)


def _stems(folder: str) -> list[str]:
    return sorted(path.stem for path in (_PACKAGE / "config" / folder).glob("*.toml"))


def _starting(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


@functools.cache
def _keys() -> Mapping[str, _Key]:
    """Read the keys of a config, their defaults and choices from the page "config" of the guide."""
    keys: dict[str, _Key] = {}
    section, last = "", _Key("", [])
    text = (_PACKAGE / "guide" / "config.md").read_text("utf-8")
    for item in re.split(r"\n(?=- |  - |## )", text):
        line = " ".join(item.split()) if not item.startswith("  - ") else item
        if found := _SECTION.match(line):
            section = found["name"]
        elif found := _KEY.match(line):
            last = _Key((found["default"] or "").strip('"'), [])
            keys[f"{section}.{found['name']}"] = last
        elif found := _CHOICE.match(line):
            last.choices.append(found["name"])
    keys["search.profile"].choices += _stems("profiles")
    return keys
