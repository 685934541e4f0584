"""Creates the study of a new search, and opens the study of an earlier one.

Example:
    study = create_study(url, "fm-50", config=config, identity={"model": "9f3c..."}, facts=facts)
    study = open_study(url, "fm-50")       # all that a resume needs
    study.config
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage
from optuna.study import StudyDirection

from autoprune.errors import StudyError, shown_url, suggest
from autoprune.study._facts import StudyFacts
from autoprune.study._header import HEADER, Header, is_blank, read_header, write_header
from autoprune.study._search_study import SCORE, SearchStudy
from autoprune.study._shown_attributes import shown_study
from autoprune.study._storage import is_vacant, open_storage
from autoprune.study._storage_errors import storage_errors


def create_study(
    url: str,
    name: str,
    *,
    config: Mapping[str, Any],
    identity: Mapping[str, str],
    facts: StudyFacts,
    objectives: Sequence[str] = (SCORE,),
) -> SearchStudy:
    """Create the study of a new search.

    Args:
        url: URL of the storage (see `open_storage`).
        name: the study's name.
        config: the resolved config, in values that JSON has.
        identity: fingerprints of model, data, space and budget. A resume needs the same.
        facts: measurements and choices that are made once.
        objectives: "score", then the costs to minimise.

    Raises:
        StudyError: a study of that name exists, or the storage cannot be used.
    """
    header = Header(
        config=json.loads(json.dumps(config)),  # as it reads back: lists for tuples
        identity=dict(identity),
        chosen=facts,
        objectives=list(objectives),
    )
    directions = [StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * (len(objectives) - 1)]
    storage = open_storage(url, create=True)
    with storage_errors(url):
        if _holds(storage, name):
            study = optuna.load_study(study_name=name, storage=storage)
            if not is_blank(study):
                raise StudyError(
                    f"{name}: a study of that name exists in {shown_url(url)}. Resume it, or choose another "
                    "name."
                )
            # A search with other objectives was killed before the study had a header.
            if study.directions != directions:
                optuna.delete_study(study_name=name, storage=storage)
        if not _holds(storage, name):
            study = optuna.create_study(storage=storage, study_name=name, directions=directions)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(list(objectives))  # for Optuna's dashboard, plots and data frames
        for key, text in shown_study(facts).items():
            study.set_user_attr(key, text)
        # The header comes last: a study without one counts as not begun, and is made again after a kill.
        write_header(study, header)
        return SearchStudy(url, study, header)


def open_study(url: str, name: str) -> SearchStudy:
    """Open the study of an earlier search. Nothing is written.

    Raises:
        StudyError: there is no such storage or study, or the study is damaged, of a later version, or another
            program's.
    """
    storage = open_storage(url, create=False)
    with storage_errors(url):
        if not _holds(storage, name):
            names = study_names(storage)
            hint = suggest(name, names) or f" Studies there: {', '.join(names) or 'none'}."
            raise StudyError(f"{name}: no such study in {shown_url(url)}.{hint}")
        study = optuna.load_study(study_name=name, storage=storage)
        header = read_header(study)
        if header is None:
            raise StudyError(
                f"{name}: not a study of this version of autoprune (attribute {HEADER!r} is missing or of "
                "another format). Choose another study or storage."
            )
        return SearchStudy(url, study, header)


def delete_study(study: SearchStudy) -> None:
    """Delete a study with its trials from its storage. Other studies in the storage stay.

    Raises:
        StudyError: the storage cannot be used.
    """
    storage = open_storage(study.url, create=False)
    with storage_errors(study.url):
        optuna.delete_study(study_name=study.name, storage=storage)


def study_state(url: str, name: str) -> Literal["none", "ours", "foreign"]:
    """Return whether a storage has no study of a name, one that a resume can use, or another program's.

    An empty study counts as none: its search was killed while it made the study.

    Raises:
        StudyError: the storage cannot be used.
    """
    if is_vacant(url):
        return "none"
    storage = open_storage(url, create=False)
    with storage_errors(url):
        if not _holds(storage, name):
            return "none"
        study = optuna.load_study(study_name=name, storage=storage)
        if read_header(study) is not None:
            return "ours"
        return "none" if is_blank(study) else "foreign"


def study_names(storage: BaseStorage) -> list[str]:
    """Return the names of all studies in a storage, or no names if an attribute of a study is damaged."""
    try:
        return [study.study_name for study in storage.get_all_studies()]
    except (ValueError, TypeError, RecursionError):
        return []


def _holds(storage: BaseStorage, name: str) -> bool:
    """Return whether a storage has a study of a name, even if attributes of its studies are damaged."""
    try:
        storage.get_study_id_from_name(name)
    except KeyError:
        return False
    return True
