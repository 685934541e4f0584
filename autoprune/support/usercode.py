"""Call user code and turn everything that it raises, except Ctrl-C, into an error of one line.

User code may call `sys.exit`, raise a `BaseException`, or return a coroutine.

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

from torch import nn

from autoprune.errors import AutopruneError, ConfigError, a_kind, is_out_of_memory, shown_value, summary_of
from autoprune.support.structures import arguments, described

_NAMES: Mapping[str, str] = {
    "Module": "a torch.nn.Module",
    "Prunable": "the result of autoprune.trace",
    "TracedModel": "the result of autoprune.trace",
    "Plan": "the result of autoprune.make_plan",
    "Callable": "a function",
    "Iterable": "an iterable",
    "PathLike": "a path",
    "NoneType": "None",
    "StudyResult": "the result of a search",
    "str": "a text",
    "int": "an integer",
}
"""{class name: description for messages}. Other classes are described by their names."""

P = ParamSpec("P")
R = TypeVar("R")


@contextlib.contextmanager
def guarded(
    where: str, error_class: type[AutopruneError], *, advice: str = "", memory_passes: bool = False
) -> Iterator[None]:
    """Turn everything that the block raises into an error of one line.

    Ctrl-C and errors of autoprune pass. The block must not yield, because closing a generator raises
    GeneratorExit.

    Args:
        where: the start of the message.
        error_class: class of the error to raise instead.
        advice: the end of the message.
        memory_passes: whether errors that report that memory ran out pass.

    Raises:
        AutopruneError: of `error_class`, with the class and the text of the original error.
    """
    try:
        yield
    except (AutopruneError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a sys.exit in user code would end the run with exit code 0 and no result
        if memory_passes and isinstance(error, (MemoryError, RuntimeError)) and is_out_of_memory(error):
            raise
        text = f"{where}: {summary_of(error)}"
        if advice:
            ended = text if text.endswith("...") else f"{text.removesuffix('.')}."
            text = f"{ended} {advice}"
        raise error_class(text) from error


def entry(
    error_class: type[AutopruneError] = ConfigError, /, **kinds: Any
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Check the arguments of a public function, and turn a `sys.exit` of user code inside it into an error.

    Without this, a model that calls `sys.exit` when it is copied would end a script silently. Other errors
    pass, because they may be bugs of autoprune, whose traceback is needed.

    Args:
        error_class: class of the errors.
        kinds: {argument name: its class, or a tuple of classes}.
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
                raise error_class(f"{where} {summary_of(error)}. Let it raise an exception.") from error

        return run

    return decorate


def _wrong_kind(where: str, value: object, kind: type | tuple[type, ...]) -> str:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    names = " or ".join(_NAMES.get(each.__name__, f"a {each.__name__}") for each in kinds)
    is_short = value is None or isinstance(value, (str, int, float))
    got = shown_value(value) if is_short else a_kind(value)
    hint = " Call the class." if isinstance(value, type) and issubclass(value, kinds) else ""
    return f"{where}: got {got}, expected {names}.{hint}"


def call_user(
    function: Callable[..., Any], where: str, error_class: type[AutopruneError], /, *given: Any, **named: Any
) -> Any:
    """Call a user's function and return its value.

    Args:
        function: any callable.
        where: the config key and the reference, for messages.
        error_class: class of the error to raise if the function fails.
        given: positional arguments.
        named: keyword arguments.

    Raises:
        AutopruneError: of `error_class`, if the function raises an error or is a coroutine function.
    """
    with guarded(f"{where} failed", error_class):
        return call_plain(function, *given, **named)


def call_plain(function: Callable[..., Any], /, *given: Any, **named: Any) -> Any:
    """Call a function and return its value. Its errors pass, so call this inside a `guarded` block.

    Raises:
        TypeError: if the function is a coroutine function.
    """
    value = function(*given, **named)
    if inspect.iscoroutine(value):
        value.close()  # otherwise Python warns that it was never awaited
        raise TypeError('it returned a coroutine. Define it with "def", without "async"')
    return value


def call_with_offered(
    function: Callable[..., Any], where: str, error_class: type[AutopruneError], offered: Mapping[str, Any]
) -> Any:
    """Call a user's function with those of the `offered` arguments for which it has parameters.

    Raises:
        AutopruneError: of `error_class`, as `call_user` raises it.
    """
    given, named = [], {}
    for name, kind in _parameters(function).items():
        if name in offered and kind is inspect.Parameter.POSITIONAL_ONLY:
            given.append(offered[name])
        elif name in offered:
            named[name] = offered[name]
    return call_user(function, where, error_class, *given, **named)


def _parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """Return {name: kind} of a function's parameters, or {} for a builtin without a signature."""
    try:
        return {name: parameter.kind for name, parameter in inspect.signature(function).parameters.items()}
    except (TypeError, ValueError):
        return {}


def forward(model: nn.Module, inputs: Any) -> object:
    """Run a model on the inputs of a batch.

    Raises:
        ConfigError: if the forward pass raises an error. Errors that report that memory ran out pass.
    """
    mode = " in training mode" if model.training else ""
    where = f"model: its forward pass failed{mode} on inputs {described(inputs)}"
    with guarded(where, ConfigError, memory_passes=True):
        positional, named = arguments(inputs)
        outputs: object = call_plain(model, *positional, **named)
    return outputs
