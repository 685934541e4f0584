"""Calls of the user's code: whatever it raises, except Ctrl-C, becomes one line that names the function.

User code may call `sys.exit`, raise exceptions that are no `Exception`, or return a coroutine.

    model = call_user(factory, 'model.factory: "mypkg.nets:make"', ConfigError, classes=10)
    with guarded("model: its forward pass failed", ConfigError):
        outputs = model(inputs)
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ParamSpec, TypeVar

from torch import Tensor, nn

from autoprune.errors import AutopruneError, ConfigError, is_out_of_memory, shown_value, summary_of

_NAMES: Mapping[str, str] = {
    "Module": "a torch.nn.Module",
    "Prunable": "the result of autoprune.trace",
    "TracedModel": "the result of autoprune.trace",
    "Plan": "the result of autoprune.make_plan",
    "Callable": "a function",
    "Iterable": "an iterable",
    "PathLike": "a path",
    "NoneType": "None",
    "str": "a text",
    "int": "an integer",
}
"""Classes of arguments as messages name them, if not by their own names."""

P = ParamSpec("P")
R = TypeVar("R")


@contextlib.contextmanager
def guarded(
    where: str, error_class: type[AutopruneError], *, advice: str = "", memory_passes: bool = False
) -> Iterator[None]:
    """Turn whatever the block raises into one line.

    Ctrl-C and errors of autoprune pass. The block must not yield: closing a generator raises GeneratorExit.

    Args:
        where: opens the message.
        error_class: of the error that is raised instead.
        advice: ends the message.
        memory_passes: whether errors that say that memory ran out pass.

    Raises:
        AutopruneError: of `error_class`; its message holds the class and the text of the original error.
    """
    try:
        yield
    except (AutopruneError, KeyboardInterrupt):
        raise
    except BaseException as error:  # sys.exit in user code would end the run with exit code 0 and no result
        if memory_passes and isinstance(error, (MemoryError, RuntimeError)) and is_out_of_memory(error):
            raise
        raise error_class(f"{where}: {summary_of(error)}{'; ' if advice else ''}{advice}") from error


def entry(
    error_class: type[AutopruneError] = ConfigError, /, **kinds: Any
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Check the arguments of a public function, and let no code of the user's end the process from inside it.

    The `sys.exit` of a model that is copied, for instance, would end a script in silence. What else is raised
    passes: it may be a fault of autoprune, and then its traceback is needed.

    Args:
        error_class: of the errors.
        kinds: classes of arguments by their names, one or a tuple of several.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def run(*given: P.args, **named: P.kwargs) -> R:
            with contextlib.suppress(
                TypeError
            ):  # a wrong number of arguments: the call itself names it better
                arguments = signature.bind(*given, **named).arguments
                for name, kind in kinds.items():
                    if name in arguments and not isinstance(arguments[name], kind):
                        raise error_class(_wrong_kind(f"{function.__name__}: {name}", arguments[name], kind))
            try:
                return function(*given, **named)
            except SystemExit as error:
                where = f"{function.__name__}: code of the model, the data or the task raised"
                raise error_class(f"{where} {summary_of(error)}; let it raise an exception.") from error

        return run

    return decorate


def _wrong_kind(where: str, value: object, kind: type | tuple[type, ...]) -> str:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    names = " or ".join(_NAMES.get(each.__name__, each.__name__) for each in kinds)
    is_short = value is None or isinstance(value, (str, int, float))
    got = shown_value(value) if is_short else f"a {type(value).__name__}"
    hint = " Call the class." if isinstance(value, type) and issubclass(value, kinds) else ""
    return f"{where}: got {got}, expected {names}.{hint}"


def call_user(
    function: Callable[..., Any], where: str, error_class: type[AutopruneError], /, *given: Any, **named: Any
) -> Any:
    """Call a function of the user's and return its value.

    Args:
        function: any callable.
        where: the config's key and the reference, for messages.
        error_class: of the error that is raised if it fails.
        given: its positional arguments.
        named: its keyword arguments.

    Raises:
        AutopruneError: of `error_class`; the function raised something, or has to be awaited.
    """
    with guarded(f"{where} failed", error_class):
        return call_plain(function, *given, **named)


def call_plain(function: Callable[..., Any], /, *given: Any, **named: Any) -> Any:
    """Call a function and return its value. Errors pass, so this belongs into a guarded block.

    Raises:
        TypeError: the function is a coroutine function.
    """
    value = function(*given, **named)
    if inspect.iscoroutine(value):
        value.close()  # else Python warns that it was never awaited
        raise TypeError('it gave a coroutine; define it with "def", without "async"')
    return value


def call_with_offered(
    function: Callable[..., Any], where: str, error_class: type[AutopruneError], offered: Mapping[str, Any]
) -> Any:
    """Call a function of the user's with those of the offered arguments that it has parameters for.

    Raises:
        AutopruneError: of `error_class`; see `call_user`.
    """
    given, named = [], {}
    for name, kind in _parameters(function).items():
        if name in offered and kind is inspect.Parameter.POSITIONAL_ONLY:
            given.append(offered[name])
        elif name in offered:
            named[name] = offered[name]
    return call_user(function, where, error_class, *given, **named)


def _parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """Return {name: kind} of a function's parameters; empty for a builtin without a signature."""
    try:
        return {name: parameter.kind for name, parameter in inspect.signature(function).parameters.items()}
    except (TypeError, ValueError):
        return {}


def forward(model: nn.Module, inputs: Tensor) -> object:
    """Run a model on a batch.

    Raises:
        ConfigError: the forward pass raised something, except that memory ran out.
    """
    mode = " in training mode" if model.training else ""
    where = f"model: its forward pass failed{mode} on inputs {tuple(inputs.shape)}"
    with guarded(where, ConfigError, memory_passes=True):
        outputs: object = call_plain(model, inputs)
    return outputs
