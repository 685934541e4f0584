"""The one tree of errors that users may meet; every other module imports from here, this one from none.

Each message is one line that says where, what was got, what was expected and what to do next:

    raise BudgetError(f"budget.flops: {asked:,} asked, {smallest:,} is the smallest; raise the budget.")
"""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterable

_LONGEST_LINE = 500
_LONGEST_VALUE = 100
_LONGEST_URL = 10_000

_LONGEST_MESSAGE = 1500

_LONGEST_NAME = 200
"""A longer word is no slip of a known name, and would take seconds to compare."""

HIDDEN = "***"
"""What stands in a URL that is shown in place of its password."""

# Up to the last "@" before the query: what follows a raw "@" in a password is still a part of it.
_LOGIN = re.compile(r"(://[^:/]*:)[^@]*@(?:[^?]*@)?")
_OPTION = re.compile(
    r"([?&](?:odbc_connect|\w*(?:password|passwd|pwd|secret))=)[^&]*?(?=&|['\"]?$)", re.IGNORECASE
)


class AutopruneError(Exception):
    """Root of all errors that a user can cause or meet; the command line prints it and exits with code 2."""


class ConfigError(AutopruneError):
    """A run's configuration cannot be used as it is written."""


class DataError(AutopruneError):
    """The data are missing, empty, malformed or not finite."""


class CheckpointError(AutopruneError):
    """A file of weights is missing, unreadable or does not fit the model."""


class TraceError(AutopruneError):
    """The model cannot be traced to a graph."""


class PlanError(AutopruneError):
    """A plan, a width or a keep ratio does not fit the model's channel groups."""


class BudgetError(AutopruneError):
    """No plan under the divisor, floor and ties meets the budget."""


class StudyError(AutopruneError):
    """The study is missing, locked, broken or made for another model, data or space."""


class ExportError(AutopruneError):
    """A model cannot be written, or what was written differs from the model."""


class VerificationError(AutopruneError):
    """A rebuilt model is not the one that its plan describes."""


class LatencyError(AutopruneError):
    """A latency cannot be measured here, or what was measured does not belong to this device."""


class OutputError(AutopruneError):
    """What is printed cannot be written: a disk is full, or the terminal is gone."""


class TrialError(AutopruneError):
    """One candidate failed (it diverged, ran out of memory); the search goes on."""


def reason_of(error: BaseException) -> str:
    """Return why something failed, in one line and without the path that the message names already."""
    text = (error.strerror if isinstance(error, OSError) else None) or text_of(error).strip()
    return shortened(text.splitlines()[0].rstrip()) if text else type(error).__name__


def summary_of(error: BaseException) -> str:
    """Return an error of code that is not ours in one line, its type and its text, cut at 500 characters."""
    text = text_of(error).strip()
    kind = type(error).__name__
    return shortened(f"{kind}: {text}" if text else kind)


def text_of(error: object) -> str:
    """Return the text of an error or of a value that is not ours: classes of users may fail to give one."""
    try:
        return str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:  # whatever a user's __str__ or __repr__ raises
        return "no text, its __str__ failed"


class _Shortening(reprlib.Repr):
    """Writes values with as many items, levels and digits as a reader can take in."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 2
        self.maxstring = self.maxother = self.maxlong = _LONGEST_VALUE

    def repr_int(self, x: int, level: int) -> str:
        bits = x.bit_length()  # Python refuses to write integers of more than some 4,300 digits
        return super().repr_int(x, level) if bits < 10_000 else f"an integer of {bits} bits"


def shown_value(value: object) -> str:
    """Return a value that is not ours as a message shows it: on one line, cut if it is long or deep."""
    try:
        text = _Shortening().repr(value)
    except KeyboardInterrupt:
        raise
    except BaseException:  # whatever a user's __repr__ raises
        text = f"a {type(value).__name__}"
    return shortened(text, 2 * _LONGEST_VALUE)


def shortened(text: str, longest: int = _LONGEST_LINE) -> str:
    """Return a text in one line, cut with "..." at so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out: torch's, on CUDA and on the CPU, is a RuntimeError."""
    said = text_of(error).lower()
    known = ("out of memory", "not enough memory", "allocate memory")
    return isinstance(error, MemoryError) or any(words in said for words in known)


def shown_url(text: str) -> str:
    """Return the URL of a storage, or a text that ends with one, without a password, to be shown or stored.

    Unlike SQLAlchemy's own rendering it hides those in the query, too, and takes URLs that are malformed.
    A text that is far too long for a URL is cut before any password.
    """
    if len(text) > _LONGEST_URL:  # the patterns would take minutes over it
        return f"{re.split(r'://|[?]', text, maxsplit=1)[0][:_LONGEST_VALUE]}..."
    return _OPTION.sub(rf"\1{HIDDEN}", _LOGIN.sub(rf"\1{HIDDEN}@", text))


def printable(text: str) -> str:
    r"""Return a text that a terminal shows as it is: control characters are escaped, such as "\x1b".

    Also escaped are invisible characters that change the order or the meaning of others, and the halves of
    characters that stand for bytes of a file's name that are not UTF-8. Line breaks and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in "\n\t" else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def one_line(text: str) -> str:
    """Return a message as one printable line. A long one keeps its beginning, and its end with the advice."""
    if len(text) > 4 * _LONGEST_MESSAGE:  # long before it is looked at character by character
        text = f"{text[: 3 * _LONGEST_MESSAGE]}{text[-_LONGEST_MESSAGE:]}"
    line = printable(" ".join(text.split()))
    end = _LONGEST_MESSAGE // 3
    return line if len(line) <= _LONGEST_MESSAGE else f"{line[: _LONGEST_MESSAGE - end]}...{line[-end:]}"


def abridged(value: object) -> str:
    """Return a value for a message. A long one, such as a fingerprint, is cut."""
    text = "missing" if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."


def suggest(word: str, known: Iterable[str]) -> str:
    """Return ' Did you mean "x"?' for the known word nearest to `word`, whatever its case, or ''."""
    if len(word) > _LONGEST_NAME:
        return ""
    folded = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(word.casefold(), folded, n=1)
    return f' Did you mean "{folded[close[0]]}"?' if close else ""


def unknown(where: str, name: str, known: Iterable[str], *, kind: str = "name") -> str:
    """Return the message of an error: that a name is not known, and the nearest one, or else all there are.

    Args:
        where: the config's key, the option or the argument.
        name: what was given.
        known: the names that there are.
        kind: what the name is of, where `where` does not say it.
    """
    names = list(known)
    hint = suggest(name, names) or f" Known: {', '.join(names)}."
    return f'{where}: unknown {kind} "{name}".{hint}'
