"""The application of the command line, with its commands in the order of `autoprune --help`."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Annotated, cast

import typer

from autoprune.cli._completion import complete_topic, completing
from autoprune.cli._console import MISTAKE, console
from autoprune.cli._init import init
from autoprune.cli._model_commands import bench, export, inspect, methods, prune, train
from autoprune.cli._output import output, with_output_options, write_json
from autoprune.cli._study_commands import best, finetune, report, resume, search, watch
from autoprune.errors import ConfigError, shown_value
from autoprune.support.launch import require_alone

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_PAGE_WIDTH = 100
"""Largest width of the guide's pages in characters. Longer lines are hard to read."""

# The base class of all errors that typer raises for a command line. Typer does not export it by name.
_UsageError = cast(type[typer.BadParameter], typer.BadParameter.__bases__[0])


def run_command() -> int:
    """Run the typed command and return its exit code.

    Raises:
        ConfigError: the command or an argument is unknown, or an argument has a wrong value.
        AutopruneError: the command fails.
    """
    output.reset()
    typed = sys.argv[1:]
    for word in typed:
        _require_text(word)
    verb = next((word for word in typed if not word.startswith("-")), None)
    if verb is not None and not {"--help", "--version"}.intersection(typed):
        require_alone(verb)
    try:
        with completing():
            code = app(args=None if typed else ["--help"], prog_name="autoprune", standalone_mode=False)
    except _UsageError as error:
        verb = error.ctx.command_path if error.ctx is not None else "autoprune"
        text = " ".join(error.format_message().split()).rstrip(".?")
        mark = "?" if error.format_message().rstrip().endswith("?") else "."
        raise ConfigError(f"{text}{mark} See `{verb} --help`.") from None
    return (code if isinstance(code, int) else 0) if typed else MISTAKE


def _require_text(word: str) -> None:
    """Refuse an argument that is not UTF-8 or has a NUL, which no database and no file system accepts."""
    try:
        word.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError(f"{shown_value(word)}: this argument is not UTF-8.") from None
    if "\0" in word:
        raise ConfigError(f"{shown_value(word)}: this argument holds a NUL character. Leave it out.")


def _print_version(is_requested: bool) -> None:
    if is_requested:
        console.print(f"autoprune {metadata.version('autoprune')}", highlight=False)
        raise typer.Exit


@app.callback()
@with_output_options
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version.")
    ] = False,
) -> None:
    """Search smaller versions of a trained PyTorch vision model under a budget.

    `autoprune guide` lists the pages of the guide. `autoprune guide config` describes all keys of a config.
    """


def guide(
    topic: Annotated[
        str | None,
        typer.Argument(
            metavar="TOPIC", help="A page. By default the pages are listed.", autocompletion=complete_topic
        ),
    ] = None,
) -> None:
    """Print a page of the guide, or list its pages."""
    from autoprune.guide import show_page, topics

    if output.json:
        if topic != "json":
            raise ConfigError(
                "--json: got another page than json, the only one with a document, which is its JSON Schema."
            )
        from autoprune.cli._documents import schema

        return write_json(schema())
    if topic is not None:
        return console.print(show_page(topic), width=min(console.width, _PAGE_WIDTH))
    pages = topics()
    for name, about in pages.items():
        console.print(f"{name:<{max(map(len, pages))}}  {about}", highlight=False)
    console.print("\nRead one with: autoprune guide TOPIC", highlight=False)


for command in (
    *(init, search, resume, watch, best, finetune, prune, methods),
    *(train, inspect, export, bench, report, guide),
):
    app.command()(with_output_options(command))
