"""Reports settings that have no effect, because nothing reads them under the other settings.

A row of UNUSED describes one such case. Settings that only some rows of a table read need no row here: those
rows declare them in `Row.reads`.

Example:
    report_unused(spec, watch)     # search.workers is set, but only search.engine = "processes" or "ray" ...
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from autoprune.data import DATASETS
from autoprune.engines import find_pruner
from autoprune.run._checks.choices import TABLES, readers, reads
from autoprune.run._resolving.seen_validation import is_separate
from autoprune.run._resolving.spec import AUTO, RunSpec
from autoprune.support.events import Stage, Watcher
from autoprune.support.rows import quoted


@dataclass(frozen=True)
class Unused:
    """Settings that have no effect under a condition.

    Attributes:
        keys: sections ("latency", "search.ray") or keys ("search.workers").
        when: the condition on the other settings.
        why: the end of the line that begins with "... is set, but ".
    """

    keys: tuple[str, ...]
    when: Callable[[RunSpec], bool]
    why: str


def _is_from_a_script(spec: RunSpec) -> bool:
    return spec.data.name is None and spec.data.loaders is None


_STREAMED = [name for name, row in DATASETS.items() if row.streams]

UNUSED = (
    Unused(
        ("data.folder", "data.image_size", "data.seed"),
        _is_from_a_script,
        "a script passed the data: this run reads none",
    ),
    Unused(
        ("data.workers",),
        lambda spec: spec.data.name not in _STREAMED,
        f"only data.name = {quoted(_STREAMED)} is read by worker processes of autoprune",
    ),
    Unused(
        ("data.val_fraction", "data.checkpoint_saw_validation"),
        lambda spec: _is_from_a_script(spec) or is_separate(spec.data),
        "the validation part is separate, not a share of the training part",
    ),
    Unused(
        ("latency",),
        lambda spec: not spec.limits_latency and not spec.measures_divisor,
        "nothing is timed: neither budget.latency, search.objectives nor "
        f'search.divisor = "{AUTO}" requires it',
    ),
    Unused(
        ("score.teacher", "score.learning_rate", "score.optimizer"),
        lambda spec: not spec.trains_candidates,
        'no rung of score.rungs trains, as "100 steps" would',
    ),
    Unused(
        ("race",),
        lambda spec: not spec.has_race and spec.race.entrants > 1,
        "there is no race: finetune.epochs is 0, no rung of score.rungs trains and the best trial can be "
        "exported as it is scored, or trials differ in their budgets",
    ),
    Unused(
        ("race.learning_rates",),
        lambda spec: spec.race.entrants == 1 or (spec.has_race and spec.finetune.epochs == 1),
        "a race of several stages compares them, and race.entrants is 1 or finetune.epochs is 1",
    ),
    Unused(
        ("search.pruner",),
        lambda spec: find_pruner(spec.search.pruner).prunes and len(spec.score.rungs) == 1,
        "score.rungs has one rung, after which nothing is left to prune",
    ),
)
"""All cases. A key counts as set if it differs from its default."""

_DEFAULTS = RunSpec()


def report_unused(spec: RunSpec, watch: Watcher, only: Collection[str] | None = None) -> None:
    """Report the settings that differ from their defaults but have no effect.

    Args:
        spec: the settings of the run, with checked names.
        watch: called with an event for each case.
        only: the keys to check, e.g. those that a resume changes, or None for all.
    """
    for row in UNUSED:
        changed = _changed(row.keys, spec, only)
        if changed and row.when(spec):
            watch(Stage(_line(changed, row.why)))
    for rows, keys in _read_by_rows().items():
        changed = _changed([key for key in keys if not reads(spec, key)], spec, only)
        if changed:
            watch(Stage(_line(changed, f"only {rows} reads {'it' if len(changed) == 1 else 'them'}")))


def _changed(keys: Sequence[str], spec: RunSpec, only: Collection[str] | None) -> list[str]:
    """Return the keys that differ from their defaults, with sections in brackets."""
    return [
        f"[{key}]" if dataclasses.is_dataclass(value(spec)) else key
        for key, value in ((key, operator.attrgetter(key)) for key in keys)
        if value(spec) != value(_DEFAULTS)
        and (only is None or any(f"{each}.".startswith(f"{key}.") for each in only))
    ]


def _read_by_rows() -> dict[str, list[str]]:
    """Return {names of rows as text: the keys that only these rows read}."""
    keys = dict.fromkeys(key for table in TABLES.values() for row in table.values() for key in row.reads)
    found: dict[str, list[str]] = {}
    for key in keys:
        rows = [f"{table} = {quoted(names, ' or ')}" for table, names in readers(key).items()]
        found.setdefault(" or ".join(rows), []).append(key)
    return found


def _line(changed: Sequence[str], why: str) -> str:
    return f"{' and '.join(changed)} {'is' if len(changed) == 1 else 'are'} set, but {why}"
