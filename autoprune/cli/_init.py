"""The command `init`: asks for a model, data and a budget, and writes a config.

It imports heavy modules only when it runs, so that `autoprune --help` answers at once.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoprune.cli._completion import complete_data, complete_model, complete_profile
from autoprune.cli._console import console
from autoprune.cli._output import print_notes, screen, show
from autoprune.errors import AutopruneError, ConfigError

if TYPE_CHECKING:
    pass

DEFAULT = Path("autoprune.toml")
_EXISTS = "{}: exists already; name another file, or give --force to overwrite it."


def init(
    path: Annotated[Path, typer.Argument(metavar="OUTPUT.toml", help="The config to write.")] = DEFAULT,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME|MODULE:FUNCTION",
            help="Of the zoo, torchvision, timm, or yours.",
            autocompletion=complete_model,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="NAME|FOLDER|MODULE:FUNCTION",
            help="A data set, a folder, or yours.",
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
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile", metavar="NAME", help="smoke, balanced or thorough.", autocompletion=complete_profile
        ),
    ] = None,
    saw_validation: Annotated[
        bool, typer.Option("--saw-validation", help="Accept scores on images of the weights' training.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    smoke: Annotated[bool, typer.Option("--smoke", help="Then run the config on a few images.")] = False,
) -> None:
    """Write a config for a model, data and a budget, after a look at them. Asks for what is not given."""
    from autoprune import run

    if path.exists() and not force:
        raise ConfigError(_EXISTS.format(path))
    missing = [
        f"--{name}" for name, value in (("model", model), ("data", data), ("budget", budget)) if not value
    ]
    if missing and not sys.stdin.isatty():
        raise ConfigError(f"init: missing {' and '.join(missing)}; give them, or run init in a terminal.")
    try:
        if missing:
            if model is None:
                model = _ask("Model (a name, or module:function)", run.read_model)
                if checkpoint is None and weights is None:
                    checkpoint = (
                        typer.prompt("File of its trained weights (empty for none)", "", show_default=False)
                        or None
                    )
            data = data or _ask("Data (a name, a folder, or module:function)", run.read_data)
            budget = budget or [_ask("Budget", lambda text: run.read_budget((text,)), "flops 50%")]
            profile = profile or _ask("Length (balanced or thorough)", _known_profile, "balanced")
    except typer.Abort:
        print_notes(["", "Stopped: nothing is written."])
        raise typer.Exit(130) from None
    wishes = run.Wishes(
        str(model),
        str(data),
        tuple(budget or ()),
        checkpoint,
        weights,
        image_size,
        device,
        profile or "balanced",
        saw_validation,
    )
    with screen() as watch:
        found = run.propose(wishes, watch=watch)
    _write(path, found.text, force=force)
    following = shlex.join(["autoprune", "search", str(path)])
    show(found, notes=lambda: [*found.notes, found.expected, f"Wrote {path}. Next: {following}"])
    if smoke:
        _run_smoke(path)


def _ask(question: str, read: Callable[[str], object], default: str | None = None) -> str:
    """Ask until `read` accepts the answer."""
    while True:
        answer = str(typer.prompt(question, default)).strip()
        try:
            read(answer)
        except AutopruneError as error:
            console.print(str(error), style="red", highlight=False)
        else:
            return answer


def _known_profile(name: str) -> object:
    from autoprune.config import find_profile

    return find_profile(name, "--profile")


def _write(path: Path, text: str, *, force: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(
            f"{path}: exists already; name another file, or give --force to overwrite it."
        ) from None


def _run_smoke(path: Path) -> None:
    from autoprune import run
    from autoprune.config import load_config

    with screen() as watch:
        result = run.smoke(load_config(str(path), profile="smoke"), watch=watch)
    print_notes([result.sentence])
