"""Functions that users name as "package.module:function", and names looked up in a table of ours.

Before: a config or a script that names a model factory, a data loader, a loss or a metric.
After: the zoo, the data and the task, which call what is found here.

    make = load_function("mypkg.nets:make", "model.factory")
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from autoprune.errors import ConfigError, suggest, summary_of, unknown

T = TypeVar("T")


def load_function(reference: str, where: str) -> Callable[..., Any]:
    """Import the callable that `reference` names as "package.module:function".

    The current folder is put on `sys.path` and stays there: what is imported from it may be pickled
    by name into worker processes.

    Args:
        reference: module path and attribute path, joined by one colon.
        where: the config key or argument, for error messages.

    Raises:
        ConfigError: the reference is malformed, cannot be imported, or names nothing callable.
    """
    module_name, colon, attribute = reference.partition(":")
    if not (module_name and colon and attribute):
        raise ConfigError(f'{where}: "{reference}" names no function; write it as "package.module:function".')
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    found: Any = _import(module_name, where)
    for part in attribute.split("."):
        if not hasattr(found, part):
            hint = suggest(part, [name for name in dir(found) if not name.startswith("_")])
            raise ConfigError(f'{where}: module "{module_name}" has no "{attribute}".{hint}')
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f'{where}: "{reference}" is a {type(found).__name__}, expected a function.')
    return found  # type: ignore[no-any-return]  # looked up by name at run time


def reference(function: object) -> str:
    """Return "package.module:function" for a function, as near as it tells; of another object, its class."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', type(function).__module__)}:{name}"


def look_up(name: str, table: Mapping[str, T], where: str) -> T | Callable[..., Any]:
    """Return the row of `table` called `name`, or the user's own function where the name has a colon.

    Raises:
        ConfigError: no such row (the nearest is suggested), or no such function.
    """
    if name in table:
        return table[name]
    if ":" in name:
        return load_function(name, where)
    raise ConfigError(unknown(where, name, table))


def _import(module_name: str, where: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise ConfigError(
                f'{where}: no module "{module_name}" in the current folder or among the installed packages.'
            ) from error
        raise ConfigError(f'{where}: module "{module_name}" needs "{missing}", which is missing.') from error
    except Exception as error:
        raise ConfigError(f'{where}: importing "{module_name}" failed: {summary_of(error)}') from error
