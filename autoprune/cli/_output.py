"""The output of a command: its progress, its result as tables or as one JSON document, and its notes.

The options -q, -v, --no-color and --json stand before or after the verb. They hold until the command ends.

Example:
    with screen() as watch:
        result = run.train(settings, watch=watch)
    show(result, notes=[f"Saved in {result.checkpoint}."])
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from inspect import Parameter, Signature, signature
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from autoprune.cli._console import console
from autoprune.errors import OutputError, reason_of
from autoprune.support.events import Watcher, silent
from autoprune.support.launch import launched
from autoprune.support.printing import PrintableConsole, abandon


@dataclass
class Output:
    """The options of the command that runs.

    Attributes:
        quiet: 0, 1 for results without progress, or 2 for errors alone.
        verbose: whether messages are printed that are silent otherwise.
        json: whether the result is one JSON document on standard output.
        handlers: the handler of these messages, if there is one.
    """

    quiet: int = 0
    verbose: bool = False
    json: bool = False
    handlers: list[logging.Handler] = field(default_factory=list)

    def reset(self) -> None:
        """Begin with the defaults. Tests run several commands in one process."""
        self.quiet, self.verbose, self.json = 0, False, False
        console.no_color = os.environ.get("NO_COLOR", "") != ""
        for handler in self.handlers:
            logging.getLogger("autoprune").removeHandler(handler)
        self.handlers.clear()

    def add(self, quiet: int, verbose: bool, no_color: bool, json: bool) -> None:
        """Add the options that stand on one side of the verb."""
        self.quiet += quiet
        self.json |= json
        console.no_color |= no_color
        if verbose and not self.verbose:
            self.verbose = True
            self.handlers.append(_Messages())
            logger = logging.getLogger("autoprune")
            logger.addHandler(self.handlers[-1])
            logger.setLevel(logging.INFO)


output = Output()


class _Messages(logging.Handler):
    """Prints log messages where the progress is printed, above the bars."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OutputError):
            progress_console().print(
                f"{record.name}: {record.getMessage()}", style="dim", highlight=False, soft_wrap=True
            )


_OPTIONS: dict[str, Any] = {
    "quiet": Annotated[
        int,
        typer.Option(
            "--quiet",
            "-q",
            count=True,
            show_default=False,
            help="Print results alone. -qq: nothing but errors.",
        ),
    ],
    "verbose": Annotated[
        bool, typer.Option("--verbose", "-v", help="Also log Optuna, workers and the times of rungs.")
    ],
    "no_color": Annotated[bool, typer.Option("--no-color", help="Print without colours, as NO_COLOR does.")],
    "json": Annotated[
        bool, typer.Option("--json", help="Print the result as JSON. See `autoprune guide json`.")
    ],
}


def with_output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of `Output`."""

    @functools.wraps(command)
    def run(*given: Any, **named: Any) -> Any:
        output.add(**{name: named.pop(name) for name in _OPTIONS})
        return command(*given, **named)

    own = signature(command, eval_str=True).parameters.values()
    added = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=0 if name == "quiet" else False, annotation=kind)
        for name, kind in _OPTIONS.items()
    ]
    vars(run)["__signature__"] = Signature([*own, *added])
    run.__annotations__ = {each.name: each.annotation for each in (*own, *added)}
    return run


def progress_console() -> PrintableConsole:
    """Return the console of progress and notes, which is standard error if a JSON document is printed."""
    if not output.json:
        return console
    return PrintableConsole(stderr=True, no_color=console.no_color, quiet=not launched().leads)


def screen() -> AbstractContextManager[Watcher]:
    """Return the context of the watcher that shows the progress of a command."""
    if output.quiet:
        return contextlib.nullcontext(silent)
    from autoprune.progress import Screen

    return Screen(progress_console())


def show(
    result: object,
    tables: Callable[[], Iterable[RenderableType]] = lambda: (),
    notes: Callable[[], Sequence[str]] = lambda: (),
) -> None:
    """Print a result: its tables and notes, or one JSON document.

    Of several processes that run one command together, the first one prints.
    """
    if not launched().leads:
        return
    if output.json:
        from autoprune.cli._documents import document

        write_json(document(result, notes()))
    elif output.quiet < 2:
        for table in tables():
            console.print(table)
        print_notes(notes())


def write_json(text: str) -> None:
    """Write a JSON document to standard output.

    Raises:
        OutputError: the disk of the output file is full.
    """
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        console.on_broken_pipe()
    except OSError as error:
        abandon(sys.stdout)
        raise OutputError(f"standard output: {reason_of(error)}.") from error


def print_notes(notes: Iterable[str]) -> None:
    for note in notes:
        console.print(note, soft_wrap=True, highlight=False)
