"""Writes the config reference of the guide from the settings and their docstrings.

python -m tests.guide.reference
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import autoprune.guide
from autoprune.config import presets
from autoprune.config._parsing import describe_type
from autoprune.config.settings import RunConfig
from autoprune.cost import budget_keys
from autoprune.data import DATASETS
from autoprune.latency.probes import PROBES
from autoprune.run._checks.choices import FLOW_TABLES, TABLES
from autoprune.training._metrics import METRICS
from autoprune.training._schedule import OPTIMIZERS, SHAPES
from autoprune.training.task import LOSSES
from autoprune.zoo import MODELS

PATH = Path(autoprune.guide.__file__).with_name("config.md")

TRAININGS = ("train", "finetune", "sparsify", "score.supernet")
"""The sections of a training."""

CHOICES: dict[str, Iterable[str]] = {
    "model.name": MODELS,
    "data.name": DATASETS,
    "task.loss": LOSSES,
    "task.metric": METRICS,
    "latency.probe": PROBES,
    **TABLES,
    **FLOW_TABLES,
    "search.objectives": ("score", *budget_keys()),
    "flow.method": presets(),
    **{f"{section}.optimizer": OPTIMIZERS for section in TRAININGS},
    **{f"{section}.schedule": SHAPES for section in TRAININGS},
}
"""{key: the names that it takes}."""

HEAD = """\
# Config: every key with its default

A run is one TOML file of the sections below. [model], [data] and [budget] suffice: every other key has a
default. The command line overrides one key by `--set section.key=value`, as in `--set search.trials=100`.
The value none unsets a key without a default, as in `--set budget.flops=none`. Unknown keys are refused with
the nearest known one.

Samplers, engines, pruners, criteria, warm starts, probes, losses and metrics may also be functions of your
own, `"mypkg.module:function"` ([extending](extending.md)).

This page is made from the settings in the code by `python -m tests.guide.reference`.
"""


def reference() -> str:
    """Return the page."""
    return "\n".join([HEAD, *sections(RunConfig, "")])


def sections(settings: Any, prefix: str) -> Iterator[str]:
    """Yield the text of each section of a dataclass of sections, and of the sections inside it."""
    hints = get_type_hints(settings, include_extras=True)
    for field in dataclasses.fields(settings):
        if dataclasses.is_dataclass(kind := hints[field.name]):
            name = f"{prefix}{field.name}"
            yield f"## [{name}]\n\n{_prose(kind)}\n"
            yield from _keys(kind, name)
            yield from sections(kind, f"{name}.")


def _keys(settings: Any, section: str) -> Iterator[str]:
    docs: dict[str, str] = {}
    for each in reversed(settings.__mro__):
        docs |= documented(each)
    hints = get_type_hints(settings, include_extras=True)
    keys = [
        field for field in dataclasses.fields(settings) if not dataclasses.is_dataclass(hints[field.name])
    ]
    for field in keys:
        default = "" if field.default is dataclasses.MISSING else _default(field.default)
        yield wrapped(f"**`{field.name}`** ({_kind(hints[field.name])}{default}): {docs[field.name]}")
        yield from _choices(f"{section}.{field.name}")
    yield ""


def wrapped(item: str, indent: str = "") -> str:
    return textwrap.fill(
        item,
        120,
        initial_indent=f"{indent}- ",
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _kind(hint: Any) -> str:
    """Return a type in words, without the bounds that only slips exceed."""
    return re.sub(r" of at most .* characters| and <= 1,000,000| \(\[.*\]\)", "", describe_type(hint))


def _default(value: Any) -> str:
    return "" if value is None else f", default `{json.dumps(value)}`"


def _choices(key: str) -> Iterator[str]:
    """Yield the rows of a key's table: a line each if they describe themselves, else their names alone."""
    table = CHOICES.get(key, ())
    about = (
        {name: getattr(row, "about", "") for name, row in table.items()} if isinstance(table, Mapping) else {}
    )
    if any(about.values()):
        for name in table:
            yield wrapped(f"`{name}`: {about[name]}", "  ")
    elif table:
        yield wrapped(f"One of {', '.join(f'`{name}`' for name in table)}.", "  ")


def _prose(settings: Any) -> str:
    """Return the docstring without its list of keys."""
    return (inspect.getdoc(settings) or "").partition("Attributes:")[0].strip()


def documented(settings: type[Any]) -> dict[str, str]:
    """Return {key: what its class's docstring says of it}."""
    listed = (inspect.cleandoc(settings.__doc__ or "")).partition("Attributes:\n")[2]
    entries = re.split(r"^    (?=\w+: )", listed, flags=re.MULTILINE)[1:]
    pairs = (" ".join(entry.split()).split(": ", 1) for entry in entries)
    return {name: text[0].upper() + text[1:] for name, text in pairs}


if __name__ == "__main__":
    PATH.write_text(reference(), encoding="utf-8")
