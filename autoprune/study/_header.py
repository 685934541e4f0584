"""Stores the header of a study with its trials: the config of its search, its identity and its facts.

Example:
    write_header(study, Header(config={...}, identity={...}, chosen=StudyFacts(...), objectives=["score"]))
    read_header(study).chosen.dense_score

Servers keep an attribute in a column that may end at 64 KB (TEXT of MySQL and MariaDB), and rankings and
latency tables take more. A long header is cut into parts, each an attribute that is named by its content.
The attribute that lists the parts is written last, so that a kill leaves the header as it was before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import optuna
from pydantic import Field

from autoprune.errors import StudyError, abridged, reason_of
from autoprune.study._facts import FACTS_VERSION, FLAT_COSTS, StudyFacts
from autoprune.support.schema import Strict, read_as

HEADER = "autoprune"

FORMAT: Literal[1] = 1
IN_PARTS = 2
"""Format of a header that lists its parts. A version that knows of no parts refuses it as a later one."""

PART_CHARS = 30_000
"""Length of a part in ASCII characters: at most 60 KB, even if each needs an escape in the storage."""

_Cost = Annotated[float, Field(gt=0, allow_inf_nan=False)]

_PART = "autoprune:part:"

_ADVICE = "restore the storage from a copy, or begin another search."


class Header(Strict):
    """The header of a study.

    Attributes:
        config: the resolved config of the search.
        identity: fingerprints of model, data, space and budget.
        chosen: the facts of the study.
        objectives: "score", which is maximised, then the costs that are minimised with it.
        format: of the header.
    """

    config: dict[str, Any]
    identity: dict[str, str]
    chosen: StudyFacts
    objectives: list[str] = Field(default_factory=lambda: ["score"], min_length=1)
    format: Literal[1] = FORMAT


class _Parts(Strict):
    """The attribute that lists the parts of a long header."""

    parts: list[str]


def write_header(study: optuna.Study, header: Header) -> None:
    """Store a header. It replaces the one that the study may have."""
    _write(study, {**header.model_dump(mode="json"), "chosen": header.chosen.to_json()})


def replace_config(study: optuna.Study, config: Mapping[str, Any]) -> None:
    """Store another config in the header of a study, and leave the rest of the header as it is stored.

    Raises:
        StudyError: the header is damaged, or not of this version.
    """
    stored = _stored(study)
    if stored is None:
        raise damaged(study.study_name, "it is missing or of another version")
    _write(study, {**stored, "config": config})


def _write(study: optuna.Study, header: Mapping[str, Any]) -> None:
    # The config comes last: if it alone changes, the parts before it are stored already.
    ordered = {key: header[key] for key in sorted(header, key="config".__eq__)}
    text = json.dumps({**ordered, "format": FORMAT})
    if len(text) <= PART_CHARS:
        study.set_user_attr(HEADER, json.loads(text))
        return
    parts = [text[start : start + PART_CHARS] for start in range(0, len(text), PART_CHARS)]
    keys = [_PART + hashlib.sha256(part.encode()).hexdigest()[:32] for part in parts]
    present = study.user_attrs
    for key, part in zip(keys, parts, strict=True):
        if key not in present:
            study.set_user_attr(key, part)
    study.set_user_attr(HEADER, {"format": IN_PARTS, "parts": keys})


def read_header(study: optuna.Study) -> Header | None:
    """Return the header of a study, or None if there is none, or if this version does not know its format.

    Raises:
        StudyError: it is damaged, or its facts are of a later version.
    """
    stored = _stored(study)
    if stored is None:
        return None
    chosen = stored.get("chosen")
    if isinstance(chosen, dict):
        chosen = {"version": 1, **chosen}
        _require_known(study, chosen["version"])
        costs = {key: chosen[key] for key in FLAT_COSTS.keys() & chosen.keys()}
        where = f"{_where(study)}: chosen"
        read_as(dict[str, _Cost | None], costs, where=where, error=StudyError, advice=_ADVICE)
        stored = {**stored, "chosen": chosen}
    header = read_as(Header, stored, where=_where(study), error=StudyError, advice=_ADVICE)
    if len(header.objectives) != len(study.directions):
        raise damaged(
            study.study_name,
            f"it names {len(header.objectives)} objectives, the study has {len(study.directions)}",
        )
    return header


def _require_known(study: optuna.Study, version: Any) -> None:
    """Refuse facts of a later version of autoprune, in which a key may have another meaning.

    Raises:
        StudyError: they are of a later version.
    """
    if isinstance(version, int) and version > FACTS_VERSION:
        raise StudyError(
            f"{study.study_name}: a later version of autoprune made this study (its facts are of version "
            f"{version}, this one reads up to {FACTS_VERSION}); update autoprune, or begin another search."
        )


def damaged(study: str, problem: str) -> StudyError:
    """Return the error for a study whose header cannot be used."""
    return StudyError(f"{study}: its header is damaged: {problem}; {_ADVICE}")


def _where(study: optuna.Study) -> str:
    return f"{study.study_name}: its header is damaged"


def _attributes(study: optuna.Study) -> Mapping[str, Any]:
    """Return the attributes of a study.

    Raises:
        StudyError: an attribute is no JSON, or is nested too deep.
    """
    try:
        return study.user_attrs
    except RecursionError:
        raise damaged(study.study_name, "lists and objects are nested too deep in an attribute") from None
    except (ValueError, TypeError) as error:
        raise damaged(study.study_name, f"an attribute is no JSON ({reason_of(error)})") from error


def _stored(study: optuna.Study) -> dict[str, Any] | None:
    """Return the header as it is stored, or None if there is none, or one of another format.

    Raises:
        StudyError: it is damaged.
    """
    attributes = _attributes(study)
    header = attributes.get(HEADER)
    if isinstance(header, dict) and header.get("format") == IN_PARTS:
        header = _joined(study, header, attributes)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        return None
    return header


def _joined(study: optuna.Study, header: Mapping[str, Any], attributes: Mapping[str, Any]) -> Any:
    """Put the parts of a long header together."""
    keys = read_as(_Parts, header, where=_where(study), error=StudyError, advice=_ADVICE).parts
    parts = [attributes.get(key) for key in keys]
    missing = next((key for key, part in zip(keys, parts, strict=True) if not isinstance(part, str)), None)
    if missing is not None:
        raise damaged(study.study_name, f"its part {abridged(missing)} is missing")
    try:
        return json.loads("".join(map(str, parts)))
    except (ValueError, RecursionError) as error:
        raise damaged(study.study_name, f"its parts are no JSON ({reason_of(error)})") from error


def is_blank(study: optuna.Study) -> bool:
    """Return whether a study is empty but for parts of a header: the process that made it was killed."""
    has_notes = any(not key.startswith(_PART) for key in study.user_attrs)
    return not has_notes and not study.get_trials(deepcopy=False)
