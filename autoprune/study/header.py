"""Own the header of a study: the config of its search, and the facts that this rests on, beside the trials.

Before: `create_study` has them; after: `SearchStudy` reads them back from whatever storage they are in.

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
from typing import Any

import optuna

HEADER = "autoprune"

FORMAT = 1
IN_PARTS = 2
"""Format of a header that lists its parts; versions that know of none refuse it as a later one."""

PART_CHARS = 30_000
"""Length of a part, in ASCII: at most 60 KB where each of its characters needs an escape as it is stored."""

_PART = "autoprune:part:"


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
    """Return the header that `write_header` stored; None where there is none that this version knows."""
    attributes = study.user_attrs
    header = attributes.get(HEADER)
    if isinstance(header, dict) and header.get("format") == IN_PARTS:
        header = json.loads("".join(attributes[key] for key in header["parts"]))
    return header if isinstance(header, dict) and header.get("format") == FORMAT else None


def is_blank(study: optuna.Study) -> bool:
    """Tell whether a study holds nothing but parts of a header at most: it was killed while it was made."""
    has_notes = any(not key.startswith(_PART) for key in study.user_attrs)
    return not has_notes and not study.get_trials(deepcopy=False)
