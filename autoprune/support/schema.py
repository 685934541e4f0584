"""Check values from JSON or TOML against a schema, and report the first problem in one line.

Example:
    facts = read_as(Facts, values, where="fm-50", error=StudyError, advice="restore the database.")
"""

from __future__ import annotations

import functools
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from autoprune.errors import AutopruneError, shown_value

T = TypeVar("T")


class Strict(BaseModel):
    """A schema with finite numbers and without type conversions.

    Unknown keys are allowed, so that this version can read files of a later one.
    """

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, frozen=True)


def read_as(kind: type[T], values: Any, *, where: str, error: type[AutopruneError], advice: str) -> T:
    """Return `values` as an object of the type `kind`.

    Args:
        kind: a `Strict` model, a dataclass or a type such as `dict[str, int]`.
        values: values from JSON or TOML.
        where: the source of the values, which starts the message.
        error: class of the error to raise.
        advice: advice for the user, which ends the message.

    Raises:
        AutopruneError: of the class `error`, if a value is missing or has the wrong type.
    """
    try:
        value: T = _adapter(cast(Any, kind)).validate_python(values)
        return value
    except ValidationError as invalid:
        raise error(f"{where}: {_first_problem(invalid)}. {advice}") from None
    except RecursionError:
        raise error(f"{where}: lists and objects are nested too deep. {advice}") from None


@functools.cache  # every proposal reads all trials of its study, several values each
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _first_problem(invalid: ValidationError) -> str:
    """Return "key.key: got X, expected Y" for the first problem that pydantic reports."""
    first = invalid.errors(include_url=False)[0]  # a value that fits no member of a union has several
    place = ".".join(shown_value(part).strip("'\"") for part in first["loc"])
    if first["type"] == "missing":
        return f"{place} is missing"
    message = first["msg"]
    expected = message.removeprefix("Input should be ").removeprefix("Value error, ")
    if first["type"] in ("model_type", "dataclass_type", "dict_type"):
        expected = "keys with values"
    problem = f"got {shown_value(first['input'])}, expected {expected}"
    if expected == message:  # the message names the problem, not the expected value
        problem = f"got {shown_value(first['input'])} ({message[:1].lower()}{message[1:]})"
    return f"{place}: {problem}" if place else problem
