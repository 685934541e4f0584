"""Stores the header of a study with its trials: the config of its search, its identity and its facts.

Example:
    write_header(study, Header(config={...}, identity={...}, chosen=StudyFacts(...), objectives=["score"]))
    read_header(study).chosen.dense_score
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import optuna
from pydantic import Field

from autoprune.errors import StudyError, reason_of
from autoprune.study._facts import FACTS_VERSION, FLAT_COSTS, StudyFacts
from autoprune.study._long_values import PART, read_value, write_value
from autoprune.study._shown_attributes import SHOWN
from autoprune.support.schema import Strict, read_as

HEADER = "autoprune"

FORMAT: Literal[1] = 1
_Cost = Annotated[float, Field(gt=0, allow_inf_nan=False)]

_ADVICE = "Restore the storage from a copy, or begin another search."


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
    write_value(study, HEADER, json.dumps({**ordered, "format": FORMAT}))


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
            f"{version}, this one reads up to {FACTS_VERSION}). Update autoprune, or begin another search."
        )


def damaged(study: str, problem: str) -> StudyError:
    """Return the error for a study whose header cannot be used."""
    return StudyError(f"{study}: its header is damaged: {problem}. {_ADVICE}")


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
    header = read_value(_attributes(study), HEADER, where=_where(study), advice=_ADVICE)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        return None
    return header


def is_blank(study: optuna.Study) -> bool:
    """Return whether a study is empty but for parts of a header: the process that made it was killed."""
    has_notes = any(not key.startswith(PART) and key not in SHOWN for key in study.user_attrs)
    return not has_notes and not study.get_trials(deepcopy=False)
