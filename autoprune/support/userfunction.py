"""Import functions that users name as "package.module:function".

The module is searched in the current folder and the installed packages. `importing` changes this.

    make = load_function("mypkg.nets:make", "model.factory")
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from autoprune.errors import ConfigError, a_kind, suggest, summary_of, unknown

T = TypeVar("T")

_LONGEST_REFERENCE = 200


@dataclass(frozen=True)
class Imports:
    """The folder in which modules are searched, besides the installed packages and PYTHONPATH.

    Attributes:
        folder: a folder, "" for the current folder, or None for no folder.
        barred: a folder that is not searched if `folder` is None, even if Python has put it on `sys.path`.
    """

    folder: str | None = ""
    barred: str = ""


class GivenObject(str):
    """The name of an object of a Python session, such as "__main__:<lambda>", that carries the object.

    A config stores and prints the name, and `load_object` returns the object. A name that was stored, in a
    study for example, has lost its object.

    Attributes:
        value: the object.
    """

    value: Any

    def __new__(cls, name: str, value: Any) -> GivenObject:
        """Make the name of an object."""
        made = super().__new__(cls, name)
        made.value = value
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> GivenObject:
        """Return the same name, since the object belongs to the caller."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the name with its object, for workers."""
        return type(self), (str(self), self.value)


def path_of(value: object) -> str:
    """Return "package.module:name" of an object that can be imported by it, or else a `GivenObject`.

    Objects that a script or a notebook defines, lambdas, functions inside of functions, and instances of
    classes cannot be imported elsewhere.
    """
    module = getattr(value, "__module__", None) or type(value).__module__
    name = getattr(value, "__qualname__", None)
    if name is None:
        return GivenObject(f"{module}:<{type(value).__qualname__}>", value)
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is value and module != _SCRIPT:
        return f"{module}:{name}"
    is_plain = module != _SCRIPT and "<" not in name  # such as a bound method, whose name leads elsewhere
    return GivenObject(f"{module}:<{name}>" if is_plain else f"{module}:{name}", value)


_SCRIPT = "__main__"
_CURRENT_FOLDER = Imports()
_imports: ContextVar[Imports] = ContextVar("imports", default=_CURRENT_FOLDER)


@contextlib.contextmanager
def importing(imports: Imports) -> Iterator[None]:
    """Inside the block, search modules of `load_function` as `imports` specifies."""
    before = _imports.set(imports)
    try:
        yield
    finally:
        _imports.reset(before)


def current_imports() -> Imports:
    """Return the `Imports` in effect, which a worker process needs too."""
    return _imports.get()


def load_function(reference: str, where: str) -> Callable[..., Any]:
    """Import the callable that `reference` names as "package.module:function".

    Raises:
        ConfigError: if the reference is malformed, cannot be imported, or is not callable.
    """
    found = load_object(reference, where)
    if not callable(found):
        raise ConfigError(f'{where}: "{reference}" is {a_kind(found)}, expected a function.')
    return found  # type: ignore[no-any-return]  # looked up by name at run time


def load_object(reference: str, where: str) -> Any:
    """Import the object that `reference` names as "package.module:name".

    The folder of `Imports` stays on `sys.path`, because objects from it may be pickled by name for workers.

    Args:
        reference: module path and attribute path, joined by one colon.
        where: the config key or argument, for messages.

    Raises:
        ConfigError: if the reference is malformed or cannot be imported, or is the name of an object of
            another Python session.
    """
    if isinstance(reference, GivenObject):
        return reference.value
    module_name, _, attribute = reference.partition(":")
    if "<" in attribute or (module_name == _SCRIPT and not hasattr(sys.modules[_SCRIPT], attribute)):
        raise ConfigError(_pass_again(reference, where))
    parts = attribute.split(".")
    if not _is_reference(module_name, parts, reference):
        raise ConfigError(
            f'{where}: {_shown(reference)} names no function. Write it as "package.module:function".'
        )
    with _search_path(_imports.get()):
        found = _import(module_name, where)
    for part in parts:
        found = _attribute(found, part, f'{where}: module "{module_name}" has no "{attribute}"')
    return found


def reference(function: object) -> str:
    """Return "package.module:function" for a function, or that of its class for another object.

    For a function of this package, return its name only, as in a config: "cross_entropy".
    """
    name = getattr(function, "__qualname__", type(function).__qualname__)
    module = getattr(function, "__module__", type(function).__module__)
    return str(name) if module.startswith("autoprune.") else f"{module}:{name}"


def look_up(name: str, table: Mapping[str, T], where: str) -> T | Callable[..., Any]:
    """Return the row `name` of `table`, or the user's own function if the name has a colon.

    Raises:
        ConfigError: if there is no such row (the message suggests the nearest), or no such function.
    """
    if name in table:
        return table[name]
    if ":" in name:
        found = load_object(name, where)  # a metric may be an object that is called batch by batch
        return found if hasattr(found, "compute") else load_function(name, where)
    raise ConfigError(unknown(where, name, table))


def _pass_again(reference: str, where: str) -> str:
    section, dot, key = where.partition(".")
    config = f'{{"{section}": {{"{key}": ...}}}}' if dot else "{...}"
    return (
        f"{where}: {_shown(reference)} is an object of a Python session, which cannot be imported. Pass it "
        f"again from Python, as in autoprune.resume(study, config={config}), or define it in a module and "
        "begin another study."
    )


def _is_reference(module_name: str, parts: list[str], reference: str) -> bool:
    names = [*(name.replace("-", "_") for name in module_name.split(".")), *parts]
    return len(reference) <= _LONGEST_REFERENCE and all(name.isidentifier() for name in names)


def _shown(text: str) -> str:
    """Quote a text, with control characters escaped, and cut it if it is long."""
    return ascii(text if len(text) <= _LONGEST_REFERENCE else f"{text[:40]}...").replace("'", '"')


@contextlib.contextmanager
def _search_path(imports: Imports) -> Iterator[None]:
    """Put the folder on `sys.path` permanently, or remove the barred folder inside the block."""
    if imports.folder is not None:
        folder = imports.folder or os.getcwd()
        if folder not in sys.path:
            sys.path.insert(0, folder)
        yield
        return
    named = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    barred = Path(imports.barred).resolve()
    before = list(sys.path)
    sys.path[:] = [entry for entry in before if entry in named or Path(entry).resolve() != barred]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        added = [entry for entry in sys.path if entry not in before]
        sys.path[:] = [*added, *before]


def _attribute(found: Any, part: str, problem: str) -> Any:
    """Return an attribute. A module's own `__getattr__` may raise any error."""
    try:
        return getattr(found, part)
    except AttributeError:
        hint = suggest(part, [name for name in dir(found) if not name.startswith("_")])
        raise ConfigError(f"{problem}.{hint}") from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ConfigError(f"{problem}: {summary_of(error)}") from error


def _import(module_name: str, where: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if module_name == missing or module_name.startswith(f"{missing}."):
            stem = module_name.removesuffix(".py")
            hint = "" if stem == module_name else f' Write "{stem}", without ".py".'
            looked_in = _looked_in(_imports.get())
            raise ConfigError(f'{where}: no module "{module_name}" {looked_in}.{hint}') from error
        raise ConfigError(f'{where}: module "{module_name}" needs "{missing}", which is missing.') from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module's own code may raise anything, even SystemExit
        raise ConfigError(f'{where}: importing "{module_name}" failed: {summary_of(error)}') from error


def _looked_in(imports: Imports) -> str:
    if imports.folder is None:
        return (
            "among the installed packages (the current folder is not searched for names of a study or of a "
            "saved model: set PYTHONPATH, or give --config CONFIG.toml that names it)"
        )
    folder = f"in {imports.folder}" if imports.folder else "in the current folder"
    return f"{folder} or among the installed packages"
