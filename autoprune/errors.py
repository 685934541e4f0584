"""The errors that autoprune raises, all subclasses of `AutopruneError`, and helpers that format messages.

Each message is one line: the place, the value got, the value expected, and the next step.

    raise BudgetError(f"budget.flops: got {budget:,}, the smallest plan has {smallest:,}. Raise the budget.")
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
"""A longer word is no misspelling of a known name, and takes seconds to compare."""

HIDDEN = "***"
"""The replacement for a password in a URL that is shown."""

# Up to the last "@" before the query, because a password may contain an unescaped "@".
_LOGIN = re.compile(r"(://[^:/]*:)[^@]*@(?:[^?]*@)?")
_OPTION = re.compile(
    r"([?&](?:odbc_connect|\w*(?:password|passwd|pwd|secret))=)[^&]*?(?=&|['\"]?$)", re.IGNORECASE
)


class AutopruneError(Exception):
    """Base class of all errors that a user can cause. The command line prints it and exits with code 2."""


class ConfigError(AutopruneError):
    """The configuration of a run is invalid."""


class DataError(AutopruneError):
    """The data are missing, empty, malformed or not finite."""


class CheckpointError(AutopruneError):
    """A file of weights is missing, is unreadable or does not fit the model."""


class TraceError(AutopruneError):
    """The model cannot be traced to a graph."""


class PlanError(AutopruneError):
    """A plan, a width or a keep ratio does not fit the model's channel groups."""


class MaskError(AutopruneError):
    """A mask, its granularity or its sparsity does not fit the model's weights."""


class BudgetError(AutopruneError):
    """No plan under the divisor, floor and ties meets the budget."""


class StudyError(AutopruneError):
    """The study is missing, locked or damaged, or belongs to another model, data set or search space."""


class ExportError(AutopruneError):
    """A model cannot be exported, or the exported file computes other outputs than the model."""


class VerificationError(AutopruneError):
    """A rebuilt model is not the one that its plan describes."""


class LatencyError(AutopruneError):
    """A latency cannot be measured here, or stored measurements belong to another device."""


class OutputError(AutopruneError):
    """Output cannot be written, because a disk is full or the terminal is closed."""


class ProcessError(AutopruneError):
    """One of several processes that train a model together failed."""


class LostProcessError(ProcessError):
    """Another process that trains the same model is gone."""


class TrialError(AutopruneError):
    """One candidate failed, for example because it diverged. The search goes on."""


def reason_of(error: BaseException) -> str:
    """Return the reason of an error in one line, without the path, which the message names already."""
    text = (error.strerror if isinstance(error, OSError) else None) or text_of(error).strip()
    return shortened(text.splitlines()[0].rstrip()) if text else type(error).__name__


def summary_of(error: BaseException) -> str:
    """Return the type and the text of a foreign error in one line, cut at 500 characters."""
    text = text_of(error).strip()
    kind = type(error).__name__
    return shortened(f"{kind}: {text}" if text else kind)


def text_of(error: object) -> str:
    """Return the text of a foreign error or value, whose `__str__` may itself fail."""
    try:
        return str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:  # whatever a user's __str__ or __repr__ raises
        return "no text, its __str__ failed"


class _Shortening(reprlib.Repr):
    """Formats values with a limited number of items, levels and digits."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 2
        self.maxstring = self.maxother = self.maxlong = _LONGEST_VALUE

    def repr_int(self, x: int, level: int) -> str:
        bits = x.bit_length()  # Python refuses to format integers of more than about 4,300 digits
        return super().repr_int(x, level) if bits < 10_000 else f"an integer of {bits} bits"


def shown_value(value: object) -> str:
    """Return a foreign value as text for a message: in one line, cut if it is long or deeply nested."""
    try:
        text = _Shortening().repr(value)
    except KeyboardInterrupt:
        raise
    except BaseException:  # whatever a user's __repr__ raises
        text = a_kind(value)
    return shortened(text, 2 * _LONGEST_VALUE)


def a_kind(value: object) -> str:
    """Return the name of a value's type with its article: "an int", "a list"."""
    name = type(value).__name__
    sounds_like_a_vowel = name.lower().startswith(tuple("aeio")) and not name.lower().startswith(
        ("one", "once")
    )
    return f"an {name}" if sounds_like_a_vowel else f"a {name}"


def shortened(text: str, longest: int = _LONGEST_LINE) -> str:
    """Return a text in one line of at most `longest` characters, cut with "..."."""
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error reports that memory ran out. torch raises RuntimeError, so its text decides."""
    text = text_of(error).lower()
    known = ("out of memory", "not enough memory", "allocate memory", "alloc_failed")  # the last of cuBLAS
    return isinstance(error, MemoryError) or any(words in text for words in known)


_LOST_GPU = (
    "device-side assert",
    "illegal memory access",
    "illegal instruction",
    "misaligned address",
    "unspecified launch failure",
    "uncorrectable ecc",
)
"""Parts of the messages of CUDA errors after which no call to CUDA succeeds in that process."""


def is_lost_gpu(reason: str) -> bool:
    """Return whether the reason of a failure means that its process can no longer use the GPU."""
    text = reason.lower()
    return "cuda error" in text and any(words in text for words in _LOST_GPU)


def shown_url(text: str) -> str:
    """Return a storage URL, or a text that ends with one, with its passwords hidden.

    Unlike SQLAlchemy's own rendering, it also hides passwords in the query and accepts malformed URLs. A text
    that is far too long for a URL is cut before any password.
    """
    if len(text) > _LONGEST_URL:  # the patterns would take minutes over it
        return f"{re.split(r'://|[?]', text, maxsplit=1)[0][:_LONGEST_VALUE]}..."
    return _OPTION.sub(rf"\1{HIDDEN}", _LOGIN.sub(rf"\1{HIDDEN}@", text))


def printable(text: str) -> str:
    r"""Return a text that is safe to print: control characters are escaped, such as "\x1b".

    Invisible characters that change the order of others are escaped too. So are lone surrogates, which stand
    for bytes of a file name that are not UTF-8. Line breaks and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in "\n\t" else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def one_line(text: str) -> str:
    """Return a message as one printable line. A long message loses its middle: its end holds the advice."""
    if len(text) > 4 * _LONGEST_MESSAGE:  # printable() visits each character
        text = f"{text[: 3 * _LONGEST_MESSAGE]}{text[-_LONGEST_MESSAGE:]}"
    line = printable(" ".join(text.split()))
    end = _LONGEST_MESSAGE // 3
    return line if len(line) <= _LONGEST_MESSAGE else f"{line[: _LONGEST_MESSAGE - end]}...{line[-end:]}"


def abridged(value: object) -> str:
    """Return a value for a message. A long value, such as a hash, is cut."""
    text = "missing" if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."


def suggest(word: str, known: Iterable[str]) -> str:
    """Return ' Did you mean "x"?' for the known word nearest to `word`, ignoring case, or ''."""
    if len(word) > _LONGEST_NAME:
        return ""
    folded = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(word.casefold(), folded, n=1)
    return f' Did you mean "{folded[close[0]]}"?' if close else ""


def unknown(where: str, name: str, known: Iterable[str], *, kind: str = "name") -> str:
    """Return the message for an unknown name, with the nearest known name or else all known names.

    Args:
        where: the config key, the option or the argument.
        name: the unknown name.
        known: all known names.
        kind: the kind of name ("sampler"), if `where` does not show it.
    """
    names = list(known)
    hint = suggest(name, names) or f" Known: {', '.join(names)}."
    return f'{where}: unknown {kind} "{name}".{hint}'
