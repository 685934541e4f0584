"""Reads the URLs of storages: the file behind one, and the mistakes that users make in them.

Example:
    file_of("sqlite:///runs/fm.db")                                 # Path("runs/fm.db")
    study_command("resume", "fm-50", "sqlite:///runs/fm.db")        # "autoprune resume fm-50 --storage ..."
    study_command("resume", "fm", "sqlite:///runs/fm.db")           # "autoprune resume fm"
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
import shlex
from pathlib import Path

import sqlalchemy.exc
from sqlalchemy.engine import URL, make_url

from autoprune.errors import HIDDEN, StudyError, shortened, shown_url

RUNS = "runs"
"""The folder, in the current one, where a command without --storage looks for the file STUDY.db."""

LOCK_TIMEOUT_S = 20.0
"""Seconds that a write waits for another process's lock on SQLite. `?timeout=5` in the URL replaces it."""

DRIVERS = {
    "postgresql": ("psycopg", "postgresql", "postgresql+psycopg"),
    "mysql": ("pymysql", "mysql", "mysql+pymysql"),
    "mariadb": ("pymysql", "mysql", "mariadb+pymysql"),
}
"""Kind of server -> its driver, the extra that installs it, and the scheme of the URLs that use it."""

_LIBPQ = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""Options of PostgreSQL's own library: times in seconds, but `tcp_user_timeout` in milliseconds."""

_CONNECTION = {
    "psycopg": _LIBPQ,
    "psycopg2": _LIBPQ,
    # InnoDB answers within 50 s also if it waits for a lock.
    "pymysql": {"connect_timeout": 10, "read_timeout": 60, "write_timeout": 60},
}
"""Driver -> options of its connections.

A trial may take hours, in which firewalls drop the idle connection. Keepalives keep it, or find that it is
lost. They do not help if the host of the server vanishes during a call, before it acknowledges the data. The
other timeouts do. Without them, the call would wait for some 15 minutes before it fails.
"""

_BARE = re.compile(r"(journal|sqlite|postgresql|mysql|mariadb|oracle|mssql)(\+\w+)?:(?!//)")
"""A scheme without the two slashes of a URL."""


def file_of(url: str) -> Path | None:
    """Return the file behind an SQLite or journal URL, or None for servers and for SQLite in memory.

    Raises:
        StudyError: it is a journal's URL, and names no file.
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
        return None  # `open_storage` refuses this URL
    database = str(parsed.database)
    return Path(database.removeprefix("file:") if "uri" in parsed.query else database)


def is_in_memory(url: str) -> bool:
    """Return whether a storage is in the memory of one process, and ends with it."""
    if not url.startswith("sqlite"):
        return False
    parsed = _parsed(url)
    if parsed is None:
        return False
    database = parsed.database or ""
    return not database or ":memory:" in database or "mode=memory" in url


def require_url(storage: str) -> None:
    """Refuse a storage that begins like a URL, but lacks its slashes. A bare path is fine.

    Raises:
        StudyError: the slashes are missing.
    """
    match = _BARE.match(storage)
    if match:
        scheme = storage.partition(":")[0]
        example = "journal:///runs/study.log" if scheme == "journal" else f"{scheme}://..."
        raise StudyError(f"storage {scheme}:...: not a URL. Write it as {example}, or give a path.")


def require_readable(url: str) -> None:
    """Refuse a URL that cannot be used.

    Raises:
        StudyError: the URL is malformed, or its password is hidden as messages hide it. Or an "@" in the
            password is not escaped, so that a part of it would be read as the host.
    """
    if re.search(rf"[:=]{re.escape(HIDDEN)}(@|&|$)", url):
        raise StudyError(
            f"{shown_url(url)}: its password is hidden. Write the password in place of {HIDDEN}."
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
    """Refuse options of an SQLite URL that would be read as part of the file's name, or ignored.

    Raises:
        StudyError: an option is unknown, or its value cannot be used.
    """
    others = sorted(set(url.query) - {"timeout"})
    if others and not (url.database or "").startswith("file:"):  # SQLite's own URIs have other options
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


def timeout_of(url: str) -> float:
    parsed = _parsed(url)
    return float(str(parsed.query.get("timeout", LOCK_TIMEOUT_S))) if parsed else LOCK_TIMEOUT_S


def with_driver(url: str) -> URL:
    """Return a URL with the usual driver of its server if it names none and that driver is installed.

    Raises:
        sqlalchemy.exc.ArgumentError: the URL is malformed.
    """
    parsed = make_url(url)
    if parsed.drivername in DRIVERS:
        module, _, usual = DRIVERS[parsed.drivername]
        if importlib.util.find_spec(module) is not None:
            return parsed.set(drivername=usual)
    return parsed


def connect_options(url: str) -> dict[str, int]:
    """Return options of a connection to a server that the URL does not set."""
    parsed = with_driver(url)
    options = _CONNECTION.get(parsed.drivername.partition("+")[2], {})
    return {name: value for name, value in options.items() if name not in parsed.query}


def _parsed(url: str) -> URL | None:
    """Return the parts of a URL, or None if it is malformed."""
    try:
        return make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):  # a port that is no number is a ValueError
        return None


def study_command(verb: str, study: str, url: str, *options: str, anywhere: bool = False) -> str:
    """Return a command line for a study, as messages show it: without the password of the URL.

    Args:
        verb: the command, such as "resume".
        study: name of the study.
        url: URL of its storage. The command names it unless the verb finds it without.
        options: further words.
        anywhere: whether the command will be read later, perhaps in another folder, as on a page. It names
            the storage then.
    """
    is_needed = anywhere or not _is_default(url, study)
    named = ["--storage", shown_url(url)] if is_needed else []
    return shlex.join(["autoprune", verb, study, *named, *options])


def _is_default(url: str, study: str) -> bool:
    """Return whether commands in the current folder find the storage of a study by the study's name."""
    path = f"{RUNS}/{study}.db"
    return url in (f"sqlite:///{path}", f"sqlite:///{os.path.abspath(path)}")
