"""Where a run keeps things: the names and paths that a config leaves open, filled in and made absolute.

Before: a config as it was read; after: every verb, and the study, which stores the config so that a resume
from another folder finds the same files.

    config = settle(load_config("run.toml"))
    config.search.storage         # "sqlite:////home/me/runs/resnet20-digits-flops50.db"
"""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

from autoprune.errors import ConfigError, StudyError
from autoprune.settings import RunConfig

RUNS = "runs"
_FILES = ("sqlite:///", "journal:///")


def settle(config: RunConfig, *, named: bool = True) -> RunConfig:
    """Name the study, its storage, the checkpoint and the output folder, and make all paths absolute.

    Args:
        config: as it was read, or settled already.
        named: whether the config has to name a model and data; a script may bring its own instead.

    Raises:
        ConfigError: neither a model nor data are named, or both of two that exclude each other.
    """
    model, data, search = config.model, config.data, config.search
    if named:
        _require_one("model", name=model.name, factory=model.factory)
        _require_one("data", name=data.name, loaders=data.loaders)
    model_label = model.name or model.factory
    label = _plain(f"{model_label or 'model'}-{data.name or data.loaders or 'data'}")
    limits = {key: value for key, value in dataclasses.asdict(config.budget).items() if value is not None}
    study = search.study or _plain("-".join([label, *(f"{key}{value}" for key, value in limits.items())]))
    checkpoint = model.checkpoint
    if checkpoint is None and model.weights is None and model.name is not None:
        checkpoint = f"{RUNS}/{label}.safetensors"
    return dataclasses.replace(
        config,
        model=dataclasses.replace(model, checkpoint=_absolute(checkpoint)),
        data=dataclasses.replace(data, folder=_absolute(data.folder)),
        search=dataclasses.replace(
            search,
            study=study,
            space=_absolute(search.space),
            storage=absolute_storage(search.storage or f"{RUNS}/{_plain(study)}.db"),
        ),
        output=dataclasses.replace(
            config.output, folder=_absolute(config.output.folder or f"{RUNS}/{study}")
        ),
    )


def absolute_storage(storage: str) -> str:
    """Return a storage's URL with the path of a file made absolute; a bare path is an SQLite file."""
    if "://" not in storage:
        storage = f"{_FILES[0]}{storage}"
    kind, path = _file_of(storage)
    return storage if path is None else f"{kind}{_absolute(path)}"


def storage_file(storage: str) -> Path | None:
    """Return the file behind a storage's URL; None for servers and for memory."""
    _, path = _file_of(storage)
    return None if path is None else Path(path.partition("?")[0])


def find_storage(study: str, storage: str | None = None) -> str:
    """Return the storage that holds `study`: the one given, runs/STUDY.db, or the only one in runs/.

    Raises:
        StudyError: there is none, or there are several to choose from.
    """
    if storage is not None:
        url = absolute_storage(storage)
        file = storage_file(url)
        if file is not None and not file.is_file():
            raise StudyError(f"--storage {storage}: no such file; there is no study to go on with.")
        return url
    own = Path(RUNS) / f"{_plain(study)}.db"
    found = [own] if own.is_file() else sorted(Path(RUNS).glob("*.db"))
    if len(found) == 1:
        return absolute_storage(str(found[0]))
    names = ", ".join(path.name for path in found)
    raise StudyError(
        f'study "{study}": {"several storages" if found else "no storage"} in {RUNS}/'
        f"{f' ({names})' if found else ''}; name one with --storage sqlite:///PATH."
    )


def check_writable(folder: str | Path, key: str) -> Path:
    """Make a folder and prove that files can be written into it.

    Raises:
        ConfigError: it cannot be made or written; `key` names the setting.
    """
    folder = Path(folder)
    probe = folder / f".autoprune-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"{key}: {folder} cannot be written ({reason}); name another folder.") from None
    return folder


def _require_one(section: str, **choices: str | None) -> None:
    given = {key: value for key, value in choices.items() if value is not None}
    if len(given) != 1:
        known = " or ".join(f"{section}.{key}" for key in choices)
        got = " and ".join(f'{key} = "{value}"' for key, value in given.items()) or "neither"
        raise ConfigError(f"{section}: got {got}, expected one of {known}.")


def _file_of(storage: str) -> tuple[str, str | None]:
    for kind in _FILES:
        if storage.startswith(kind) and not storage.endswith(":memory:"):
            return kind, storage.removeprefix(kind)
    return storage, None


def _plain(text: str) -> str:
    """Keep what every file system takes in a name."""
    return re.sub(r"[^\w.=-]+", "-", text.replace("%", "")).strip("-")


def _absolute(path: str | None) -> str | None:
    return None if path is None else os.path.abspath(os.path.expanduser(path))
