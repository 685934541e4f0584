"""Judges how a case ended, and counts the verdicts of each class and verb.

The data of a case has its expectations. Those of every case (no traceback, no process left) are here.

    judge(case, outcome, limits)        # ["message"]: the one thing that is wrong
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping

from experiments.faults.cases import Case
from experiments.faults.child import Limits, Outcome

FAULTS = (
    "traceback",
    "exit_code",
    "message",
    "accepted",
    "hang",
    "memory",
    "changed",
    "ran_code",
    "processes",
)
"""All that can be wrong, in the order of the columns of results.csv."""

EITHER = ("either", "told")
"""Expectations of a case that may be refused or accepted. "told" needs a word of `says` in both."""

LONGEST = 1600
"""Characters of a message's one line at most, paths included."""

PREFIX = "autoprune: "
MISTAKE = 2

_USAGE, _USAGE_LINES = "Usage: ", 4

_TRACEBACK = "Traceback (most recent call last)"
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]")
_HARMLESS = ("*-shm", "*-wal")
"""Files of SQLite, which every reader of a database may make next to it."""


def judge(case: Case, outcome: Outcome, limits: Limits) -> list[str]:
    """Return the faults of an outcome, as names of FAULTS. There are none if it is as the case expects."""
    found = {
        "hang": outcome.hung,
        "memory": outcome.memory_mib > limits.memory_mib,
        "ran_code": outcome.ran,
        "processes": outcome.left > 0,
        "changed": bool(unexpected_changes(case, outcome)),
    }
    if not outcome.hung:
        refused = case.expect == "refused" or (case.expect in EITHER and outcome.code != 0)
        found |= _ended_wrongly(case, outcome, refused)
    return [name for name in FAULTS if found.get(name)]


def _ended_wrongly(case: Case, outcome: Outcome, refused: bool) -> dict[str, bool]:
    printed = outcome.output + outcome.errors
    has_traceback = _TRACEBACK in printed
    if refused and outcome.code == 0:
        return {"accepted": True, "traceback": has_traceback}
    wrong_code = outcome.code != (MISTAKE if refused else 0)
    unclear = bool(_CONTROL.search(printed)) or (
        not is_clear(outcome.errors, case.says)
        if refused
        else _lacks(case.says, printed) and case.expect in ("accepted", "told")
    )
    return {
        "traceback": has_traceback,
        "exit_code": wrong_code and not has_traceback,
        "message": unclear and not has_traceback and not wrong_code,
    }


def is_clear(errors: str, says: Iterable[str]) -> bool:
    """Tell whether standard error is one line, not too long, that holds one of the words.

    A command line that cannot be parsed (an unknown option, a missing argument) gets the usage, as from all
    programs that are built with click.
    """
    lines = errors.splitlines()
    if lines and lines[0].startswith(_USAGE):
        return len(lines) == _USAGE_LINES and lines[-1].startswith("Error: ") and len(lines[-1]) <= LONGEST
    one = len(lines) == 1 and lines[0].startswith(PREFIX) and len(lines[0]) <= LONGEST
    return one and not _lacks(says, errors)


def _lacks(says: Iterable[str], text: str) -> bool:
    words = list(says)
    return bool(words) and not any(word.lower() in text.lower() for word in words)


def unexpected_changes(case: Case, outcome: Outcome) -> dict[str, str]:
    """Return the files that were left or changed and should not have been.

    A refused command may change only the files that the case names. A command that goes on may write into its
    folder. It leaves no parts of files, and changes nothing outside.
    """
    refused = outcome.code != 0
    allowed = [*_HARMLESS, *(f"work/{pattern}" for pattern in case.writes)]
    if not refused:
        allowed += ["work/*"]
    return {
        path: what
        for path, what in outcome.changed.items()
        if not any(fnmatch.fnmatch(path, pattern) for pattern in allowed)
        or (path.endswith(".part") and not refused)
    }


def counts(verdicts: Iterable[tuple[Case, list[str]]]) -> list[dict[str, object]]:
    """Count verdicts, one row a class and verb. Faults with an exception are counted separately."""
    rows: dict[tuple[str, str], dict[str, int]] = {}
    for case, faults in verdicts:
        row = rows.setdefault((case.kind, case.verb), dict.fromkeys(("tried", *FAULTS, "excepted"), 0))
        row["tried"] += 1
        for name in ["excepted"] if faults and case.exception else faults:
            row[name] += 1
    return [{"class": kind, "verb": verb, **row} for (kind, verb), row in sorted(rows.items())]


def total(rows: Iterable[Mapping[str, object]], column: str) -> int:
    """Return the sum of a column."""
    return sum(int(str(row[column])) for row in rows)
