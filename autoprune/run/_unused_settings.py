"""Settings that are filled in for nothing: a row of UNUSED is a reason why nothing reads them.

report_unused(config, watch)     # search.workers is set, but only search.engine = "processes" or "ray" ...

Settings that only some rows of a table read need no row here: see `Row.reads`.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from autoprune.config.settings import RunConfig
from autoprune.engines import find_pruner
from autoprune.run._choices import TABLES, readers, reads
from autoprune.run._events import Stage, Watcher
from autoprune.run._problem import MEASURED, asks_for_latency, measures_divisor
from autoprune.run._scoring import parse_rungs
from autoprune.run._seen_validation import is_separate
from autoprune.support.rows import quoted


@dataclass(frozen=True)
class Unused:
    """Settings, and when they are without effect.

    Attributes:
        keys: sections ("latency", "search.ray") or keys ("search.workers").
        when: whether nothing reads them under a config.
        why: the end of the line that begins with "... is set, but ".
    """

    keys: tuple[str, ...]
    when: Callable[[RunConfig], bool]
    why: str


def _trains_nothing(config: RunConfig) -> bool:
    return all(rung.steps is None and rung.epochs is None for rung in parse_rungs(config.score))


def _is_from_a_script(config: RunConfig) -> bool:
    return config.data.name is None and config.data.loaders is None


UNUSED = (
    Unused(
        ("data.folder", "data.image_size", "data.seed"),
        _is_from_a_script,
        "a script brought the data: none are read here",
    ),
    Unused(
        ("data.workers",),
        lambda config: config.data.name != "folder",
        'only data.name = "folder" is read by workers of ours',
    ),
    Unused(
        ("data.val_fraction", "data.checkpoint_saw_validation"),
        lambda config: _is_from_a_script(config) or is_separate(config.data),
        "the validation part is one of its own, no share of the training part",
    ),
    Unused(
        ("latency",),
        lambda config: not asks_for_latency(config) and not measures_divisor(config),
        "nothing is timed: neither budget.latency, search.objectives nor "
        f'search.divisor = "{MEASURED}" asks for it',
    ),
    Unused(
        ("score.teacher", "score.learning_rate"),
        _trains_nothing,
        'no rung of score.rungs trains, such as "100 steps" would',
    ),
    Unused(
        ("search.pruner",),
        lambda config: find_pruner(config.search.pruner).prunes and len(config.score.rungs) == 1,
        "score.rungs has one rung: no trial can be pruned before another",
    ),
)
"""What is reported; a key counts as set if it differs from its default."""

_DEFAULTS = RunConfig()


def report_unused(config: RunConfig, watch: Watcher, only: Collection[str] | None = None) -> None:
    """Report which settings differ from their defaults and yet change nothing.

    Args:
        config: of the run, its names checked.
        watch: gets a line for each row.
        only: the keys to look at, those that a resume was given; default all.
    """
    for row in UNUSED:
        changed = _changed(row.keys, config, only)
        if changed and row.when(config):
            watch(Stage(_line(changed, row.why)))
    for rows, keys in _read_by_rows().items():
        changed = _changed([key for key in keys if not reads(config, key)], config, only)
        if changed:
            watch(Stage(_line(changed, f"only {rows} reads {'it' if len(changed) == 1 else 'them'}")))


def _changed(keys: Sequence[str], config: RunConfig, only: Collection[str] | None) -> list[str]:
    """Return the keys that differ from their defaults, sections in brackets."""
    return [
        f"[{key}]" if dataclasses.is_dataclass(value(config)) else key
        for key, value in ((key, operator.attrgetter(key)) for key in keys)
        if value(config) != value(_DEFAULTS)
        and (only is None or any(f"{each}.".startswith(f"{key}.") for each in only))
    ]


def _read_by_rows() -> dict[str, list[str]]:
    """Return {rows in words: keys that these rows alone read}."""
    keys = dict.fromkeys(key for table in TABLES.values() for row in table.values() for key in row.reads)
    found: dict[str, list[str]] = {}
    for key in keys:
        rows = [f"{table} = {quoted(names, ' or ')}" for table, names in readers(key).items()]
        found.setdefault(" or ".join(rows), []).append(key)
    return found


def _line(changed: Sequence[str], why: str) -> str:
    return f"{' and '.join(changed)} {'is' if len(changed) == 1 else 'are'} set, but {why}"
