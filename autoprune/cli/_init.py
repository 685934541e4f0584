"""The command `init`: asks for a model, data and a budget, and writes a config.

It imports heavy modules only when it runs, so that `autoprune --help` answers at once.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoprune.cli._completion import complete_data, complete_model, complete_profile
from autoprune.cli._output import output, print_notes, progress_console, screen, show
from autoprune.errors import AutopruneError, ConfigError

if TYPE_CHECKING:
    from autoprune.run import Wishes

DEFAULT = Path("autoprune.toml")
_EXISTS = "{}: exists already. Name another file, or give --force to overwrite it."


def init(
    path: Annotated[Path, typer.Argument(metavar="OUTPUT.toml", help="The config to write.")] = DEFAULT,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME|MODULE:FUNCTION",
            help="A model of the zoo, torchvision or timm, or your own.",
            autocompletion=complete_model,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="NAME|FOLDER|MODULE:FUNCTION",
            help="A data set, a folder of images, or your own.",
            autocompletion=complete_data,
        ),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option("--budget", metavar="LIMIT", help='"flops 50%", "latency 5 ms", ... May be repeated.'),
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", metavar="FILE", help="The trained weights of the model.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", metavar="NAME", help="Weights of torchvision or timm: DEFAULT.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", metavar="N", help="Pixels a side, for a folder.")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="NAME", help="auto (the default), cpu, cuda or cuda:N.")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile", metavar="NAME", help="balanced or thorough.", autocompletion=complete_profile
        ),
    ] = None,
    saw_validation: Annotated[
        bool, typer.Option("--saw-validation", help="Accept weights that saw the validation images.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    smoke: Annotated[bool, typer.Option("--smoke", help="Try the new config on a few images.")] = False,
) -> None:
    """Write a config for a model, data and a budget. It asks for the answers that no option gives."""
    from autoprune import run

    if path.exists() and not force:
        raise ConfigError(_EXISTS.format(path))
    given = run.Wishes(
        model=model or "",
        data=data or "",
        budget=tuple(budget or ()),
        checkpoint=checkpoint,
        weights=weights,
        image_size=image_size,
        device=device or "auto",
        profile=profile or "balanced",
        saw_validation=saw_validation,
    )
    wishes = _ask_for_missing(given, device=device, profile=profile)
    with screen() as watch:
        found = run.propose(wishes, watch=watch)
    _write(path, found.text, force=force)
    notes = [*found.notes, found.expected, *([_smoke(path)] if smoke else [])]
    following = shlex.join(["autoprune", "search", str(path)])
    show(found, notes=lambda: [*notes, f"Wrote {path}. Next: {following}"])


def _ask_for_missing(given: Wishes, *, device: str | None, profile: str | None) -> Wishes:
    """Ask for all that is not given, if the model, the data or the budget is missing.

    Raises:
        ConfigError: one of these is missing, and there is no terminal.
    """
    missing = [f"--{name}" for name in ("model", "data", "budget") if not getattr(given, name)]
    if not missing:
        return given
    if not sys.stdin.isatty():
        raise ConfigError(f"init: missing {' and '.join(missing)}. Give them, or run init in a terminal.")
    try:
        return _asked(given, device, profile)
    except typer.Abort:
        print_notes(["", "Stopped: nothing is written."])
        raise typer.Exit(130) from None


def _asked(given: Wishes, device: str | None, profile: str | None) -> Wishes:
    from autoprune import run
    from autoprune.execution import resolve_device

    model, checkpoint, budget = given.model, given.checkpoint, given.budget
    if not model:
        model = _ask("Model (a name, or module:function)", run.read_model)
        if checkpoint is None and given.weights is None:
            question = "File of its trained weights (empty for none)"
            checkpoint = _prompt(question, "", show_default=False) or None
    data = given.data or _ask("Data (a name, a folder, or module:function)", run.read_data)
    if not budget:
        budget = (_ask("Budget", lambda text: run.read_budget((text,)), "flops 50%"),)
    return replace(
        given,
        model=model,
        checkpoint=checkpoint,
        data=data,
        budget=budget,
        device=device or _ask("Device (auto, cpu, cuda)", resolve_device, "auto"),
        profile=profile or _ask("Length (balanced, thorough)", run.read_profile, "balanced"),
    )


def _ask(question: str, read: Callable[[str], object], default: str | None = None) -> str:
    """Ask until `read` accepts the answer."""
    while True:
        answer = _prompt(question, default).strip()
        try:
            read(answer)
        except AutopruneError as error:
            progress_console().print(str(error), style="red", highlight=False)
        else:
            return answer


def _prompt(question: str, default: str | None, *, show_default: bool = True) -> str:
    """Ask once: on standard error if standard output takes a JSON document."""
    # With typer's err=True a space would still go to standard output.
    target = sys.stderr if output.json else sys.stdout
    with contextlib.redirect_stdout(target):
        return str(typer.prompt(question, default, show_default=show_default))


def _write(path: Path, text: str, *, force: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(_EXISTS.format(path)) from None


def _smoke(path: Path) -> str:
    """Run the trial run of a config, and return its result as a sentence."""
    from autoprune import run
    from autoprune.config import load_config

    with screen() as watch:
        watch(run.Stage(f"wrote {path}, now trying it on a few images"))
        return run.smoke(load_config(str(path), profile="smoke"), watch=watch).sentence
