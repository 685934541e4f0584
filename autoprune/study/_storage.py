"""Opens an Optuna storage by its URL, and turns whatever goes wrong there into one clear line.

storage = open_storage("sqlite:///runs/fm.db", create=True)     # or journal:///runs/fm.log, postgresql://...
with storage_errors("sqlite:///runs/fm.db"):
    ...
study_command("resume", "fm-50", "sqlite:///runs/fm.db")        # the command in a message
"""

from __future__ import annotations

import functools
import json
import logging
import math
import re
import shlex
import sqlite3
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy.exc
from optuna.exceptions import OptunaError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import NullPool

from autoprune.errors import HIDDEN, StudyError, reason_of, shortened, shown_url
from autoprune.study._database_tables import look, reading_engine
from autoprune.study._file_presence import Presence
from autoprune.study._journal import Journal
from autoprune.study._leases import TakenOverError
from autoprune.support.files import require_regular

LOCK_TIMEOUT_S = 20.0
"""How long a write waits for another process's lock on SQLite; `?timeout=5` in the URL overrides it."""

DRIVERS = {
    "postgresql": ("psycopg", "postgresql", "postgresql+psycopg"),
    "mysql": ("pymysql", "mysql", "mysql+pymysql"),
    "mariadb": ("pymysql", "mysql", "mariadb+pymysql"),
}
"""Kind of server -> its driver, the extra that installs it, and the scheme of the URLs that use it."""

# Optuna logs seven lines of an error that it then raises all the same.
logging.getLogger("optuna.storages._rdb.storage").addFilter(
    lambda record: "Falling back to a slower alternative" not in record.getMessage()
)

_FULL = "the disk is full; make room on it, then give the same command again."

_NOT_FOUND = "Record does not exist."
"""Optuna's KeyError for a study or a trial that is gone."""

_BARE = re.compile(r"(journal|sqlite|postgresql|mysql|mariadb|oracle|mssql)(\+\w+)?:(?!//)")
"""A scheme without the two slashes of a URL."""


def open_storage(url: str, *, create: bool) -> BaseStorage:
    """Open the storage behind a URL.

    Args:
        url: "sqlite:///path.db", "journal:///path.log" (relative paths; four slashes make them absolute), or
            any other URL that Optuna and SQLAlchemy take.
        create: make the file and its folder where they are missing.

    Raises:
        StudyError: the file is missing, locked, unwritable or not a storage, or a driver is not installed; or
            the URL's password is hidden, or cannot be read.
    """
    _require_readable(url)
    path = file_of(url)
    try:
        with storage_errors(url):
            if not url.startswith("journal:"):
                make_url(url).get_dialect()  # one that is not installed is refused before a file is made
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
    """Tell whether a database holds no tables yet, so that a study can be made in it. It is only read.

    Raises:
        StudyError: it cannot be read, or is another program's.
    """
    _require_readable(url)
    path = file_of(url)
    if url.startswith("journal:") or is_in_memory(url):
        return False
    with storage_errors(url):
        if path is not None:
            _require_file(url, path, create=False)
        contents = look(_looking_engine(url, path))
        contents.require(create=True, shown=shown_url(url))
    return contents.is_new


def _require_readable(url: str) -> None:
    """Refuse a malformed URL, one as messages show it, and a password that would be read, in part, as a host.

    Raises:
        StudyError: it is one of these.
    """
    if re.search(rf"[:=]{re.escape(HIDDEN)}(@|&|$)", url):
        raise StudyError(
            f"{shown_url(url)}: its password is hidden; write the password in place of {HIDDEN}."
        )
    if re.search("://[^:/]*:[^@]*@[^/?]*@", url):
        raise StudyError(f'{shown_url(url)}: within a password, "@" is written as %40.')
    parsed = _parsed(url)
    if parsed is None and not url.startswith("journal:"):
        raise StudyError(
            f"{shown_url(url)}: not a URL of a storage, such as sqlite:///runs/study.db, "
            "journal:///runs/study.log or postgresql+psycopg://user:password@host:5432/database."
        )
    if parsed is not None and url.startswith("sqlite"):
        _require_options(parsed, shown_url(url))


def _require_options(url: URL, shown: str) -> None:
    """Refuse options of an SQLite URL that would be read as part of the file's name, or not at all.

    Raises:
        StudyError: an option is unknown or has a value that cannot be used.
    """
    others = sorted(set(url.query) - {"timeout"})
    if others and not (url.database or "").startswith("file:"):  # SQLite's own URIs have options of theirs
        raise StudyError(
            f'{shown}: got the option "{shortened(others[0])}" of a storage, expected none but "timeout".'
        )
    timeout = url.query.get("timeout", "0")
    try:
        valid = 0 <= float(str(timeout)) < math.inf
    except ValueError:
        valid = False
    if not valid:
        raise StudyError(
            f'{shown}: got timeout "{shortened(str(timeout))}" of a storage, expected a number of seconds.'
        )


def _require_file(url: str, path: Path, create: bool) -> None:
    """Make the folder of a storage's file, or refuse a file that is missing or is no regular file.

    Raises:
        StudyError: there is no such file.
        OSError: the folder cannot be made, or the path leads to a folder, a pipe, a socket or a device.
    """
    if create:
        path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        require_regular(path)
    elif not create:
        raise StudyError(
            f"{shown_url(url)}: there is no such file, so no study to open; check search.storage."
        )


def _open_database(url: str, path: Path | None, create: bool) -> BaseStorage:
    """Open a database. Its tables are made only if it holds none and `create` is set.

    Raises:
        StudyError: it is another program's, or holds no study.
    """
    if is_in_memory(url):
        return get_storage(RDBStorage(url))
    if path is not None and not path.exists():
        path.touch()
    contents = look(_looking_engine(url, path))
    contents.require(create=create, shown=shown_url(url))
    options: dict[str, Any] = {}
    if path is not None:
        presence = Presence(path, shown_url(url))
        options["connect_args"] = {
            "timeout": _timeout_of(url),
            "factory": functools.partial(_connect, presence),
        }
        # A database that is there already stays in the mode in which its owner made it.
        options["pool_events"] = [
            (functools.partial(_tune_sqlite, contents.is_new), "connect"),
            (functools.partial(_check_presence, presence), "checkout"),
        ]
    return get_storage(RDBStorage(url, engine_kwargs=options, skip_table_creation=not contents.is_new))


def _looking_engine(url: str, path: Path | None) -> sqlalchemy.Engine:
    """Return an engine that looks at a database once, and keeps no connection to it."""
    if path is not None:
        return reading_engine(path, _timeout_of(url))
    return sqlalchemy.create_engine(url, poolclass=NullPool)


def _timeout_of(url: str) -> float:
    parsed = _parsed(url)
    return float(str(parsed.query.get("timeout", LOCK_TIMEOUT_S))) if parsed else LOCK_TIMEOUT_S


def _connect(presence: Presence, *arguments: Any, **options: Any) -> sqlite3.Connection:
    """Connect to a file that is still there: SQLite would make a new one in the place of one that is gone."""
    presence.check()
    return sqlite3.Connection(*arguments, **options)


def _check_presence(presence: Presence, *_: object) -> None:
    presence.check()
    presence.grow()


def _tune_sqlite(is_new: bool, connection: Any, _: Any) -> None:
    """Let readers and a writer work at once (WAL), and lose nothing committed, not even at a power cut.

    synchronous=NORMAL would be faster, but may lose the last commits when the power fails.
    """
    if is_new:
        connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def is_in_memory(url: str) -> bool:
    """Tell whether a storage lives in the memory of one process, and is gone with it."""
    if not url.startswith("sqlite"):
        return False
    parsed = _parsed(url)
    if parsed is None:
        return False
    database = parsed.database or ""
    return not database or ":memory:" in database or "mode=memory" in url


def _parsed(url: str) -> URL | None:
    """Return the parts of a URL; None if it is malformed."""
    try:
        return make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):  # a port that is no number is a ValueError
        return None


def study_command(verb: str, study: str, url: str, *options: str) -> str:
    """Return a command line that goes on with a study, as messages show it: without the URL's password."""
    return shlex.join(["autoprune", verb, study, "--storage", shown_url(url), *options])


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Raise a StudyError of one line for whatever a storage raises inside the block.

    A write to a trial that has ended is a TakenOverError: nobody but another process can have ended it.
    """
    try:
        yield
    except KeyboardInterrupt as interruption:
        # Its frames hold a query that has begun. While that is open, SQLite lets its connection write nothing
        # once another connection has written.
        traceback.clear_frames(interruption.__traceback__)
        raise
    except UpdateFinishedTrialError as error:
        raise TakenOverError(f"{shown_url(url)}: {reason_of(error)} Another process ended it.") from error
    except KeyError as error:
        if error.args != (_NOT_FOUND,):
            raise
        raise StudyError(
            f"{shown_url(url)}: the study is not there any more: it was deleted, or the database replaced, "
            "while it was in use; put the former one back, or begin another search."
        ) from error
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        if not _is_unreadable(error):
            raise
        raise StudyError(
            f"{shown_url(url)}: it is damaged: a row of it cannot be read ({reason_of(error)}); restore it "
            "from a copy."
        ) from error
    except (sqlalchemy.exc.SQLAlchemyError, OptunaError, ImportError, OSError) as error:
        raise StudyError(f"{shown_url(url)}: {_explain(url, error)}") from error


def _is_unreadable(error: Exception) -> bool:
    """Tell whether Optuna met a row that it cannot have written: no JSON, no date, no state of a trial."""
    signs = ("isoformat", "defined enum values", "could not convert string", "must be real number")
    unreadable = isinstance(error, json.JSONDecodeError) or "while decoding a JSON" in str(error)
    return unreadable or any(sign in str(error) for sign in signs)


def file_of(url: str) -> Path | None:
    """Return the file behind an SQLite or journal URL; None for servers and for SQLite in memory.

    Raises:
        StudyError: a journal's URL that names no file.
    """
    if url.startswith("journal:"):
        if not url.startswith("journal:///") or url == "journal:///":
            raise StudyError(
                f"{shown_url(url)}: expected journal:///relative/path.log or journal:////absolute/path.log."
            )
        return Path(url.removeprefix("journal:///"))
    if not url.startswith("sqlite") or is_in_memory(url):
        return None
    parsed = _parsed(url)
    if parsed is None:
        return None  # `open_storage` refuses it
    database = str(parsed.database)
    return Path(database.removeprefix("file:") if "uri" in parsed.query else database)


def require_url(storage: str) -> None:
    """Refuse a storage that begins as a URL and lacks its slashes. A bare path is fine.

    Raises:
        StudyError: it is one.
    """
    match = _BARE.match(storage)
    if match:
        scheme = storage.partition(":")[0]
        example = "journal:///runs/study.log" if scheme == "journal" else f"{scheme}://..."
        raise StudyError(f"storage {scheme}:...: not a URL; write it as {example}, or give a path.")


def _explain(url: str, error: BaseException) -> str:
    if isinstance(error, sqlalchemy.exc.NoSuchModuleError):
        return f"no driver for this kind of storage is installed ({error})."
    missing = _missing_driver(url, error)
    if missing is not None:
        return missing
    cause = error.__cause__ if isinstance(error.__cause__, sqlalchemy.exc.SQLAlchemyError) else error
    text = reason_of(getattr(cause, "orig", None) or cause)
    explanations = {
        **dict.fromkeys(("is full", "File too large", "No space left"), _FULL),
        "disk I/O error": "the disk cannot be written; make room on it, then give the same command again.",
        "locked": "locked by another process; wait for it, or stop it, then try again.",
        "not a database": "not an SQLite database; check search.storage, or move the file away.",
        "readonly": "cannot be written; check the permissions of the file and its folder.",
        "unable to open": "cannot be opened; check that the folder exists and can be written.",
    }
    for sign, explanation in explanations.items():
        if sign in text:
            return explanation
    return f"the storage cannot be used ({text})."


def _missing_driver(url: str, error: BaseException) -> str | None:
    """Name the package that a server's URL needs, where it is that which is missing."""
    if not isinstance(error, ImportError) and not isinstance(error.__cause__, ImportError):
        return None
    scheme = url.partition(":")[0]
    kind, _, driver = scheme.partition("+")
    if kind not in DRIVERS:
        return f'the driver "{driver or kind}" is not installed: pip install {driver or kind}.'
    known, extra, usual = DRIVERS[kind]
    advice = f'pip install "autoprune[{extra}]", and write the URL as {usual}://...'
    if driver and driver != known:
        return f'the driver "{driver}" is not installed: pip install {driver}; or {advice}'
    return f"no driver for {kind} is installed: {advice}"
