"""Stores the header of a study with its trials: the config of its search, and the facts that it rests on.

    write_header(study, {"config": {...}, "identity": {...}, "chosen": {...}, "objectives": ["score"]})
    read_header(study)["config"]

Servers keep an attribute in a column that may end at 64 KB (TEXT of MySQL and MariaDB), and rankings and
tables of latencies take more. A long header is cut into parts, each an attribute named by its content; the
attribute that lists them is written last, so that a kill leaves the header as it was before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import optuna
from pydantic import Field

from autoprune.errors import StudyError, abridged, reason_of
from autoprune.graph import COSTS
from autoprune.support.schema import Strict, read_as

HEADER = "autoprune"

FORMAT = 1
IN_PARTS = 2
"""Format of a header that lists its parts; versions that know of none refuse it as a later one."""

PART_CHARS = 30_000
"""Length of a part, in ASCII: at most 60 KB where each of its characters needs an escape as it is stored."""

_Cost = Annotated[float, Field(gt=0, allow_inf_nan=False)]

_PART = "autoprune:part:"

_ADVICE = "restore the storage from a copy, or begin another search."


class WarmStart(Strict):
    """A trial that is queued before the sampler's own: its origin, and the level of each variable."""

    origin: str
    levels: list[int]


class WarmStarts(Strict):
    """The warm starts of a search."""

    trials: list[WarmStart]


class Facts(Strict):
    """Facts measured and choices made once, at the start of a search. Each of them may be missing."""

    setting: dict[str, Any] | None = None
    ranking: dict[str, str] | None = None
    dense_score: float | None = None
    dense_widths: dict[str, int] | None = None
    relaxed: dict[str, int] | None = None
    stairs: dict[str, Any] | None = None
    latency: dict[str, Any] | None = None
    statistics: dict[str, dict[str, float]] | None = None
    warm_starts: WarmStarts | None = None


class Header(Strict):
    """The header of a study."""

    format: Literal[1]
    config: dict[str, Any]
    identity: dict[str, str]
    chosen: Facts
    objectives: list[str] = Field(default_factory=lambda: ["score"], min_length=1)


class _Parts(Strict):
    """What lists the parts of a long header."""

    parts: list[str]


def write_header(study: optuna.Study, header: Mapping[str, Any]) -> None:
    """Store a header in place of the one that a study may have.

    Args:
        study: of Optuna.
        header: values that JSON takes.
    """
    # The config comes last: where it alone changes, the parts before it are there already.
    ordered = {key: header[key] for key in sorted(header, key="config".__eq__)}
    text = json.dumps({"format": FORMAT, **ordered})
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


def read_header(study: optuna.Study) -> dict[str, Any] | None:
    """Return the header that `write_header` stored; None if there is none that this version knows.

    Raises:
        StudyError: it is damaged.
    """
    attributes = _attributes(study)
    header = attributes.get(HEADER)
    if isinstance(header, dict) and header.get("format") == IN_PARTS:
        header = _joined(study, header, attributes)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        return None
    where = _where(study)
    facts = read_as(Header, header, where=where, error=StudyError, advice=_ADVICE).chosen.model_extra or {}
    costs = {f"{of}_{cost}" for of in ("dense", "budget") for cost in COSTS} & facts.keys()
    read_as(
        dict[str, _Cost | None],
        {name: facts[name] for name in costs},
        where=f"{where}: chosen",
        error=StudyError,
        advice=_ADVICE,
    )
    objectives = header.get("objectives", ["score"])
    if len(objectives) != len(study.directions):
        raise damaged(
            study.study_name, f"it names {len(objectives)} objectives, the study has {len(study.directions)}"
        )
    return header


def damaged(study: str, problem: str) -> StudyError:
    """Return the error of a study whose header holds something that no search can use."""
    return StudyError(f"{study}: its header is damaged: {problem}; {_ADVICE}")


def _where(study: optuna.Study) -> str:
    return f"{study.study_name}: its header is damaged"


def _attributes(study: optuna.Study) -> Mapping[str, Any]:
    """Return the attributes of a study.

    Raises:
        StudyError: the storage holds one that is no JSON, or is nested too deep.
    """
    try:
        return study.user_attrs
    except RecursionError:
        raise damaged(study.study_name, "lists and objects are nested too deep in an attribute") from None
    except (ValueError, TypeError) as error:
        raise damaged(study.study_name, f"an attribute is no JSON ({reason_of(error)})") from error


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
    """Tell whether a study holds nothing but parts of a header at most: it was killed while it was made."""
    has_notes = any(not key.startswith(_PART) for key in study.user_attrs)
    return not has_notes and not study.get_trials(deepcopy=False)
