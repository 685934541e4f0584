"""The arguments and options that several commands take."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from autoprune.cli._completion import VARIABLE, complete_config, complete_override, complete_study
from autoprune.errors import ConfigError

_CONFIG = typer.Argument(
    metavar="CONFIG",
    help="A TOML file, or the name of an embedded config: digits.",
    autocompletion=complete_config,
)
ConfigSource = Annotated[str, _CONFIG]
OptionalConfig = Annotated[str | None, _CONFIG]
StudyName = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="The study's name, as the search printed it.",
        autocompletion=complete_study,
    ),
]


def _require_once(overrides: list[str] | None) -> list[str] | None:
    """Refuse a key that is set twice on one command line, because one of the values would be ignored."""
    if VARIABLE in os.environ:  # a shell completes the next word, and the check takes too long for that
        return overrides
    from autoprune.config import parse_override

    seen = set()
    for override in overrides or ():
        path, _ = parse_override(override)
        if path in seen:
            raise ConfigError(f"--set {path}: the key is set twice. Leave one out.")
        seen.add(path)
    return overrides


Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        callback=_require_once,
        autocompletion=complete_override,
        help="Override section.key of the config. May be repeated.",
    ),
]
Storage = Annotated[
    str | None,
    typer.Option("--storage", metavar="URL", help="The study's storage, by default runs/STUDY.db."),
]
Outputs = Annotated[
    list[str] | None,
    typer.Option(
        "--output", "-o", metavar="FILE", help="Write these to .png, .svg, .pdf or .csv. May be repeated."
    ),
]
Trust = Annotated[bool, typer.Option("--trust", help="Run code that the study or the model names.")]
IfStudyExists = Annotated[
    str,
    typer.Option("--if-exists", metavar="ACTION", help="If the study exists: error, resume or overwrite."),
]
IfFlowExists = Annotated[
    str,
    typer.Option("--if-exists", metavar="ACTION", help="If the flow exists: resume, error or overwrite."),
]
IfCheckpointExists = Annotated[
    str,
    typer.Option("--if-exists", metavar="ACTION", help="If the weights exist: error, resume or overwrite."),
]
OwnConfig = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="CONFIG",
        help="A config of your own. Its code is trusted.",
        autocompletion=complete_config,
    ),
]
