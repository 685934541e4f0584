"""Turns the errors of a storage into one clear line each.

Example:
    with storage_errors("sqlite:///runs/fm.db"):
        study.get_trials()
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy.exc
from optuna.exceptions import OptunaError, UpdateFinishedTrialError

from autoprune.errors import StudyError, reason_of, shown_url
from autoprune.study._server_storage import ServerAwayError
from autoprune.study._storage_url import DRIVERS
from autoprune.support.leases import TakenOverError

_FULL = "the disk is full. Make room on it, then run the same command again."

_NOT_FOUND = "Record does not exist."
"""Optuna's KeyError for a study or a trial that does not exist any more."""


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Raise a StudyError of one line for any error of a storage inside the block.

    A write to a trial that has ended is a TakenOverError, since only another process can have ended it.
    """
    try:
        yield
    except KeyboardInterrupt as interruption:
        # The frames of the exception hold an open query. While a query is open, SQLite refuses writes of its
        # connection after another connection has written.
        traceback.clear_frames(interruption.__traceback__)
        raise
    except UpdateFinishedTrialError as error:
        raise TakenOverError(f"{shown_url(url)}: {reason_of(error)} Another process ended it.") from error
    except KeyError as error:
        if error.args != (_NOT_FOUND,):
            raise
        raise StudyError(
            f"{shown_url(url)}: the study is not there any more: it was deleted, or the database replaced, "
            "while it was in use. Put the former one back, or begin another search."
        ) from error
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        if not _is_unreadable(error):
            raise
        raise StudyError(
            f"{shown_url(url)}: it is damaged: a row of it cannot be read ({reason_of(error)}). Restore it "
            "from a copy."
        ) from error
    except (sqlalchemy.exc.SQLAlchemyError, OptunaError, ImportError, OSError) as error:
        raise StudyError(f"{shown_url(url)}: {_explain(url, error)}") from error


def _is_unreadable(error: Exception) -> bool:
    """Return whether Optuna read a row that it cannot have written: no JSON, no date, no trial state."""
    signs = ("isoformat", "defined enum values", "could not convert string", "must be real number")
    unreadable = isinstance(error, json.JSONDecodeError) or "while decoding a JSON" in str(error)
    return unreadable or any(sign in str(error) for sign in signs)


def _explain(url: str, error: BaseException) -> str:
    if isinstance(error, sqlalchemy.exc.NoSuchModuleError):
        return f"no driver for this kind of storage is installed ({error})."
    if isinstance(error, ServerAwayError):
        return str(error)
    missing = _missing_driver(url, error)
    if missing is not None:
        return missing
    cause = error.__cause__ if isinstance(error.__cause__, sqlalchemy.exc.SQLAlchemyError) else error
    text = reason_of(getattr(cause, "orig", None) or cause)
    explanations = {
        **dict.fromkeys(("is full", "File too large", "No space left"), _FULL),
        "disk I/O error": "the disk cannot be written. Make room on it, then run the same command again.",
        "locked": "locked by another process. Wait for it, or stop it, then try again.",
        "not a database": "not an SQLite database. Check search.storage, or move the file away.",
        "readonly": "cannot be written. Check the permissions of the file and its folder.",
        "unable to open": "cannot be opened. Check that the folder exists and can be written.",
    }
    for sign, explanation in explanations.items():
        if sign in text:
            return explanation
    return f"the storage cannot be used ({text})."


def _missing_driver(url: str, error: BaseException) -> str | None:
    """Return a line that names the missing driver of a server, or None if the error has another cause."""
    if not isinstance(error, ImportError) and not isinstance(error.__cause__, ImportError):
        return None
    scheme = url.partition(":")[0]
    kind, _, driver = scheme.partition("+")
    if kind not in DRIVERS:
        return f'the driver "{driver or kind}" is not installed: pip install {driver or kind}.'
    known, extra, usual = DRIVERS[kind]
    advice = f'pip install "autoprune[{extra}]", and write the URL as {usual}://...'
    if driver and driver != known:
        return f'the driver "{driver}" is not installed: pip install {driver}, or {advice}'
    return f"no driver for {kind} is installed: {advice}"
