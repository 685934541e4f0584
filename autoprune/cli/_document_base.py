"""The base classes of JSON documents and of their parts, and the kinds of their values.

Example:
    class EpochPart(Part):
        loss: Number
        files: list[Text]
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

VERSION: Literal[1] = 1
"""Version of all documents. It rises if a key is removed or changes its meaning."""


def _finite(value: Any) -> Any:
    """Return a number of Python, or None for one that is not finite."""
    plain = value.item() if hasattr(value, "item") else value
    return plain if plain is None or math.isfinite(plain) else None


def _named(value: Any) -> Any:
    """Return {cost: amount} of a `Cost`."""
    return value if value is None or isinstance(value, Mapping) else value.known()


Number = Annotated[int | float | None, BeforeValidator(_finite)]
Text = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, Path) else value)]
Costs = Annotated[dict[str, Number], BeforeValidator(_named)]
Pair = tuple[Number, Number]


class Part(BaseModel):
    """A part of a document, read from the attributes of an object."""

    model_config = ConfigDict(from_attributes=True, frozen=True, populate_by_name=True)


class Document(Part):
    """The keys that every document has.

    Attributes:
        version: version of the documents.
        sentences: those that the command prints under its tables.
    """

    version: Literal[1] = VERSION
    sentences: list[str] = Field(default_factory=list)
