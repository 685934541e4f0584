"""The names that a config may choose from, and the settings that the chosen rows read.

Example:
    choices()["search.pruner"]["median"]       # "the better half climbs on, ..."
    reads(spec, "score.moment_images")         # whether a chosen row reads that key
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import attrgetter

from autoprune.config.rungs import RUNGS
from autoprune.criteria import CRITERIA
from autoprune.data import DATASETS
from autoprune.engines import ENGINES, PRUNERS
from autoprune.flow import REPAIRS, SELECTORS, STAGES
from autoprune.latency import PROBES
from autoprune.masks import GRANULARITIES, SCORES
from autoprune.run._measuring.heuristics import WARM_STARTS
from autoprune.run._resolving.spec import RunSpec
from autoprune.samplers import SAMPLERS
from autoprune.sparsity import PENALTIES
from autoprune.support.rows import Row, find_row
from autoprune.trackers import KEY, TRACKERS
from autoprune.zoo import MODELS

OPEN_TABLES: Mapping[str, Mapping[str, Row]] = {
    "search.sampler": SAMPLERS,
    "search.pruner": PRUNERS,
    "search.engine": ENGINES,
    "search.criterion": CRITERIA,
    "search.warm_starts": WARM_STARTS,
    KEY: TRACKERS,
}
"""{key: its rows} of the keys of a search that also accept a user's own row, as "package.module:function"."""

TABLES: Mapping[str, Mapping[str, Row]] = {**OPEN_TABLES, "score.rungs": RUNGS}
"""{key: its rows} of all keys of a search that name rows."""

FLOW_TABLES: Mapping[str, Mapping[str, Row]] = {
    "flow.stages": STAGES,
    "sparsify.penalty": PENALTIES,
    "select.by": SELECTORS,
    "select.criterion": CRITERIA,
    "mask.granularity": GRANULARITIES,
    "mask.score": SCORES,
    "repair.mode": REPAIRS,
}
"""{key: its rows} of the keys of a flow. All but "mask.granularity" also accept a user's own row."""


def choices() -> dict[str, dict[str, str]]:
    """Return {key of the config: {accepted name: one line about it}}."""
    tables = {**TABLES, **FLOW_TABLES, "latency.probe": PROBES, "data.name": DATASETS, "model.name": MODELS}
    return {key: {name: row.about for name, row in table.items()} for key, table in tables.items()}


def reads(spec: RunSpec, key: str) -> bool:
    """Return whether a chosen row reads a key of the config, or may read it.

    A user's own row that does not declare its keys may read every key that a row of the same table reads.

    Args:
        spec: the settings, with checked names.
        key: a section ("search.evolution") or a key ("search.workers") that only some rows read.
    """
    may = readers(key)
    return any(
        key in row.reads or (is_own and not row.reads and table in may)
        for table, row, is_own in _chosen(spec)
    )


def readers(key: str) -> dict[str, list[str]]:
    """Return the rows that read a key of the config, as {key of their table: names}."""
    found = {
        table: [name for name, row in rows.items() if key in row.reads] for table, rows in TABLES.items()
    }
    return {table: names for table, names in found.items() if names}


def _chosen(spec: RunSpec) -> Iterator[tuple[str, Row, bool]]:
    """Yield (key of the table, row, whether it is a user's own) for each row that the settings name."""
    for key, table in TABLES.items():
        named = attrgetter(key)(spec)
        for name in (named,) if isinstance(named, str) else named or ():
            if name.strip() in table:
                yield key, table[name.strip()], False
            elif key in OPEN_TABLES and ":" in name:
                yield key, find_row(name, table, key, type(next(iter(table.values())))), True
