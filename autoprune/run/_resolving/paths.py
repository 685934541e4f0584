"""Fills in the names and paths that a config leaves open, and checks that they can be written.

All paths become absolute, so that a resume from another folder finds the same files.

Example:
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

from autoprune.config.settings import ModelSettings
from autoprune.errors import ConfigError, StudyError, reason_of, shortened, shown_url, suggest
from autoprune.run._resolving.spec import ConfigSource, RunSpec
from autoprune.study import RUNS, file_of, is_in_memory, names_in_file, require_url
from autoprune.support.files import require_regular

_LONGEST_NAME = 200

_COMPANIONS = ("-wal", "-shm", "-journal")
"""Suffixes of the files that SQLite creates next to a database."""
_LONGEST_URL = 4096


def settle(config: ConfigSource, *, named: bool = True, trained_head: bool = True) -> RunSpec:
    """Fill in the study's name, its storage, the checkpoint and the output folder, and make paths absolute.

    Args:
        config: the config. It may be settled already.
        named: whether the config has to name a model and data. A script can pass its own instead.
        trained_head: whether the file of `head_file` takes the place of the checkpoint if it exists.

    Raises:
        ConfigError: model or data are not named, or named twice, or the name or the storage of the study
            cannot be used.
    """
    spec = RunSpec.of(config)
    model, data, search = spec.model, spec.data, spec.search
    if named:
        _require_one("model", name=model.name, factory=model.factory)
        _require_one("data", name=data.name, loaders=data.loaders)
        _require_function("model", "factory", model.name, model.factory)
        _require_function("data", "loaders", data.name, data.loaders)
        _require_persistent(search.storage)
    study = _study_name(spec) if search.study is None else search.study
    _require_file_name(study)
    return dataclasses.replace(
        spec,
        model=_settle_model(spec, trained_head=named and trained_head),
        data=dataclasses.replace(data, folder=_checked_path("data.folder", data.folder)),
        search=dataclasses.replace(
            search,
            study=study,
            space=_checked_path("search.space", search.space),
            storage=absolute_storage(search.storage or f"{RUNS}/{study}.db"),
        ),
        mask=dataclasses.replace(spec.mask, file=_checked_path("mask.file", spec.mask.file)),
        latency=dataclasses.replace(spec.latency, table=_checked_path("latency.table", spec.latency.table)),
        output=dataclasses.replace(
            spec.output, folder=_checked_path("output.folder", spec.output.folder or f"{RUNS}/{study}")
        ),
    )


def _study_name(spec: RunSpec) -> str:
    """Return a name for the study from the model, the data, the objectives and the budget."""
    limits = {key: value for key, value in dataclasses.asdict(spec.budget).items() if value is not None}
    words = [*spec.search.objectives[1:], *(f"{key}{value}" for key, value in limits.items())]
    return file_name_of("-".join([_label(spec), *words]))[:_LONGEST_NAME]


def _settle_model(spec: RunSpec, *, trained_head: bool) -> ModelSettings:
    """Choose the file of the dense weights: the trained new head, the user's own, or the file of `train`."""
    model, checkpoint = spec.model, spec.model.checkpoint
    has_no_weights = checkpoint is None and model.weights is None and model.name is not None
    if model.new_head:
        if trained_head and Path(head_file(spec)).exists():
            checkpoint, model = head_file(spec), dataclasses.replace(model, weights=None)
        elif has_no_weights:
            raise ConfigError(
                "model.new_head: replaces the last layer of trained weights, and none are named. Set "
                "model.checkpoint or model.weights."
            )
    elif has_no_weights:
        checkpoint = f"{RUNS}/{_label(spec)}.safetensors"
    return dataclasses.replace(model, checkpoint=_checked_path("model.checkpoint", checkpoint))


def _label(spec: RunSpec) -> str:
    """Return the name of the model and the data as a part of a file name."""
    model = spec.model.name or spec.model.factory or "model"
    return file_name_of(f"{model}-{spec.data.name or spec.data.loaders or 'data'}")


def head_file(spec: RunSpec) -> str:
    """Return the file that holds the model after `train` has trained its new last layer."""
    source = spec.model.weights if spec.model.checkpoint is None else Path(spec.model.checkpoint).stem
    return f"{RUNS}/{_label(spec)}-{file_name_of(source or 'head')}.safetensors"


def absolute_storage(storage: str) -> str:
    """Return the URL of a storage, with an absolute path if it is a file. A bare path is an SQLite file.

    Raises:
        StudyError: the URL is too long, lacks its slashes, or is a journal's without a file.
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


def find_storage(study: str, storage: str | None = None, *, or_folder_of: str = "") -> str:
    """Return the URL of the storage that holds a study: `storage`, runs/STUDY.db, or another file in runs/.

    Args:
        study: name of the study.
        storage: URL of its storage, or None to look for it.
        or_folder_of: contents of a folder that could have been named in place of the study, for the message.

    Raises:
        StudyError: no storage holds the study. The message suggests the nearest name of an existing one.
    """
    if storage is not None:
        url = absolute_storage(storage)
        file = file_of(url)
        if file is not None and file.is_dir():
            raise StudyError(
                f"--storage {shown_url(storage)}: this is a folder. Name the file of the study in it."
            )
        if file is not None and not file.exists():
            raise StudyError(
                f"--storage {shown_url(storage)}: no such file. Name the file that holds the study."
            )
        return url
    own = Path(RUNS) / f"{file_name_of(study)}.db"
    files = sorted(Path(RUNS).glob("*.db"), key=lambda path: (path != own, path))
    names: list[str] = []
    for file in files:
        there = names_in_file(file)
        if there is None and file == own:
            return absolute_storage(str(own))  # open_study reports why it cannot be read
        if there is not None and study in there:
            return absolute_storage(str(file))
        names += there or []
    also = f", and no folder of that name with {or_folder_of}" if or_folder_of else ""
    if not files:
        raise StudyError(
            f'study "{study}": no storage in {RUNS}/{also}. Name a storage with --storage sqlite:///PATH.'
        )
    known = suggest(study, names) or f" Studies there: {', '.join(names) or 'none'}."
    raise StudyError(
        f'study "{study}": no study of that name in {RUNS}/*.db{also}.{known} '
        "Another storage is named with --storage sqlite:///PATH."
    )


def probe_writable(folder: str | Path, key: str) -> None:
    """Check that a folder can be written, or created in its nearest existing parent. Leave nothing behind.

    Args:
        folder: the folder.
        key: the setting that names it, for the message.

    Raises:
        ConfigError: the folder cannot be written.
    """
    folder = Path(folder)
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        # mkstemp picks an unused name: a fixed one could be a link that leads to a file elsewhere.
        descriptor, probe = tempfile.mkstemp(prefix=".autoprune-", dir=nearest)
        os.close(descriptor)
        os.unlink(probe)
    except OSError as error:
        raise _unwritable(folder, key, error) from None


def check_writable(folder: str | Path, key: str) -> Path:
    """Create a folder and check that files can be written into it.

    Args:
        folder: the folder.
        key: the setting that names it, for the message.

    Raises:
        ConfigError: the folder cannot be created or written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, key, error) from None
    probe_writable(folder, key)
    return folder


def protected_files(storage: str, spec: RunSpec) -> dict[Path, str]:
    """Return {file: description} of all files that a study needs. No output may overwrite them."""
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
    """Refuse to overwrite a protected file, even under another name, or anything but a regular file.

    Args:
        path: the file that will be written.
        key: the option or the config's key that names it.
        kept: the protected files, {file: description}.

    Raises:
        ConfigError: the path is a protected file, or no regular file.
    """
    path = Path(path)
    for file, what in kept.items():
        if path.resolve() == file.resolve() or (path.exists() and file.exists() and path.samefile(file)):
            raise ConfigError(f"{key}: {path} is {what}. Name another file.")
    try:
        require_regular(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(
            f"{key}: {path} cannot be written ({reason_of(error)}). Name another file."
        ) from None


def _unwritable(folder: Path, key: str, error: OSError) -> ConfigError:
    return ConfigError(f"{key}: {folder} cannot be written ({reason_of(error)}). Name another folder.")


def _require_function(section: str, key: str, name: str | None, reference: str | None) -> None:
    """Refuse a function as a value of `name`, and anything but a function as a value of the other key."""
    if name is not None and ":" in name:
        raise ConfigError(
            f'{section}.name: "{name}" names a function. Write it as {section}.{key} = "{name}".'
        )
    if reference is not None and ":" not in reference:
        raise ConfigError(
            f'{section}.{key}: "{reference}" names no function. Write it as "package.module:function".'
        )


def _require_file_name(study: str) -> None:
    """Refuse a study's name that cannot be a file name. The storage and the output folder share it."""
    wanted = file_name_of(study)
    if study != wanted or not wanted or len(wanted.encode()) > _LONGEST_NAME:
        hint = f' Write e.g. "{wanted[:40]}".' if wanted else ""
        raise ConfigError(
            f'search.study: got "{study}", expected at most {_LONGEST_NAME} letters, digits or "_", "-", '
            f'".", "=", beginning and ending with none of "-" and ".".{hint}'
        )


def _require_persistent(storage: str | None) -> None:
    """Refuse a storage in memory, which no other command can open."""
    if storage is not None and is_in_memory(absolute_storage(storage)):
        raise ConfigError(
            f"search.storage: {shown_url(storage)} is lost when the command ends. Name a file, e.g. "
            "runs/study.db."
        )


def _require_one(section: str, **choices: str | None) -> None:
    given = {key: value for key, value in choices.items() if value is not None}
    empty = next((key for key, value in given.items() if not value), None)
    if empty is not None:
        raise ConfigError(f'{section}.{empty}: got "", expected a name. Set one, or leave the key out.')
    if len(given) != 1:
        known = " or ".join(f"{section}.{key}" for key in choices)
        got = " and ".join(f'{key} = "{value}"' for key, value in given.items()) or "neither"
        raise ConfigError(f"{section}: got {got}, expected one of {known}.")


def file_name_of(text: str) -> str:
    """Return a text with only the characters that every file system allows in a name."""
    return re.sub(r"[^\w.=-]+", "-", text.replace("%", "")).strip("-.")


def _checked_path(key: str, path: str | None) -> str | None:
    """Return the absolute path of a setting.

    Raises:
        ConfigError: the file system cannot have such a path, e.g. because it is too long.
    """
    absolute = _absolute(path)
    try:
        if absolute is not None:
            os.stat(absolute)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # reported where the file is needed
    except (OSError, ValueError) as error:
        raise ConfigError(f'{key}: got "{shortened(str(path))}": {reason_of(error)}.') from None
    return absolute


def _absolute(path: str | None) -> str | None:
    return None if path is None else os.path.abspath(os.path.expanduser(path))
