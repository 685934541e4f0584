"""Goes on with a study of the same name, or replaces it, by the argument if_exists of a search.

Example:
    changes = changes_since(study, spec)         # ["search.trials=100"]: the changes that a resume makes
    require_replaceable(study)                   # StudyError if a process may still work on it
    remove_study(study, consent)                 # the study and its own files
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from autoprune.errors import CheckpointError, StudyError, shown_value
from autoprune.exporting import PAGE, RECIPE, WEIGHTS, read_recipe
from autoprune.flow import to_values
from autoprune.reporting import FORMATS
from autoprune.run._checks.trust import Consent, require_own_path
from autoprune.run._measuring.moments import MOMENTS
from autoprune.run._measuring.sparse import SPARSE, is_sparsified
from autoprune.run._measuring.supernet_training import SUPERNET
from autoprune.run._resolving.spec import AUTO, RunSpec
from autoprune.run._resolving.stored_config import CHANGEABLE, stored_spec
from autoprune.run._results.artefact import derived_files
from autoprune.run._results.dashboard import dashboard_files
from autoprune.run._results.finetune_result import noted_folders
from autoprune.run._results.tracking import tracker_files
from autoprune.run._trials.retraining import training_state
from autoprune.study import SearchStudy, delete_study
from autoprune.support.leases import this_process

_CHOSEN = (
    "search.divisor",
    "search.setting",
    "search.storage",
    "score.learning_rate",
    "score.optimizer",
)
"""Keys whose stored values a search may have measured, derived from others or hidden."""


def changes_since(study: SearchStudy, spec: RunSpec) -> list[str]:
    """Return "section.key=value" of the settings with which a search would go on with an existing study.

    Args:
        study: the existing study.
        spec: the settings of the new call.

    Raises:
        StudyError: a setting differs that cannot change during a study.
    """
    before, now = dict(_keys(to_values(stored_spec(study)))), dict(_keys(to_values(spec)))
    differing = [key for key in now if now[key] != before.get(key) and not _is_chosen(key, now[key])]
    fixed = [key for key in differing if key not in CHANGEABLE and not key.startswith("finetune.")]
    if fixed and not is_sparsified(spec):  # a sparsified study names the sparse model as its own
        key = fixed[0]
        more = f" ({len(fixed) - 1} more like this)" if len(fixed) > 1 else ""
        raise StudyError(
            f"{study.name}: the study has {key} = {shown_value(before.get(key))}, now {shown_value(now[key])}"
            f"{more}: a resume cannot change it. Choose another search.study, or replace the study with "
            'if_exists = "overwrite".'
        )
    changed = [key for key in differing if key not in fixed]
    return [f"{key}={'none' if now[key] is None else json.dumps(now[key])}" for key in changed]


def _is_chosen(key: str, value: Any) -> bool:
    return key in _CHOSEN and (value in (None, AUTO) or key == "search.storage")


def _keys(values: Mapping[str, Any], section: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of nested sections."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _keys(value, f"{section}{key}.")
        else:
            yield f"{section}{key}", value


def require_replaceable(study: SearchStudy) -> None:
    """Refuse to replace a study on which another process works, or may work on another host.

    Raises:
        StudyError: a process holds a trial or the race. The message names it.
    """
    held = [lease for lease in study.holders() if lease != this_process()]
    if held:
        names = ", ".join(sorted({f"process {lease.pid} on {lease.host}" for lease in held}))
        raise StudyError(
            f"{study.name}: {names} may still work on this study, so it is not replaced. End it, or choose "
            "another search.study. If its host is gone, resume the study with --take-over first."
        )


def remove_study(study: SearchStudy, consent: Consent) -> None:
    """Delete a study from its storage, and the files that it has written. Other files and folders stay.

    The latency table and the dense model stay too, because they do not depend on the trials.

    Raises:
        StudyError: the study wrote to a folder that is neither in the current one nor named by this user.
    """
    spec = stored_spec(study)
    require_own_path(study, "output.folder", spec.folder, consent)
    folders = noted_folders(study)
    for folder in folders:
        require_own_path(study, "output.folder", folder, consent)
    files = [*_pictures(spec.folder), *_training_states(study, spec)]
    for kind in (SUPERNET, MOMENTS):
        note = kind.noted(study)
        if note is not None:
            files.append(spec.folder / Path(note.path).name)
    if (spec.folder / SPARSE).as_posix() == str(spec.model.checkpoint):
        files += [spec.folder / SPARSE, (spec.folder / SPARSE).with_suffix(".json")]
    for folder in folders:
        if _holds_model_of(folder, study):
            files += [folder / WEIGHTS, folder / RECIPE, *derived_files(folder)]
    added = [*tracker_files(study, spec.folder), *dashboard_files(study)]
    delete_study(study)
    for file in files:
        _remove(file, folders=False)
    for path in added:
        _remove(path, folders=True)
    places = {place for file in added for place in (file.parent, file.parent.parent)}
    for folder in (*sorted(places, reverse=True), *folders, spec.folder):
        with contextlib.suppress(OSError):  # a folder that holds anything else stays
            folder.rmdir()


def _remove(path: Path, *, folders: bool) -> None:
    """Remove a file or a link if it exists, and a folder with all that it holds if `folders` is set."""
    if path.is_file() or path.is_symlink():
        path.unlink()
    elif folders and path.is_dir():
        shutil.rmtree(path)


def _holds_model_of(folder: Path, study: SearchStudy) -> bool:
    """Return whether the recipe in a folder names this study. Several studies may share an output folder."""
    try:
        return read_recipe(folder).extra.get("study") == study.name
    except CheckpointError:
        return False


def _training_states(study: SearchStudy, spec: RunSpec) -> Iterator[Path]:
    """Yield the files of all trainings that a race or a finetune may have begun."""
    race = study.race()
    rates = [] if race is None else [tried.learning_rate for tried in race.result.tried]
    for record in study.records():
        for rate in (None, *rates):
            yield training_state(spec.with_learning_rate(rate), record.candidate)


def _pictures(folder: Path) -> list[Path]:
    return [folder / PAGE, *(folder / f"{name}.{end}" for name in ("report", "stairs") for end in FORMATS)]
