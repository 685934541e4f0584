"""Gives Optuna's dashboard a note on a study, and files of the study and of its trials.

Example:
    save_note(study, "# fm-50 ...")                                     # Markdown on the page of the study
    keep_file(study, Path("runs/fm/report.html"), folder)               # among its artifacts
    keep_file(study, Path("runs/fm/best/recipe.json"), folder, trial=17)

The dashboard's own functions are not used, so that its package is needed to look at a study alone.
"""

from __future__ import annotations

import contextlib
import json
import math
import mimetypes
import re
import uuid
from collections.abc import Collection, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from optuna.artifacts import ArtifactMeta, FileSystemArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound

from autoprune.errors import StudyError, reason_of
from autoprune.study._search_study import SearchStudy
from autoprune.study._shown_attributes import BEST, VERDICT

_VERSION, _PART = "dashboard:note_ver", "dashboard:note_str:"
_PART_CHARS = 2045
"""Length of a part of a note, as the dashboard cuts it."""

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_LINE = "*Text below this line is yours. It is kept.*"


def show(study: SearchStudy, *, best: str, verdict: str) -> None:
    """Store the best trial and the verdict among the attributes that the dashboard lists first.

    Raises:
        StudyError: the storage cannot be written.
    """
    with study.storage_errors():
        stored = study.optuna.user_attrs
        for key, text in {BEST: best, VERDICT: verdict}.items():
            if stored.get(key) != text:
                study.optuna.set_user_attr(key, text)


def save_note(study: SearchStudy, text: str) -> None:
    """Store a note on a study as Markdown. Text that a user has added to the note stays below it.

    Raises:
        StudyError: the storage cannot be written.
    """
    with study.storage_errors():
        storage, number = study.optuna._storage, study.optuna._study_id
        attributes = storage.get_study_system_attrs(number)
        stored = {key: value for key, value in attributes.items() if key.startswith(_PART)}
        before = "".join(str(stored.get(f"{_PART}{part}", "")) for part in range(len(stored)))
        _, line, added = before.partition(_LINE)
        below = added if line or not before else f"\n\n{before}"
        body = f"{text}\n\n---\n\n{_LINE}{below}"
        if body == before:
            return
        parts = math.ceil(len(body) / _PART_CHARS)
        for part in range(max(parts, len(stored))):
            piece = body[part * _PART_CHARS : (part + 1) * _PART_CHARS]
            storage.set_study_system_attr(number, f"{_PART}{part}", piece)
        storage.set_study_system_attr(number, _VERSION, int(attributes.get(_VERSION, 0)) + 1)


def keep_file(study: SearchStudy, file: Path, folder: Path, *, trial: int | None = None) -> None:
    """Copy a file among the artifacts of a study or of a trial. A file of the same name is replaced.

    Args:
        study: the study.
        file: the file.
        folder: the folder of the artifacts, which a dashboard needs as `--artifact-dir`. It is made if it is
            missing.
        trial: number of a trial, whose page shows the file, or None for the page of the study.

    Raises:
        StudyError: the file cannot be copied, or the storage cannot be written.
    """
    prefix = "artifacts:"
    with study.storage_errors():
        storage, number = study.optuna._storage, study.optuna._study_id
        if trial is not None:
            # A trial that has ended takes no attributes, so the dashboard also looks for them in its study.
            trial_id = storage.get_trial_id_from_study_id_trial_number(number, trial)
            prefix = f"dashboard:artifacts:{trial_id}:"
        attributes = storage.get_study_system_attrs(number)
    known = _known_files(value for key, value in attributes.items() if key.startswith(prefix))
    name = known.get(file.name) or str(uuid.uuid4())
    _copy(file, folder, name)
    if file.name not in known:
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        meta = ArtifactMeta(artifact_id=name, filename=file.name, mimetype=kind, encoding=None)
        with study.storage_errors():
            storage.set_study_system_attr(number, f"{prefix}{name}", json.dumps(asdict(meta)))


def _known_files(values: Iterable[Any]) -> dict[str, str]:
    """Return {name of a file: its artifact}. Malformed ones, as in a received study, count as none."""
    known = {}
    for value in values:
        try:
            meta = json.loads(value)
            known[str(meta["filename"])] = str(uuid.UUID(meta["artifact_id"]))
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
            continue
    return known


def kept_files(study: SearchStudy, folder: Path, names: Collection[str]) -> list[Path]:
    """Return the files of a folder of artifacts that `keep_file` has copied for a study and its trials.

    Args:
        study: the study.
        folder: the folder of the artifacts. Other studies may have theirs in it.
        names: names of the files before they were copied. Files that a user has added to the dashboard under
            other names are left out.

    Raises:
        StudyError: the storage cannot be read.
    """
    with study.storage_errors():
        attributes = study.optuna._storage.get_study_system_attrs(study.optuna._study_id)
    found = []
    for key, value in attributes.items():
        if key.startswith(("artifacts:", "dashboard:artifacts:")):
            name = key.rpartition(":")[2]
            meta = json.loads(value) or {}  # null if a user has deleted the file in the dashboard
            # A received storage may name files elsewhere.
            if _UUID.fullmatch(name) and meta.get("filename") in names:
                found.append(folder / name)
    return [] if folder.is_symlink() else found


def _copy(file: Path, folder: Path, name: str) -> None:
    """Copy a file into an artifact store, unless the store has it already.

    Raises:
        StudyError: it cannot be copied.
    """
    try:
        # In a received folder this may be a link to elsewhere.
        if folder.is_symlink():
            raise StudyError(f"{folder}: it is a link. Put a folder in its place to keep artifacts there.")
        folder.mkdir(parents=True, exist_ok=True)
        store, kept = FileSystemArtifactStore(folder), folder / name
        if kept.is_file() and not kept.is_symlink():
            old, new = kept.stat(), file.stat()
            if (old.st_size, old.st_mtime >= new.st_mtime) == (new.st_size, True):
                return
        with contextlib.suppress(ArtifactNotFound):
            store.remove(name)
        with file.open("rb") as source:
            store.write(name, source)
    except (OSError, ValueError) as error:
        raise StudyError(f"{file}: it cannot be kept in {folder} ({reason_of(error)}).") from error
