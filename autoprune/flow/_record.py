"""The record of a flow on disk, from which a stopped flow goes on.

A folder holds flow.json, the state of a training that was stopped, and for each stage that changed weights a
folder with the model, as `save_pruned` writes it.

Example:
    record = FlowRecord.open(folder) or FlowRecord(folder, identity, config, measured)
    record.stages[-1].score
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.config.settings import RunConfig, ScheduleSettings
from autoprune.errors import CheckpointError, StudyError, reason_of, shown_value
from autoprune.exporting import RECIPE, WEIGHTS
from autoprune.flow._masking import FILE as MASKS
from autoprune.flow._stages import find_stage
from autoprune.graph import Plan
from autoprune.support.atomic import saving
from autoprune.support.files import read_json
from autoprune.support.schema import Strict, read_as

FILE = "flow.json"

_ENDINGS = r"(-strength-\d+)?\.training|\.pth|\.png|\.csv|\.db(-wal|-shm|-journal)?"
"""The suffixes of the files of a stage. Without a suffix, the name is that of its folder."""

_FREE = (
    *("output", "data.folder", "data.workers", "model.checkpoint"),
    *("search.storage", "search.study", "search.engine", "search.workers"),
    *("search.cpus_per_trial", "search.ray"),
)
"""Sections and keys that do not change a result, or whose content is compared instead."""

_OF_A_SEARCH = (
    "score.learning_rate",
    "score.optimizer",
    "score.rungs",
    "search.evolution",
    "search.pruner",
    "search.sampler",
    "search.trials",
    "search.warm_starts",
    "race",
)
"""Sections and keys that a flow reads only if it selects by a search."""


class StageEntry(Strict):
    """A stage that is done.

    Attributes:
        number: number of the pass, from 1.
        stage: name of the stage.
        seconds: its wall time.
        score: the metric on the validation part after it, or None if no model changed.
        base: folder of the model that this pass cuts, or None for the original dense model.
        small: folder of the smaller model, or None before "rebuild".
        cut: {group: keep index} of this pass, or None before "select".
        cost: the costs of the model after it.
        masks: fingerprint of the model's masks, whose file lies next to its weights, or None.
        facts: values that the stage reports.
    """

    number: int
    stage: str
    seconds: float
    score: float | None
    base: str | None
    small: str | None
    cut: dict[str, list[int]] | None
    cost: dict[str, int | float]
    masks: str | None = None
    facts: dict[str, Any]

    @property
    def plan(self) -> Plan | None:
        """The plan of this pass."""
        if self.cut is None:
            return None
        return Plan({name: np.array(index, dtype=np.int64) for name, index in self.cut.items()})


class Measured(Strict):
    """The measurements that are made once, before the first stage.

    Attributes:
        setting: number format, layout, threads and device of all trainings.
        divisor: of the widths.
        latency: the latency table, if latency is limited.
        step_ms: milliseconds of a training step of the dense model.
        score: of the dense model on the validation part.
        cost: of the dense model.
    """

    setting: dict[str, Any]
    divisor: int
    latency: dict[str, Any] | None
    step_ms: float
    score: float
    cost: dict[str, int | float]


class FlowScores(Strict):
    """The scores at the end. Those on the test part are None if the data have none."""

    val_score: float
    test_score: float | None
    dense_val_score: float
    dense_test_score: float | None


class _Content(Strict):
    identity: dict[str, str]
    config: dict[str, dict[str, Any]]
    measured: Measured
    stages: list[StageEntry]
    begun: str | None
    result: FlowScores | None
    own: dict[str, Any] | None = None


@dataclass
class FlowRecord:
    """The stages that a flow has done so far.

    Attributes:
        folder: the folder of the flow.
        identity: fingerprints of the dense model and the data.
        config: the settings, as sections.
        measured: the measurements made before the first stage.
        stages: the stages that are done.
        begun: the training that began last, whose state may lie in the folder.
        result: the scores at the end, or None before it.
        own: a signed note of the code and the paths that a config of this user names, or None.
    """

    folder: Path
    identity: Mapping[str, str]
    config: Mapping[str, Mapping[str, Any]]
    measured: Measured
    stages: list[StageEntry] = field(default_factory=list)
    begun: str | None = None
    result: FlowScores | None = None
    own: Mapping[str, Any] | None = None

    @classmethod
    def open(cls, folder: Path) -> FlowRecord | None:
        """Read the record in a folder, or return None if there is none.

        Raises:
            CheckpointError: it is damaged.
        """
        path = folder / FILE
        if not path.exists():
            return None
        advice = f"Restore it, or remove {folder} to start over."
        try:
            values = read_json(path)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path}: cannot be read ({reason_of(error)}). {advice}") from error
        read = read_as(_Content, values, where=str(path), error=CheckpointError, advice=advice)
        return cls(folder, **{name: getattr(read, name) for name in _Content.model_fields})

    def save(self) -> None:
        """Write the record.

        Raises:
            CheckpointError: the file cannot be written.
        """
        content = _Content(**{name: getattr(self, name) for name in _Content.model_fields})
        with saving(self.folder / FILE, "record of the flow") as partial:
            partial.write_text(content.model_dump_json(indent=1) + "\n", "utf-8")

    def clear(self) -> None:
        """Remove the files of all stages, the small model and the record. Other files in the folder stay."""
        stages = {*self.config.get("flow", {}).get("stages", ()), *(entry.stage for entry in self.stages)}
        names = "|".join(re.escape(name.replace(":", ".")) for name in sorted(stages))
        own = re.compile(rf"[1-9]\d*-({names})({_ENDINGS})?")
        for entry in self.folder.iterdir():
            if own.fullmatch(entry.name):
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        for name in (WEIGHTS, RECIPE, MASKS):
            (self.folder / name).unlink(missing_ok=True)
        self.discard()

    def discard(self) -> None:
        """Remove the record, and its folder if nothing else is in it."""
        (self.folder / FILE).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def settings(self, without: Iterable[str] = ()) -> dict[str, Any]:
        """Return {key: value} of the settings that may change the result.

        Keys that the record of an earlier version lacks have their defaults.

        Args:
            without: sections and keys to leave out.
        """
        return _compared(self.config, without)

    def require(self, config: RunConfig, identity: Mapping[str, str] | None = None) -> None:
        """Refuse to go on with other settings, another model or other data.

        Settings that only stages read that have not begun may change.

        Args:
            config: the settings of this call.
            identity: fingerprints of the dense model and the data, if they are loaded already.

        Raises:
            StudyError: something differs. The message names it.
        """
        begun = {entry.stage for entry in self.stages} | {self.begun}
        waiting = [name for name in self.config.get("flow", {}).get("stages", ()) if name not in begun]
        later = {key for name in waiting for key in find_stage(name).sections}
        now, before = _compared(to_values(config), later), self.settings(later)
        for key in sorted({*now, *before}):
            if now.get(key) != before.get(key):
                raise self._other(f"{key} = {shown_value(before.get(key))}, now {shown_value(now.get(key))}")
        for name, fingerprint in (identity or {}).items():
            if self.identity.get(name) != fingerprint:
                raise self._other(f"another {name}")

    def _other(self, difference: str) -> StudyError:
        state = "done" if self.result is not None else "half done"
        return StudyError(
            f"{self.folder / FILE}: this flow is {state} with {difference}. Restore that, or remove "
            f"{self.folder} or set another output.folder to start over."
        )


def to_values(settings: RunConfig | ScheduleSettings) -> dict[str, Any]:
    """Return all settings, or those of a training, as JSON values."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(settings)))
    return values


def _compared(config: Mapping[str, Any], without: Iterable[str]) -> dict[str, Any]:
    """Return {key: value} of settings, without those of _FREE and of some sections and keys."""
    values = dict([*_leaves(to_values(RunConfig())), *_leaves(config)])
    unread = () if values["select.by"] == "search" else _OF_A_SEARCH
    free = tuple(f"{each}." for each in (*_FREE, *unread, *without))
    return {key: value for key, value in values.items() if not f"{key}.".startswith(free)}


def _leaves(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += _leaves(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", value))
    return found
