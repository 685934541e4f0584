"""A storage on a database server that waits for a server that restarts, so that no search ends with it.

Example:
    storage = ServerStorage(RDBStorage(url), shown_url(url))
    storage.get_all_trials(1)       # while the server restarts, this waits, with one warning
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage, _CachedStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import ExceptionContext

from autoprune.errors import reason_of

WAIT_S = 300.0
"""Seconds that a call waits for a server that is away."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
"""Pauses between two attempts double from the first to the longest."""

_REFUSALS_OF_MYSQL = (1044, 1045, 1049)
"""Codes of its errors: no access to the database, a wrong password, no such database."""

_REFUSALS_OF_POSTGRESQL = (
    "authentication failed for user",
    "does not exist",
    "not permitted to log in",
    "no pg_hba.conf entry",
)
"""Parts of its messages. In another language than English they are not found, and the call waits."""

_log = logging.getLogger(__name__)

T = TypeVar("T")


class ServerAwayError(ConnectionError):
    """The server cannot be reached, or has closed the connection."""


class ServerStorage(_CachedStorage):
    """Repeats a call that lost its server until the server is back, `WAIT_S` at most.

    A server may store a change and stop before it confirms the change. So a repeated call looks first whether
    the change is there. Without that look, a trial would be created twice, and the end of a trial would seem
    to be that of another process.

    A waiting trial that is claimed as the server stops may be left running without a lease. It counts as one
    of a dead process, and is queued again.

    Args:
        backend: the storage of Optuna.
        shown: its URL in messages.
    """

    def __init__(self, backend: RDBStorage, shown: str) -> None:
        super().__init__(backend)
        sqlalchemy.event.listen(backend.engine, "handle_error", _translate)
        self._shown = shown
        self._away_since: float | None = None

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Create a trial."""

        def created() -> int | None:
            wanted = None if template_trial is None else _content(template_trial)
            # Through the cache, which `set_trial_param` expects to know the trial.
            trials = _CachedStorage.get_all_trials(self, study_id, deepcopy=False)
            found = [each for each in trials if _content(each) == wanted]
            return found[-1]._trial_id if found else None

        create = functools.partial(super().create_new_trial, study_id, template_trial)
        return self._patiently(create, created)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Change the state of a trial, or return False if it runs already."""

        def has_ended() -> bool | None:
            if not state.is_finished():
                return None
            # After a take-over, another process may have ended the trial in the same state.
            trial = self._backend.get_trial(trial_id)
            same = trial.state == state and (values is None or trial.values == list(values))
            return True if same else None

        change = functools.partial(super().set_trial_state_values, trial_id, state, values)
        return self._patiently(change, has_ended)

    def _patiently(self, call: Callable[[], T], already: Callable[[], T | None] = lambda: None) -> T:
        """Return the result of a call, which is repeated while the server is away.

        Args:
            call: of the storage.
            already: looks before a repetition whether an earlier attempt succeeded, and returns its result.

        Raises:
            ServerAwayError: the server has not come back, or had not after an earlier call.
        """
        began = time.monotonic()
        lost = 0
        try:
            while True:
                try:
                    result = already() if lost else None
                    result = call() if result is None else result
                except ServerAwayError as error:
                    lost += 1
                    self._wait(error, lost, began)
                else:
                    break
        except (KeyboardInterrupt, ServerAwayError):
            # Ctrl-C may interrupt a call that is blocked, before it is known that the server is away.
            if self._away_since is None:
                self._away_since = began
            raise
        self._away_since = None
        if lost > 1:
            _log.warning("%s: the server is back after %.0f s", self._shown, time.monotonic() - began)
        return result

    def _wait(self, error: ServerAwayError, lost: int, began: float) -> None:
        """Pause before the next attempt.

        The first repetition follows at once: after a restart, connections from before it are closed. After
        Ctrl-C or a wait in vain, no call waits any more until one succeeds. The search ends then, and the
        next resume queues the trials that it would give back.

        Raises:
            ServerAwayError: it waited long enough.
        """
        if lost == 1:
            return
        seconds = time.monotonic() - (began if self._away_since is None else self._away_since)
        if self._away_since is not None or seconds >= WAIT_S:
            raise ServerAwayError(
                f"its server has been away for {seconds:.0f} s ({error}). When it is back, run the same "
                "command again, or `autoprune resume` after a search."
            ) from error
        if lost == 2:
            _log.warning("%s: %s. Waiting up to %.0f s for the server", self._shown, error, WAIT_S)
        time.sleep(min(_FIRST_PAUSE_S * 2 ** (lost - 2), _LONGEST_PAUSE_S))


def _content(trial: FrozenTrial) -> object:
    """Return the attributes of a new trial: the lease of a single claim, or the ratios of a queued trial.

    A trial without attributes, which another program creates, equals no other.
    """
    content = (trial.system_attrs, trial.user_attrs)
    return content if any(content) else object()


def _translate(context: ExceptionContext) -> BaseException | None:
    """Replace an error of SQLAlchemy's if the server is away. Optuna repeats calls by itself after others."""
    if _is_refused(context.original_exception):
        return None
    if context.is_disconnect or context.connection is None:
        return ServerAwayError(reason_of(context.original_exception))
    return None


def _is_refused(error: BaseException) -> bool:
    """Return whether the server answered that this user or this database is not allowed or not there.

    Waiting would not help: the password was changed, or the database removed.
    """
    if error.args and error.args[0] in _REFUSALS_OF_MYSQL:
        return True
    # PostgreSQL's library hands out no code (SQLSTATE 28... and 3D000) if a connection fails.
    text = str(error)
    return "FATAL:" in text and any(sign in text for sign in _REFUSALS_OF_POSTGRESQL)


def _waiting(name: str) -> Callable[..., Any]:
    plain = getattr(_CachedStorage, name)

    @functools.wraps(plain)
    def call(self: ServerStorage, *arguments: Any, **options: Any) -> Any:
        return self._patiently(lambda: plain(self, *arguments, **options))

    return call


# What is left out writes a study, which is done once, before a search, and can be done again.
for _name in BaseStorage.__abstractmethods__ - {"create_new_study", "delete_study", *vars(ServerStorage)}:
    setattr(ServerStorage, _name, _waiting(_name))
