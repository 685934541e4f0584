"""Own the way to an Optuna storage by URL, and turn what goes wrong there into one clear line.

Before: a config's `search.storage`; after: `SearchStudy` reads and writes trials in it.

    storage = open_storage("sqlite:///runs/fm.db", create=True)     # or journal:///runs/fm.log, postgresql://...
    with storage_errors("sqlite:///runs/fm.db"):
        ...
    study_command("resume", "fm-50", "sqlite:///runs/fm.db")        # what a message hints at
"""

from __future__ import annotations

import functools
import re
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy.exc
from optuna.exceptions import OptunaError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.engine import make_url

from autoprune.errors import HIDDEN, StudyError, reason_of, shown_url
from autoprune.study.leases import TakenOverError

LOCK_TIMEOUT_S = 20.0
"""How long a write waits for another process's lock on SQLite; `?timeout=5` in the URL overrides it."""


DRIVERS = {
    "postgresql": ('"psycopg[binary]"', "postgresql+psycopg"),
    "mysql": ("pymysql", "mysql+pymysql"),
    "mariadb": ("pymysql", "mariadb+pymysql"),
}
"""Kind of server -> package to install, and the scheme of the URLs that use it."""


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
    _require_password(url)
    try:
        with storage_errors(url):
            return _open(url, file_of(url), create)
    except (ValueError, KeyError, AssertionError, RuntimeError) as error:
        raise StudyError(
            f"{shown_url(url)}: not a storage of Optuna's, or a broken one ({error})."
        ) from error


def _require_password(url: str) -> None:
    """Refuse a URL as messages show it, and a password of which a part would be read, and told, as a host.

    Raises:
        StudyError: it is one of these.
    """
    if re.search(rf"[:=]{re.escape(HIDDEN)}(@|&|$)", url):
        raise StudyError(
            f"{shown_url(url)}: its password is hidden; write the password in place of {HIDDEN}."
        )
    if re.search("://[^:/]*:[^@]*@[^/?]*@", url):
        raise StudyError(f'{shown_url(url)}: within a password, "@" is written as %40.')


def _open(url: str, path: Path | None, create: bool) -> BaseStorage:
    if path is not None and create:
        path.parent.mkdir(parents=True, exist_ok=True)
    elif path is not None and not path.is_file():
        raise StudyError(
            f"{shown_url(url)}: there is no such file, so no study to open; check search.storage."
        )
    elif path is not None and url.startswith("sqlite") and names_in_file(path) == []:
        raise StudyError(f"{shown_url(url)}: it holds no study; check search.storage.")
    if path is not None and url.startswith("journal:"):
        return JournalStorage(JournalFileBackend(str(path)))
    options: dict[str, Any] = {}
    if path is not None:
        options["pool_events"] = [(functools.partial(_tune_sqlite, create), "connect")]
        if "timeout" not in make_url(url).query:
            options["connect_args"] = {"timeout": LOCK_TIMEOUT_S}
    return get_storage(RDBStorage(url, engine_kwargs=options))


def _tune_sqlite(create: bool, connection: Any, _: Any) -> None:
    """Let readers and a writer work at once (WAL), and lose nothing committed, not even at a power cut.

    synchronous=NORMAL would be faster, but may lose the last commits when the power fails.
    """
    if create:
        connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def is_in_memory(url: str) -> bool:
    """Tell whether a storage lives in the memory of one process, and is gone with it."""
    if not url.startswith("sqlite"):
        return False
    try:
        database = make_url(url).database or ""
    except sqlalchemy.exc.ArgumentError:
        return False
    return not database or ":memory:" in database or "mode=memory" in url


def names_in_file(path: Path) -> list[str] | None:
    """Return the names of the studies in an SQLite file, which is only read; None where it cannot be read."""
    try:
        url = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(url, timeout=1, uri=True)) as file:
            tables = {name for (name,) in file.execute("SELECT name FROM sqlite_master")}
            if "studies" not in tables:
                return []
            return [str(name) for (name,) in file.execute("SELECT study_name FROM studies")]
    except sqlite3.Error:
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
    except UpdateFinishedTrialError as error:
        raise TakenOverError(f"{shown_url(url)}: {reason_of(error)} Another process ended it.") from error
    except (sqlalchemy.exc.SQLAlchemyError, OptunaError, ImportError, OSError) as error:
        raise StudyError(f"{shown_url(url)}: {_explain(url, error)}") from error


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
    try:
        read = make_url(url)
    except sqlalchemy.exc.ArgumentError:
        return None  # whoever opens it is told what is wrong with it
    database = str(read.database)
    return Path(database.removeprefix("file:") if "uri" in read.query else database)


def _explain(url: str, error: BaseException) -> str:
    if isinstance(error, sqlalchemy.exc.NoSuchModuleError):
        return f"no driver for this kind of storage is installed ({error})."
    missing = _missing_driver(url, error)
    if missing is not None:
        return missing
    if isinstance(error, sqlalchemy.exc.ArgumentError):
        return 'not a URL of a storage, such as "sqlite:///runs/study.db" or "journal:///runs/study.log".'
    cause = error.__cause__ if isinstance(error.__cause__, sqlalchemy.exc.SQLAlchemyError) else error
    text = reason_of(getattr(cause, "orig", None) or cause)
    explanations = {
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
    package, usual = DRIVERS.get(kind, (driver or kind, scheme))
    if driver and driver != usual.partition("+")[2]:
        return (
            f'the driver "{driver}" is not installed: pip install {driver}, or use {package} and {usual}://.'
        )
    return f"no driver for {kind} is installed: pip install {package}, and write the URL as {usual}://..."
