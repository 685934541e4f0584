"""Stores a long value with a study in several attributes, each within the column of any database.

Servers keep an attribute in a column that may end at 64 KB (TEXT of MySQL and MariaDB). A longer value is cut
into parts, each an attribute that is named by its content. The attribute that lists the parts is written
last, so that a kill leaves the value as it was before.

Example:
    write_value(study, "autoprune", json.dumps(header))
    read_value(study.user_attrs, "autoprune", where="fm-50: its header is damaged", advice="restore it.")
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import optuna

from autoprune.errors import StudyError, abridged, reason_of
from autoprune.support.schema import Strict, read_as

IN_PARTS = 2
"""Format of a value that lists its parts. A version that knows of no parts refuses it as a later one."""

PART_CHARS = 30_000
"""Length of a part in ASCII characters: at most 60 KB, even if each needs an escape in the storage."""

PART = "autoprune:part:"
"""The keys of parts begin with this."""


class _Parts(Strict):
    """The attribute that lists the parts of a long value."""

    parts: list[str]


def write_value(study: optuna.Study, key: str, text: str) -> None:
    """Store a value under a key of a study.

    Args:
        study: of Optuna.
        key: the key.
        text: the value as JSON.
    """
    if len(text) <= PART_CHARS:
        study.set_user_attr(key, json.loads(text))
        return
    parts = [text[start : start + PART_CHARS] for start in range(0, len(text), PART_CHARS)]
    keys = [PART + hashlib.sha256(part.encode()).hexdigest()[:32] for part in parts]
    present = study.user_attrs
    for part_key, part in zip(keys, parts, strict=True):
        if part_key not in present:
            study.set_user_attr(part_key, part)
    study.set_user_attr(key, {"format": IN_PARTS, "parts": keys})


def read_value(attributes: Mapping[str, Any], key: str, *, where: str, advice: str) -> Any:
    """Return the value under a key, put together from its parts, or None if there is none.

    Args:
        attributes: of the study.
        key: the key.
        where: the start of a message.
        advice: the end of a message.

    Raises:
        StudyError: a part is missing, or the parts are damaged.
    """
    value = attributes.get(key)
    if not isinstance(value, dict) or value.get("format") != IN_PARTS:
        return value
    keys = read_as(_Parts, value, where=where, error=StudyError, advice=advice).parts
    parts = [attributes.get(each) for each in keys]
    missing = next((each for each, part in zip(keys, parts, strict=True) if not isinstance(part, str)), None)
    if missing is not None:
        raise StudyError(f"{where}: its part {abridged(missing)} is missing. {advice}")
    try:
        return json.loads("".join(map(str, parts)))
    except (ValueError, RecursionError) as error:
        raise StudyError(f"{where}: its parts are no JSON ({reason_of(error)}). {advice}") from error


def read_note(attributes: Mapping[str, Any], key: str, study: str) -> Any:
    """Return a note of a study as `read_value` does.

    Raises:
        StudyError: a part is missing, or the parts are damaged.
    """
    where = f"{study}: {key} is damaged"
    return read_value(attributes, key, where=where, advice="Restore the storage from a copy.")
