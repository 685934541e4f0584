"""The commands: one function a verb, each a few lines over `pipeline`.

Before: `cli.main`; after: `pipeline` does the work, `report.tables` draws its results. The heavy modules are
imported inside the commands, so that `autoprune --help` answers at once.

    autoprune finetune digits --set finetune.epochs=5
"""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from autoprune.cli._console import MISTAKE, console
from autoprune.cli._signals import ended_by, shielded
from autoprune.cost import budget_keys
from autoprune.errors import AutopruneError, ConfigError, OutputError, shown_url, shown_value

if TYPE_CHECKING:
    from autoprune.cli._progress import Screen
    from autoprune.report import Curves
    from autoprune.run import SearchResult

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

ConfigSource = Annotated[
    str, typer.Argument(metavar="CONFIG", help="A TOML file, or the name of an embedded config: digits.")
]
StudyName = Annotated[
    str, typer.Argument(metavar="STUDY", help="The study's name, as the search printed it.")
]


def _require_once(overrides: list[str] | None) -> list[str] | None:
    """Refuse a key that is set twice on one command line: one of the two would be ignored."""
    from autoprune.config import parse_override

    seen = set()
    for override in overrides or ():
        path, _ = parse_override(override)
        if path in seen:
            raise ConfigError(f"--set {path}: it is given twice; leave one out.")
        seen.add(path)
    return overrides


Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        callback=_require_once,
        help="Override section.key of the config; may be repeated.",
    ),
]
Storage = Annotated[
    str | None,
    typer.Option("--storage", metavar="URL", help="The study's storage; default runs/STUDY.db."),
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Run code that was received with the study or the model.")
]
OwnConfig = Annotated[
    str | None,
    typer.Option("--config", metavar="CONFIG", help="Your own config, whose names are trusted."),
]


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


@app.command()
def search(config: ConfigSource, overrides: Overrides = None) -> None:
    """Search sub-models under the config's budget."""
    from autoprune import run
    from autoprune.config import load_config
    from autoprune.study import study_command

    settings = run.settle(load_config(config, overrides or ()))

    def go_on() -> str:
        if not run.study_exists(settings):
            return _same_command()
        return study_command("resume", str(settings.search.study), str(settings.search.storage))

    with _resumable(go_on), _screen() as watch:
        result = run.search(config=settings, watch=watch)
    _print_search(result)


@app.command()
def resume(
    study: StudyName,
    storage: Storage = None,
    overrides: Overrides = None,
    take_over: Annotated[
        bool,
        typer.Option("--take-over", help="Also run the trials again that other hosts held; they are gone."),
    ] = False,
    trust: Trust = False,
    config: OwnConfig = None,
) -> None:
    """Go on with a search that was stopped or killed. Its storage has all but model and data."""
    from autoprune import run

    with _resumable(_same_command), _screen() as watch:
        result = run.resume(
            study,
            storage,
            overrides=overrides or (),
            take_over=take_over,
            trust=trust,
            config=config,
            watch=watch,
        )
    _print_search(result)


def _with_limits(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each key of [budget], in place of its keyword arguments."""
    given = list(signature(command).parameters.values())[:-1]
    for key in budget_keys().values():
        example = f'At most so much, or a share: "{key.unit.example}", "40%".'
        kind = Annotated[str | None, typer.Option(key.option, help=example)]
        given.append(Parameter(key.name, Parameter.KEYWORD_ONLY, default=None, annotation=kind))
    vars(command)["__signature__"] = Signature(given)
    command.__annotations__.update({each.name: each.annotation for each in given})
    return command


@app.command()
@_with_limits
def best(
    study: StudyName,
    storage: Storage = None,
    **limits: str | None,
) -> None:
    """Pick the best trial of a study within limits. Nothing is tried anew; the search may still run."""
    from autoprune import run
    from autoprune.report import cost_notes, cost_table, trial_table, widths_table

    given = {name: value for name, value in limits.items() if value is not None}
    picked = run.best(study, run.find_storage(study, storage), given)
    console.print(trial_table(picked.summary, only=picked.trial))
    console.print(widths_table(picked.summary, picked.trial))
    console.print(cost_table(picked.summary, picked.trial))
    _print_notes([*cost_notes(picked.trial), f"Next: {picked.command}"])


@app.command()
def finetune(
    study: StudyName,
    storage: Storage = None,
    trial: Annotated[
        int | None, typer.Option("--trial", metavar="N", help="Another trial than the best one.")
    ] = None,
    overrides: Overrides = None,
    trust: Trust = False,
    config: OwnConfig = None,
) -> None:
    """Train the best plan of a study fully. It is tested once; a finetune that was stopped goes on."""
    from autoprune import run
    from autoprune.cli._tables import finetune_table
    from autoprune.run import export_command

    url = run.find_storage(study, storage)
    with _resumable(_same_command), _screen() as watch:
        result = run.finetune(
            study,
            url,
            trial=trial,
            overrides=overrides or (),
            trust=trust,
            config=config,
            watch=watch,
        )
    console.print(finetune_table(result))
    _print_notes([f"Saved in {result.folder}. Next: {export_command(study, url, result.folder)}"])


@app.command()
def train(config: ConfigSource, overrides: Overrides = None) -> None:
    """Train the dense model with a clean validation part. What it has seen is noted beside it."""
    from autoprune import run
    from autoprune.config import load_config

    settings = load_config(config, overrides or ())
    with _resumable(_same_command), _screen() as watch:
        result = run.train(settings, watch=watch)
    _print_notes([f"Validation score {result.val_score:.4f}. Saved in {result.checkpoint}."])


@app.command()
def inspect(
    config: ConfigSource,
    overrides: Overrides = None,
    errors: Annotated[
        bool, typer.Option("--errors", help="Show the output error of each group by its width instead.")
    ] = False,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Show the score as each group alone is cut instead.")
    ] = False,
    output: Annotated[
        list[str] | None,
        typer.Option("--output", "-o", help="A .png, .svg, .pdf or .csv file of these; may be repeated."),
    ] = None,
    limit: Annotated[float, typer.Option("--limit", help="Seconds of --sensitivity at most.")] = 300.0,
) -> None:
    """Show groups, costs and budgets before any training. Also frozen layers and the memory needed."""
    from autoprune import run
    from autoprune.cli._tables import group_table, inspection_notes, inspection_table
    from autoprune.config import load_config

    if errors and sensitivity:
        raise ConfigError("--errors and --sensitivity: give one of them at a time.")
    if output and not (errors or sensitivity):
        raise ConfigError("--output: inspect writes a file with --errors or --sensitivity alone; give one.")
    settings = load_config(config, overrides or ())
    with _screen() as watch:
        if errors:
            return _print_curves(run.error_curves(settings, output or (), watch=watch))
        if sensitivity:
            found = run.sensitivity_curves(settings, output or (), limit_seconds=limit, watch=watch)
            return _print_curves(found)
        inspection = run.inspect(settings, watch=watch)
    console.print(group_table(inspection))
    console.print(inspection_table(inspection))
    _print_notes(inspection_notes(inspection))


@app.command()
def export(
    target: Annotated[
        str,
        typer.Argument(
            metavar="STUDY|FOLDER",
            help="A study that is finetuned, or scored without training, or a saved model.",
        ),
    ],
    format_name: Annotated[str, typer.Option("--format", help="onnx, pt2 or safetensors.")] = "onnx",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write.")] = None,
    storage: Storage = None,
    dense: Annotated[
        bool, typer.Option("--dense", help="The dense model of the study, to be timed beside the small one.")
    ] = False,
    trust: Trust = False,
    config: OwnConfig = None,
) -> None:
    """Write the small model for another runtime. What was written has to compute the same."""
    from autoprune import run

    report = run.export(
        target,
        format_name,
        output=output,
        storage=storage,
        dense=dense,
        trust=trust,
        config=config,
    )
    difference = f"largest difference to PyTorch {report.max_difference:.2e}"
    _print_notes([f"Wrote {report.path} ({report.format}); {difference}."])


@app.command()
def bench(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...",
            help="Files .onnx (run in ONNX Runtime) or .pt2, or folders that finetune saved (in PyTorch).",
        ),
    ],
    batch: Annotated[
        int | None,
        typer.Option("--batch", help="Images at a time; default as files or shapes say."),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU threads.")] = 1,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:1.")] = "cpu",
    tolerance: Annotated[
        float, typer.Option("--tolerance", help="How exact the ratios shall be: 0.02 is 2% either way.")
    ] = 0.02,
    limit: Annotated[float, typer.Option("--limit", help="Seconds to measure at most.")] = 10.0,
    shape: Annotated[
        list[str] | None,
        typer.Option("--shape", metavar="[NAME=]SIZES", help="Sizes that a file leaves free: 1x3x224x224."),
    ] = None,
    trust: Trust = False,
) -> None:
    """Time exported models side by side. Each runs in its runtime; ratios are to the first."""
    from autoprune import run
    from autoprune.cli._tables import bench_notes, bench_table

    found = run.bench(
        models,
        batch=batch,
        threads=threads,
        device=device,
        shapes=shape or (),
        tolerance=tolerance,
        limit_seconds=limit,
        trust=trust,
    )
    console.print(bench_table(found))
    _print_notes(bench_notes(found))


@app.command()
def report(
    study: StudyName,
    storage: Storage = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The plot: a .png, .svg or .pdf file.")
    ] = None,
) -> None:
    """Print a study's trials and plot their scores. Plots are against MACs and against evaluations."""
    from autoprune import run
    from autoprune.cli._tables import finetune_table
    from autoprune.report import failure_table, front_table, summary_notes, trial_table

    found = run.report(study, run.find_storage(study, storage), output)
    summary = found.summary
    console.print(trial_table(summary))
    if summary.front:
        console.print(front_table(summary))
    if summary.failures():
        console.print(failure_table(summary))
    for result in found.finetuned:
        console.print(finetune_table(result))
    _print_notes(summary_notes(summary))
    plots = ", ".join(str(path) for path in (found.plot, found.stairs) if path is not None)
    _print_notes([f"Plotted in {plots}." if plots else "No trial has a score: no plot."])
    if found.next_step:
        _print_notes([found.next_step])


@app.command()
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


def _print_search(result: SearchResult) -> None:
    from autoprune.report import failure_table, front_table, summary_notes, trial_table, widths_table

    several = len(result.summary.objectives) > 1
    console.print(front_table(result.summary) if several else trial_table(result.summary, most=5))
    if result.summary.failures():
        console.print(failure_table(result.summary))
    _ = result.best  # raises where no trial completed: there is nothing to go on with
    console.print(widths_table(result.summary, result.summary.best))
    notes = summary_notes(result.summary)
    _print_notes([*notes, result.next_step])


def _print_curves(curves: Curves) -> None:
    from autoprune.report import curve_notes, curve_table

    console.print(curve_table(curves))
    _print_notes(curve_notes(curves))


def _print_notes(notes: list[str]) -> None:
    for note in notes:
        console.print(note, soft_wrap=True, highlight=False)


def _screen() -> Screen:
    from autoprune.cli._progress import Screen

    return Screen(console)


def _same_command() -> str:
    """Return the command as it was typed, but for the password of a storage."""
    return shlex.join(["autoprune", *map(shown_url, sys.argv[1:])])


@contextlib.contextmanager
def _resumable(go_on: Callable[[], str]) -> Iterator[None]:
    """After Ctrl-C, SIGTERM or SIGHUP, print the command that goes on. `go_on` is called only then."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        with shielded():
            word, code = ended_by(interrupt)
            try:
                command = go_on()
            except AutopruneError:  # the storage cannot be read just now
                command = _same_command()
            line = f"{word}; what is finished is kept. Go on with: {command}"
            with contextlib.suppress(OutputError):  # the terminal is gone
                console.print(line, soft_wrap=True, highlight=False)
        raise typer.Exit(code) from None
