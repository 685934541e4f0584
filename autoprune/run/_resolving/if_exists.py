"""What a verb does if its result exists already.

Example:
    checked_action("overwrite")            # the same text, or ConfigError
"""

from __future__ import annotations

from typing import Literal, cast, get_args

from autoprune.errors import ConfigError, unknown

IfExists = Literal["error", "resume", "overwrite"]
"""Refuse, go on with the result, or replace it."""


def checked_action(action: str) -> IfExists:
    """Return an action after a check.

    Raises:
        ConfigError: it is no choice.
    """
    if action not in get_args(IfExists):
        raise ConfigError(unknown("if_exists", action, get_args(IfExists), kind="action"))
    return cast(IfExists, action)
