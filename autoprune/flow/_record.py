"""The record of a flow on disk, from which a stopped flow goes on.

A folder holds flow.json, the state of a training that was stopped, and for each stage that changed weights a
folder with the model, as `save_pruned` writes it.

Example:
    record = FlowRecord.open(folder) or FlowRecord(folder, identity, config, measured, dense)
    record.stages[-1].score
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.config.settings import RunConfig
from autoprune.errors import CheckpointError, StudyError, reason_of, shown_value
from autoprune.flow._stages import find_stage
from autoprune.graph import Plan
from autoprune.support.atomic import saving
from autoprune.support.files import read_json
from autoprune.support.schema import Strict, read_as

FILE = "flow.json"

_FREE = ("output", "data.folder", "data.workers", "model.checkpoint", "search.storage", "search.study")
"""Sections and keys that do not change a result, or whose content is compared instead."""


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
        facts: values that the stage reports.
    """

    number: int
    stage: str
    seconds: float
    score: float | None
    base: str | None
    small: str | None
    cut: dict[str, list[int]] | None
    cost: dict[str, float]
    facts: dict[str, Any]

    @property
    def plan(self) -> Plan | None:
        """The plan of this pass."""
        if self.cut is None:
            return None
        return Plan({name: np.array(index, dtype=np.int64) for name, index in self.cut.items()})


class _Content(Strict):
    identity: dict[str, str]
    config: dict[str, Any]
    measured: dict[str, Any]
    dense: dict[str, Any]
    stages: list[StageEntry]
    begun: str | None
    result: dict[str, Any] | None


@dataclass
class FlowRecord:
    """What a flow has done so far.

    Attributes:
        folder: the folder of the flow.
        identity: fingerprints of the dense model and the data.
        config: the settings, as sections.
        measured: what was measured once: the setting of all trainings, the divisor and the latency table.
        dense: score and costs of the dense model.
        stages: the stages that are done.
        begun: the training that began last, whose state may lie in the folder.
        result: scores and costs at the end, or None before it.
    """

    folder: Path
    identity: Mapping[str, str]
    config: Mapping[str, Any]
    measured: Mapping[str, Any]
    dense: Mapping[str, Any]
    stages: list[StageEntry] = field(default_factory=list)
    begun: str | None = None
    result: dict[str, Any] | None = None

    @classmethod
    def open(cls, folder: Path) -> FlowRecord | None:
        """Read the record in a folder, or return None if there is none.

        Raises:
            CheckpointError: it is damaged.
        """
        path = folder / FILE
        if not path.exists():
            return None
        advice = f"restore it, or remove {folder} to start over."
        try:
            values = read_json(path)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path}: cannot be read ({reason_of(error)}); {advice}") from error
        read = read_as(_Content, values, where=str(path), error=CheckpointError, advice=advice)
        return cls(folder, **{name: getattr(read, name) for name in _Content.model_fields})

    def save(self) -> None:
        """Write the record.

        Raises:
            CheckpointError: the file cannot be written.
        """
        values = {name: getattr(self, name) for name in _Content.model_fields}
        values["stages"] = [entry.model_dump() for entry in self.stages]
        with saving(self.folder / FILE, "record of the flow") as partial:
            partial.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", "utf-8")

    def discard(self) -> None:
        """Remove the record, and its folder if nothing else is in it."""
        (self.folder / FILE).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

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
        waiting = [name for name in self.config["flow"]["stages"] if name not in begun]
        later = {key for name in waiting for key in find_stage(name).sections}
        now, before = dict(_leaves(to_values(config))), dict(_leaves(self.config))
        for key in sorted({*now, *before}):
            free = any(f"{key}.".startswith(f"{each}.") for each in (*_FREE, *later))
            if not free and now.get(key) != before.get(key):
                raise self._other(f"{key} = {shown_value(before.get(key))}, now {shown_value(now.get(key))}")
        for name, fingerprint in (identity or {}).items():
            if self.identity.get(name) != fingerprint:
                raise self._other(f"another {name}")

    def _other(self, difference: str) -> StudyError:
        state = "done" if self.result is not None else "half done"
        return StudyError(
            f"{self.folder / FILE}: this flow is {state} with {difference}; restore that, or remove "
            f"{self.folder} or set another output.folder to start over."
        )


def to_values(config: RunConfig) -> dict[str, Any]:
    """Return settings as JSON values."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return values


def _leaves(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found += _leaves(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", value))
    return found
