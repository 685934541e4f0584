"""Sign values with a key of this user on this machine, so that values from elsewhere can be recognised.

The key is a private file of 32 random bytes, `autoprune/key` in the user's configuration folder
(XDG_CONFIG_HOME or ~/.config). The sender of a study or a model cannot sign for its receiver.

    mac = sign({"study": "digits"})
    verifies({"study": "digits"}, mac)      # False for another user, and on another machine
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import json
import logging
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoprune.support.files import open_regular

_KEY_BYTES = 32

_log = logging.getLogger(__name__)


def sign(values: Mapping[str, Any]) -> str | None:
    """Return a signature of JSON values. If there is no key yet, make one.

    Returns:
        64 hexadecimal digits, or None if the key can be neither read nor made.
    """
    key = _read_key() or _make_key()
    return None if key is None else _mac(key, values)


def verifies(values: Mapping[str, Any], signature: object) -> bool:
    """Return whether this user signed these values on this machine. Return False if there is no key."""
    key = _read_key()
    if key is None or not isinstance(signature, str) or not signature.isascii():
        return False
    return hmac.compare_digest(_mac(key, values), signature)


def key_name() -> str | None:
    """Return a public name of the key, which distinguishes the signatures of several users."""
    key = _read_key() or _make_key()
    return None if key is None else hashlib.sha256(b"name" + key).hexdigest()[:16]


def _mac(key: bytes, values: Mapping[str, Any]) -> str:
    return hmac.new(key, json.dumps(values, sort_keys=True).encode(), "sha256").hexdigest()


def _key_file() -> Path | None:
    given = os.environ.get("XDG_CONFIG_HOME", "")
    try:
        folder = Path(given) if os.path.isabs(given) else Path.home() / ".config"
    except RuntimeError:  # this user has no home
        return None
    return folder / "autoprune" / "key"


def _read_key() -> bytes | None:
    """Return the key, or None if it does not exist, or other users own it or can read it."""
    path = _key_file()
    if path is None:
        return None
    try:
        with open_regular(path) as file:
            is_private = os.name != "posix" or _is_private(os.fstat(file.fileno()))
            key = file.read(_KEY_BYTES + 1)
    except OSError:
        return None
    if is_private and len(key) == _KEY_BYTES:
        return key
    _warn_of(path)
    return None


@functools.cache
def _warn_of(path: Path) -> None:
    """Warn once that no study can be recognised as this user's own."""
    _log.warning(
        "%s: it is damaged, or other users own it or can read it, so no study is recognised as yours. Remove "
        "it, and the next search makes a new one.",
        path,
    )


def _is_private(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & 0o077


def _make_key() -> bytes | None:
    """Make the key unless the file exists. If several processes try at once, one succeeds."""
    path = _key_file()
    if path is None:
        return None
    partial = path.with_name(f".key.{os.getpid()}.part")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):
            os.link(partial, path)  # unlike a rename, a link never replaces an existing key
    except OSError:
        return None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return _read_key()
