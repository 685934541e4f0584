"""Reads the fuzzer's cases, which are data: one TOML file of `cases/` for each class of inputs.

A `[[case]]` has `steps` that damage a folder, the command that then runs in it, and the expected end.
Lists under `for` multiply a case: each of their values takes the place of `<name>`, in every verb that the
case names, or with `spread` in one of its verbs in turn.

    cases = load_cases()
    cases[0].id                     # "numbers 12.3: inspect, key=search.trials, value=-1"
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("cases")
VERBS: Mapping[str, list[str]] = tomllib.loads((FOLDER / "verbs.toml").read_text("utf-8"))
"""Name of a verb -> the command line that a case adds its arguments to."""

_SHOWN = 40


@dataclass(frozen=True)
class Case:
    """One input and how it must end.

    Attributes:
        id: the case in a few words. It is unique.
        kind: the class of inputs that it belongs to.
        verb: the command that gets it, "python" for the functions of the package, or "none" for no verb.
        arguments: the whole command line, or one text of Python code.
        steps: how the folder is prepared: see `steps.py`.
        expect: "refused" (one clear line, exit code 2), "accepted" (exit code 0) or "either". "told" is
            "either", but the output of an accepted case must also hold one of the words of `says`.
        says: words of which the message, or the output of an accepted case, must hold one. Empty means any.
        writes: patterns of files that the command may write or change.
        file_size: most bytes of a file, as if the disk were full, or None for no limit.
        seconds: time after which it counts as hung, or None for the usual time.
        exception: the reason why another end is accepted for now. Most cases have none.
    """

    id: str
    kind: str
    verb: str
    arguments: tuple[str, ...]
    steps: tuple[Mapping[str, Any], ...] = ()
    expect: str = "refused"
    says: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    file_size: int | None = None
    seconds: float | None = None
    exception: str = ""


def load_cases(folder: Path = FOLDER) -> list[Case]:
    """Read all classes, in the order of their names.

    Raises:
        ValueError: two cases have one name, or a key of a case is unknown.
    """
    files = [path for path in sorted(folder.glob("*.toml")) if path.name != "verbs.toml"]
    cases = [case for path in files for case in _cases_of(path)]
    names = [case.id for case in cases]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"cases of one name: {sorted(twice)[:3]}")
    return cases


def _cases_of(path: Path) -> Iterator[Case]:
    content = tomllib.loads(path.read_text("utf-8"))
    common = {key: value for key, value in content.items() if key not in ("class", "case")}
    for number, table in enumerate(content["case"]):
        yield from _expanded(content["class"], number, {**common, **table})


def _expanded(kind: str, number: int, table: Mapping[str, Any]) -> Iterator[Case]:
    fields = dict(table)
    lists = fields.pop("for", {})
    verbs = fields.pop("verbs", ["python"] if "python" in fields else None)
    command, code = fields.pop("command", None), fields.pop("python", None)
    extra = fields.pop("arguments", [])
    what = fields.pop("what", "")
    verbs = verbs or [command[0]]
    each = list(itertools.product(*lists.values()))
    if fields.pop("spread", False):
        pairs = [(verbs[place % len(verbs)], values) for place, values in enumerate(each)]
    else:
        pairs = list(itertools.product(verbs, each))
    for place, (verb, values) in enumerate(pairs):
        given = dict(zip(lists, map(_made, values), strict=True))
        shown = ", ".join(f"{name}={_short(value)}" for name, value in zip(lists, values, strict=True))
        base = [code] if code is not None else command or VERBS[verb]
        said = fields.get("says", [])
        yield Case(
            id=f"{kind} {number}.{place}: {', '.join(part for part in (verb, what, shown) if part)}",
            kind=kind,
            verb=_verb(filled(verb, given).partition(" ")[0]),
            arguments=tuple(filled(word, given) for word in [*base, *extra]),
            steps=tuple(filled(step, given) for step in fields.get("steps", [])),
            **{
                "says": tuple(filled(word, given) for word in ([said] if isinstance(said, str) else said)),
                "writes": tuple(fields.get("writes", [])),
                **{
                    key: filled(value, given)
                    for key, value in fields.items()
                    if key not in ("says", "writes", "steps")
                },
            },
        )


def _verb(word: str) -> str:
    known = {command[0] for command in VERBS.values()}
    return word if word in (*known, "python") else "none"


def _made(value: Any) -> Any:
    """Make a long text of its description: {repeat = "9", times = 5000}."""
    if isinstance(value, dict) and "repeat" in value:
        text = value["repeat"] * value["times"]
        return f"{value.get('before', '')}{text}{value.get('after', '')}"
    return value


def filled(template: Any, values: Mapping[str, Any]) -> Any:
    """Put values in the places of their names. A place that is the whole text takes them as they are."""
    if isinstance(template, str):
        for name, value in values.items():
            if template == f"<{name}>":
                return value
            template = template.replace(f"<{name}>", str(value))
        return template
    if isinstance(template, Mapping):
        return {key: filled(value, values) for key, value in template.items()}
    if isinstance(template, Sequence):
        return [filled(value, values) for value in template]
    return template


def _short(value: Any) -> str:
    text = ascii(value) if not isinstance(value, str) else ascii(value)[1:-1]
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...{len(text)}"
