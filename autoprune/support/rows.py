"""The rows of a table of choices: what makes a choice, its traits, and one line that describes it.

A config names a row, or one of the user's own as "package.module:name", which is a function or a spec:

    spec = find_row("gp", SAMPLERS, "search.sampler", SamplerSpec)
    quoted(SAMPLERS)                     # '"random", "tpe", "gp"'
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from autoprune.errors import AutopruneError, ConfigError, unknown
from autoprune.support.usercode import guarded
from autoprune.support.userfunction import load_function, load_object


@dataclass(frozen=True, kw_only=True)
class Row:
    """The part that the specs of all tables share. The first field of a spec is the function behind it.

    Attributes:
        about: one line for help texts and the config reference.
        reads: sections ("latency") and keys ("search.workers") that are read only if such a row is chosen.
    """

    about: str = ""
    reads: tuple[str, ...] = ()


R = TypeVar("R", bound=Row)


def find_row(
    name: str,
    table: Mapping[str, R],
    where: str,
    spec: type[R],
    error_class: type[AutopruneError] = ConfigError,
) -> R:
    """Return the row called `name`, or the user's own if the name has a colon.

    Args:
        name: a row, or "package.module:name" of a function or of a spec.
        table: the rows.
        where: the config key, for messages.
        spec: the class of the rows; a user's function becomes one with its default traits.
        error_class: of the error if there is no such row.

    Raises:
        AutopruneError: of `error_class`; there is no such row (the nearest is suggested).
        ConfigError: there is no such function.
    """
    if name in table:
        return table[name]
    if ":" not in name:
        raise error_class(unknown(where, name, table))
    found = load_object(name, where)
    if isinstance(found, spec):
        return found
    made: R = cast(Any, spec)(load_function(name, where))
    return made


def guarding(name: str, where: str) -> AbstractContextManager[None]:
    """Give a block in which errors of a user's own choice become one line, and those of other rows pass.

    Raises:
        ConfigError: the choice has a colon in its name, and the block raised something.
    """
    return guarded(f'{where}: "{name}" failed', ConfigError) if ":" in name else nullcontext()


def quoted(names: Iterable[str], joined: str = ", ") -> str:
    """Return names for a message: '"median", "halving"'."""
    return joined.join(f'"{name}"' for name in names)
