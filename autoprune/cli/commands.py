"""The command line's application: its commands in the order of `autoprune --help`, and how a line is run."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Annotated, cast

import typer

from autoprune.cli._console import MISTAKE, console
from autoprune.cli._model_commands import bench, export, inspect, train
from autoprune.cli._study_commands import best, finetune, report, resume, search
from autoprune.errors import ConfigError, shown_value

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_PAGE_WIDTH = 100
"""Pages of the guide have lines of at most so many characters: longer ones are hard to read."""

# All that typer raises over a command line has this base, which typer exports under no name.
_UsageError = cast(type[typer.BadParameter], typer.BadParameter.__bases__[0])


def run_command() -> int:
    """Run the command that was typed, and return its exit code.

    Raises:
        ConfigError: there is no such command, or it does not take these arguments.
        AutopruneError: the command raises it.
    """
    typed = sys.argv[1:]
    for word in typed:
        _require_text(word)
    try:
        code = app(args=None if typed else ["--help"], prog_name="autoprune", standalone_mode=False)
    except _UsageError as error:
        verb = error.ctx.command_path if error.ctx is not None else "autoprune"
        text = " ".join(error.format_message().split()).rstrip(".?")
        mark = "?" if error.format_message().rstrip().endswith("?") else "."
        raise ConfigError(f"{text}{mark} See `{verb} --help`.") from None
    return (code if isinstance(code, int) else 0) if typed else MISTAKE


def _require_text(word: str) -> None:
    """Refuse an argument that no database and no file system takes: one with a NUL, or with no text."""
    try:
        word.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError(f"{shown_value(word)}: this argument is not UTF-8.") from None
    if "\0" in word:
        raise ConfigError(f"{shown_value(word)}: this argument holds a NUL character; leave it out.")


def _print_version(asked: bool) -> None:
    if asked:
        console.print(f"autoprune {metadata.version('autoprune')}", highlight=False)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version.")
    ] = False,
) -> None:
    """Search smaller versions of a trained PyTorch vision model under a budget.

    `autoprune guide` lists the pages of the guide; `autoprune guide config` has all keys of a config.
    """


def guide(
    topic: Annotated[
        str | None, typer.Argument(metavar="TOPIC", help="A page; without it, the list of pages.")
    ] = None,
) -> None:
    """Print a page of the guide. Without a topic, list the pages."""
    from autoprune.guide import show_page, topics

    if topic is not None:
        return console.print(show_page(topic), width=min(console.width, _PAGE_WIDTH))
    pages = topics()
    for name, about in pages.items():
        console.print(f"{name:<{max(map(len, pages))}}  {about}", highlight=False)
    console.print("\nRead one with: autoprune guide TOPIC", highlight=False)


for command in (search, resume, best, finetune, train, inspect, export, bench, report, guide):
    app.command()(command)
