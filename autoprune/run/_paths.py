"""Where a run keeps things: the names and paths that a config leaves open, filled in and made absolute.

The study stores them so that a resume from another folder finds the same files.

    spec = settle(load_config("run.toml"))
    spec.search.storage           # "sqlite:////home/me/runs/resnet20-digits-flops50.db"
"""

from __future__ import annotations

import dataclasses
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy.engine import make_url

from autoprune.errors import ConfigError, StudyError, reason_of, shortened, shown_url, suggest
from autoprune.run._spec import ConfigSource, RunSpec
from autoprune.study import file_of, is_in_memory, names_in_file, require_url
from autoprune.support.files import require_regular

RUNS = "runs"
_LONGEST_NAME = 200

_COMPANIONS = ("-wal", "-shm", "-journal")
"""Suffixes of the files that SQLite keeps next to a database."""
_LONGEST_URL = 4096


def settle(config: ConfigSource, *, named: bool = True) -> RunSpec:
    """Name the study, its storage, the checkpoint and the output folder, and make all paths absolute.

    Args:
        config: as it was read, or settled already.
        named: whether the config has to name a model and data; a script may bring its own instead.

    Raises:
        ConfigError: neither a model nor data are named, or both of two that exclude each other; or the
            study's name or storage cannot be used.
    """
    spec = RunSpec.of(config)
    model, data, search = spec.model, spec.data, spec.search
    if named:
        _require_one("model", name=model.name, factory=model.factory)
        _require_one("data", name=data.name, loaders=data.loaders)
        _require_function("model", "factory", model.name, model.factory)
        _require_function("data", "loaders", data.name, data.loaders)
        _require_persistent(search.storage)
    model_label = model.name or model.factory
    label = file_name_of(f"{model_label or 'model'}-{data.name or data.loaders or 'data'}")
    limits = {key: value for key, value in dataclasses.asdict(spec.budget).items() if value is not None}
    study = search.study
    if study is None:
        words = [*search.objectives[1:], *(f"{key}{value}" for key, value in limits.items())]
        study = file_name_of("-".join([label, *words]))[:_LONGEST_NAME]
    _require_file_name(study)
    checkpoint = model.checkpoint
    if checkpoint is None and model.weights is None and model.name is not None:
        checkpoint = f"{RUNS}/{label}.safetensors"
    return dataclasses.replace(
        spec,
        model=dataclasses.replace(model, checkpoint=_checked_path("model.checkpoint", checkpoint)),
        data=dataclasses.replace(data, folder=_checked_path("data.folder", data.folder)),
        search=dataclasses.replace(
            search,
            study=study,
            space=_checked_path("search.space", search.space),
            storage=absolute_storage(search.storage or f"{RUNS}/{study}.db"),
        ),
        latency=dataclasses.replace(spec.latency, table=_checked_path("latency.table", spec.latency.table)),
        output=dataclasses.replace(
            spec.output, folder=_checked_path("output.folder", spec.output.folder or f"{RUNS}/{study}")
        ),
    )


def absolute_storage(storage: str) -> str:
    """Return a storage's URL with the path of a file made absolute; a bare path is an SQLite file.

    Raises:
        StudyError: a journal's URL that names no file, a scheme without its slashes, or one that is too long.
    """
    if len(storage) > _LONGEST_URL:
        raise StudyError(
            f"{shown_url(storage)}: got a storage of {len(storage):,} characters, expected at most "
            f"{_LONGEST_URL:,}."
        )
    require_url(storage)
    url = storage if "://" in storage else f"sqlite:///{storage}"
    file = file_of(url)
    path = None if file is None else _absolute(str(file))
    if path is None or path == str(file):
        return url
    if url.startswith("journal:"):
        return f"journal:///{path}"
    read = make_url(url)
    scheme = "file:" if str(read.database).startswith("file:") else ""
    return read.set(database=f"{scheme}{path}").render_as_string(hide_password=False)


def find_storage(study: str, storage: str | None = None) -> str:
    """Return the storage that holds `study`: the one given, runs/STUDY.db, or another file in runs/.

    Raises:
        StudyError: no storage holds it; the nearest name among those there are is suggested.
    """
    if storage is not None:
        url = absolute_storage(storage)
        file = file_of(url)
        if file is not None and file.is_dir():
            raise StudyError(
                f"--storage {shown_url(storage)}: it is a folder; name the file of the study in it."
            )
        if file is not None and not file.exists():
            raise StudyError(
                f"--storage {shown_url(storage)}: no such file; there is no study to go on with."
            )
        return url
    own = Path(RUNS) / f"{file_name_of(study)}.db"
    files = sorted(Path(RUNS).glob("*.db"), key=lambda path: (path != own, path))
    names: list[str] = []
    for file in files:
        there = names_in_file(file)
        if there is None and file == own:
            return absolute_storage(str(own))  # whoever opens it says what is wrong with it
        if there is not None and study in there:
            return absolute_storage(str(file))
        names += there or []
    if not files:
        raise StudyError(f'study "{study}": no storage in {RUNS}/; name one with --storage sqlite:///PATH.')
    known = suggest(study, names) or f" Studies there: {', '.join(names) or 'none'}."
    raise StudyError(
        f'study "{study}": no study of that name in {RUNS}/*.db.{known} '
        "Another storage is named with --storage sqlite:///PATH."
    )


def probe_writable(folder: str | Path, key: str) -> None:
    """Prove that a folder can be written, or made in the nearest one that exists, and leave nothing behind.

    Raises:
        ConfigError: it cannot; `key` names the setting.
    """
    folder = Path(folder)
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        # A name that is free: a link of a name that could be guessed might lead anywhere.
        descriptor, probe = tempfile.mkstemp(prefix=".autoprune-", dir=nearest)
        os.close(descriptor)
        os.unlink(probe)
    except OSError as error:
        raise _unwritable(folder, key, error) from None


def check_writable(folder: str | Path, key: str) -> Path:
    """Make a folder and prove that files can be written into it.

    Raises:
        ConfigError: it cannot be made or written; `key` names the setting.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, key, error) from None
    probe_writable(folder, key)
    return folder


def protected_files(storage: str, spec: RunSpec) -> dict[Path, str]:
    """Return {file: description} of all files that a study rests on: no result may take their place."""
    kept: dict[Path, str] = {}
    file = file_of(absolute_storage(storage))
    if file is not None:
        kept |= {Path(f"{file}{end}"): "the storage of the study" for end in ("", *_COMPANIONS)}
    if spec.model.checkpoint is not None:
        checkpoint = Path(spec.model.checkpoint)
        kept |= {path: "the dense model" for path in (checkpoint, checkpoint.with_suffix(".json"))}
    for key, path in (("search.space", spec.search.space), ("latency.table", spec.latency.table)):
        if path is not None:
            kept[Path(path)] = f"the file of {key}"
    return kept


def require_unprotected(path: str | os.PathLike[str], key: str, kept: Mapping[Path, str]) -> None:
    """Refuse to write to a file that is to be kept, under whatever name, or to anything but a regular file.

    Args:
        path: the file that is about to be written.
        key: the option or the config's key that names it.
        kept: {file: description}.

    Raises:
        ConfigError: it would be lost.
    """
    path = Path(path)
    for file, what in kept.items():
        if path.resolve() == file.resolve() or (path.exists() and file.exists() and path.samefile(file)):
            raise ConfigError(f"{key}: {path} is {what}; name another file.")
    try:
        require_regular(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(
            f"{key}: {path} cannot be written ({reason_of(error)}); name another file."
        ) from None


def _unwritable(folder: Path, key: str, error: OSError) -> ConfigError:
    return ConfigError(f"{key}: {folder} cannot be written ({reason_of(error)}); name another folder.")


def _require_function(section: str, key: str, name: str | None, reference: str | None) -> None:
    """Refuse a function under the key of names, and what is no function under the key of functions."""
    if name is not None and ":" in name:
        raise ConfigError(
            f'{section}.name: "{name}" names a function; write it as {section}.{key} = "{name}".'
        )
    if reference is not None and ":" not in reference:
        raise ConfigError(
            f'{section}.{key}: "{reference}" names no function; write it as "package.module:function".'
        )


def _require_file_name(study: str) -> None:
    """Refuse a study's name that is no name of a file: it names a storage and a folder of results too."""
    wanted = file_name_of(study)
    if study != wanted or not wanted or len(wanted.encode()) > _LONGEST_NAME:
        hint = f' Write e.g. "{wanted[:40]}".' if wanted else ""
        raise ConfigError(
            f'search.study: got "{study}", expected at most {_LONGEST_NAME} letters, digits or "_", "-", '
            f'".", "=", beginning and ending with none of "-" and ".".{hint}'
        )


def _require_persistent(storage: str | None) -> None:
    """Refuse a study in memory where it has to be found again by another command."""
    if storage is not None and is_in_memory(absolute_storage(storage)):
        raise ConfigError(
            f"search.storage: {shown_url(storage)} is gone when the command ends; name a file, e.g. "
            "runs/study.db."
        )


def _require_one(section: str, **choices: str | None) -> None:
    given = {key: value for key, value in choices.items() if value is not None}
    empty = next((key for key, value in given.items() if not value), None)
    if empty is not None:
        raise ConfigError(f'{section}.{empty}: got "", expected a name; give one, or leave the key out.')
    if len(given) != 1:
        known = " or ".join(f"{section}.{key}" for key in choices)
        got = " and ".join(f'{key} = "{value}"' for key, value in given.items()) or "neither"
        raise ConfigError(f"{section}: got {got}, expected one of {known}.")


def file_name_of(text: str) -> str:
    """Keep what every file system takes in a name."""
    return re.sub(r"[^\w.=-]+", "-", text.replace("%", "")).strip("-.")


def _checked_path(key: str, path: str | None) -> str | None:
    """Return the absolute path of a setting.

    Raises:
        ConfigError: no file system takes such a path.
    """
    absolute = _absolute(path)
    try:
        if absolute is not None:
            os.stat(absolute)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # whoever needs the file says so
    except (OSError, ValueError) as error:
        raise ConfigError(f'{key}: got "{shortened(str(path))}": {reason_of(error)}.') from None
    return absolute


def _absolute(path: str | None) -> str | None:
    return None if path is None else os.path.abspath(os.path.expanduser(path))
