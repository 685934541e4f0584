"""Opens an Optuna storage by its URL.

Example:
    storage = open_storage("sqlite:///runs/fm.db", create=True)     # or journal:///runs/fm.log, postgresql://...
    is_vacant("sqlite:///runs/fm.db")                               # True if it has no tables yet
"""

from __future__ import annotations

import functools
import logging
import os
import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from sqlalchemy.pool import NullPool

from autoprune.errors import StudyError, reason_of, shown_url
from autoprune.study._database_tables import look, reading_engine
from autoprune.study._file_presence import Presence
from autoprune.study._journal import Journal
from autoprune.study._server_storage import ServerStorage
from autoprune.study._storage_errors import storage_errors
from autoprune.study._storage_url import (
    connect_options,
    file_of,
    is_in_memory,
    require_readable,
    timeout_of,
    with_driver,
)
from autoprune.support.files import require_regular

# Optuna logs seven lines about an error before it raises the error.
logging.getLogger("optuna.storages._rdb.storage").addFilter(
    lambda record: "Falling back to a slower alternative" not in record.getMessage()
)


def open_storage(url: str, *, create: bool) -> BaseStorage:
    """Open the storage behind a URL.

    Args:
        url: "sqlite:///path.db", "journal:///path.log" (relative paths, absolute ones with four slashes), or
            any other URL that Optuna and SQLAlchemy accept.
        create: make the file and its folder if they are missing.

    Raises:
        StudyError: the file is missing, locked, unwritable or not a storage, the URL is malformed or its
            password is hidden, or a driver is not installed.
    """
    require_readable(url)
    path = file_of(url)
    try:
        with storage_errors(url):
            if not url.startswith("journal:"):
                with_driver(url).get_dialect()  # refuses a driver that is missing, before a file is made
            if path is not None:
                _require_file(url, path, create)
            if path is not None and url.startswith("journal:"):
                if create:
                    path.touch()
                return JournalStorage(Journal(path, shown_url(url)))
            return _open_database(url, path, create)
    except (ValueError, TypeError, LookupError, AttributeError, AssertionError, RuntimeError) as error:
        raise StudyError(
            f"{shown_url(url)}: not a storage of Optuna's, or a broken one ({reason_of(error)})."
        ) from error


def is_vacant(url: str) -> bool:
    """Return whether a database has no tables yet, so that a study can be made in it. It is only read.

    Raises:
        StudyError: it cannot be read, or belongs to another program.
    """
    require_readable(url)
    path = file_of(url)
    if url.startswith("journal:") or is_in_memory(url):
        return False
    with storage_errors(url):
        if path is not None:
            _require_file(url, path, create=False)
        contents = look(_looking_engine(url, path))
        contents.require(create=True, shown=shown_url(url))
    return contents.is_new


def _require_file(url: str, path: Path, create: bool) -> None:
    """Make the folder of a storage's file, or refuse a file that is missing.

    Raises:
        StudyError: there is no such file.
        OSError: the folder cannot be made, or the path is a folder, a pipe, a socket or a device.
    """
    if create:
        path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        require_regular(path)
    elif not create:
        raise StudyError(
            f"{shown_url(url)}: there is no such file, so no study to open. Check search.storage."
        )


def _open_database(url: str, path: Path | None, create: bool) -> BaseStorage:
    """Open a database. Its tables are made only if it has none and `create` is set.

    Raises:
        StudyError: it belongs to another program, or has no study.
    """
    if is_in_memory(url):
        return get_storage(RDBStorage(url))
    if path is not None and not path.exists():
        path.touch()
    contents = look(_looking_engine(url, path))
    contents.require(create=create, shown=shown_url(url))
    if path is None:
        if contents.is_new:
            _server_backend(url, make_tables=True).engine.dispose()
        backend = _connected(url, os.getpid())
        if contents.is_new:
            backend.engine.dispose()  # it may hold a connection to a database that was dropped
        # The trials that an earlier ServerStorage keeps in memory may be those of a dropped database.
        return ServerStorage(backend, shown_url(url))
    presence = Presence(path, shown_url(url))
    options: dict[str, Any] = {
        "connect_args": {"timeout": timeout_of(url), "factory": functools.partial(_connect, presence)},
        # An existing database stays in the journal mode that its owner chose.
        "pool_events": [
            (functools.partial(_tune_sqlite, contents.is_new), "connect"),
            (functools.partial(_check_presence, presence), "checkout"),
        ],
    }
    return get_storage(RDBStorage(url, engine_kwargs=options, skip_table_creation=not contents.is_new))


@functools.lru_cache
def _connected(url: str, process: int) -> RDBStorage:
    """Return Optuna's storage on a server, the same one for a whole process, so that it keeps one connection.

    It holds no values of the database. A process that was forked must not use the connection of its parent.
    """
    return _server_backend(url, make_tables=False)


def _server_backend(url: str, *, make_tables: bool) -> RDBStorage:
    address = with_driver(url).render_as_string(hide_password=False)
    # Optuna checks the tables on a second connection, which would stay open in a pool of more than one.
    options: dict[str, Any] = {"connect_args": connect_options(url), "pool_size": 1}
    return RDBStorage(address, engine_kwargs=options, skip_table_creation=not make_tables)


def _looking_engine(url: str, path: Path | None) -> sqlalchemy.Engine:
    """Return an engine that looks at a database, and keeps no connection to it."""
    if path is not None:
        return reading_engine(path, timeout_of(url))
    return sqlalchemy.create_engine(with_driver(url), poolclass=NullPool, connect_args=connect_options(url))


def _connect(presence: Presence, *arguments: Any, **options: Any) -> sqlite3.Connection:
    """Connect to a file if it is still there."""
    presence.check()  # SQLite would make a new file in place of one that is gone
    return sqlite3.Connection(*arguments, **options)


def _check_presence(presence: Presence, *_: object) -> None:
    presence.check()
    presence.grow()


def _tune_sqlite(is_new: bool, connection: Any, _: Any) -> None:
    """Let readers and a writer work at the same time (WAL), and lose no commit if the power fails."""
    if is_new:
        connection.execute("PRAGMA journal_mode=WAL")
    # NORMAL would be faster, but may lose the last commits if the power fails.
    connection.execute("PRAGMA synchronous=FULL")
