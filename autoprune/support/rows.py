"""Rows of tables of choices. A row holds the function behind a choice, its traits and a line of help.

A config names a row, or a user's own function or spec as "package.module:name":

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
    """Base class of the specs of all tables. The first field of a spec is its function.

    Attributes:
        about: one line for help texts and the config reference.
        reads: sections ("latency") and keys ("search.workers") that only such rows read.
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
    """Return the row `name`, or the user's own row if the name has a colon.

    Args:
        name: a row, or "package.module:name" of a function or of a spec.
        table: the rows.
        where: the config key, for messages.
        spec: the class of the rows. A user's function is wrapped in it, with default traits.
        error_class: class of the error for an unknown row.

    Raises:
        AutopruneError: of `error_class`, if there is no such row. The message suggests the nearest one.
        ConfigError: if the function cannot be imported.
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
    """Turn errors of the block into one line if `name` is a user's own choice. Errors of other rows pass.

    Raises:
        ConfigError: if the name has a colon and the block raises an error.
    """
    return guarded(f'{where}: "{name}" failed', ConfigError) if ":" in name else nullcontext()


def quoted(names: Iterable[str], joined: str = ", ") -> str:
    """Return names for a message: '"median", "halving"'."""
    return joined.join(f'"{name}"' for name in names)
