"""Compares the finished flows in a folder, and ranks the settings in which they differ.

Example:
    for compared in compare_flows("runs/"):
        compared.flows[0].settings        # of the best flow: {"sparsify.penalty": "polarization", ...}
        compared.rankings                 # {"sparsify.penalty": [("polarization", 0.912), ("bn-l1", 0.905)]}
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from autoprune.errors import StudyError
from autoprune.flow import STAGES, FlowRecord

_UNREAD = ("train", "race", "flow.method", "flow.checkpoints")
"""Sections and keys that change no flow: a method is a name for other keys."""


@dataclass(frozen=True)
class ComparedFlow:
    """A finished flow next to others of the same dense model and data.

    Attributes:
        folder: the folder of the flow.
        settings: {key of the config: value} of the keys in which the flows differ. The sections of stages
            that the flow does not have are left out.
        val_score: the metric on the validation part at the end.
        share: multiply-adds as a share of the dense model's. Those of masked weights are left out.
    """

    folder: Path
    settings: Mapping[str, str]
    val_score: float
    share: float


@dataclass(frozen=True)
class FlowComparison:
    """The finished flows of one dense model and one data set.

    Attributes:
        metric: name of the score.
        dense_score: the dense model's.
        flows: the flows, the one with the highest score first.
        rankings: {key: (value, mean score), the best first} of each setting, over the values that were
            measured under the same other settings. The means are over the seeds and other settings that these
            values have in common.
    """

    metric: str
    dense_score: float
    flows: tuple[ComparedFlow, ...]
    rankings: Mapping[str, Sequence[tuple[str, float]]]


def holds_flows(folder: str | os.PathLike[str]) -> bool:
    """Return whether a path is a folder with flows at any depth."""
    with contextlib.suppress(OSError, ValueError):  # a text that no file system takes as a name
        return Path(folder).is_dir() and any(Path(folder).rglob("flow.json"))
    return False


def compare_flows(folder: str | os.PathLike[str]) -> tuple[FlowComparison, ...]:
    """Compare the finished flows in a folder, at any depth.

    Returns:
        A comparison for each dense model and data set.

    Raises:
        StudyError: no flow in the folder is finished.
        CheckpointError: the record of a flow is damaged.
    """
    records: dict[tuple[Any, ...], list[FlowRecord]] = {}
    for path in sorted(Path(folder).rglob("flow.json")):
        record = FlowRecord.open(path.parent)
        if record is not None and record.result is not None:
            same = (*sorted(record.identity.items()), record.config.get("task", {}).get("metric"))
            records.setdefault(same, []).append(record)
    if not records:
        raise StudyError(f"{folder}: no flow is finished. Run `autoprune prune` with the same config again.")
    return tuple(_compared(group) for group in records.values())


def _compared(records: Sequence[FlowRecord]) -> FlowComparison:
    read = [_read_settings(record) for record in records]
    keys = sorted({key for settings in read for key in settings})
    differing = [key for key in keys if len({settings.get(key) for settings in read}) > 1]
    flows = [
        _flow(record, {key: settings[key] for key in differing if key in settings})
        for record, settings in zip(records, read, strict=True)
    ]
    flows.sort(key=lambda flow: -flow.val_score)
    found = {key: _ranking(key, flows) for key in differing if not _is_seed(key)}
    return FlowComparison(
        metric=str(records[0].config.get("task", {}).get("metric", "score")),
        dense_score=records[0].measured.score,
        flows=tuple(flows),
        rankings={key: ranking for key, ranking in found.items() if ranking},
    )


def _read_settings(record: FlowRecord) -> dict[str, str]:
    """Return {key: value} of the settings, without the sections of stages that the flow does not have."""
    stages = record.config.get("flow", {}).get("stages", ())
    # Stages of the user's own are not imported: the folder may come from another machine.
    unread = [section for name, row in STAGES.items() if name not in stages for section in row.sections]
    return {key: str(value) for key, value in record.settings((*_UNREAD, *unread)).items()}


def _flow(record: FlowRecord, settings: Mapping[str, str]) -> ComparedFlow:
    assert record.result is not None
    last = record.stages[-1]
    macs = last.facts["remaining"]["macs"] if "remaining" in last.facts else last.cost["macs"]
    return ComparedFlow(record.folder, settings, record.result.val_score, macs / record.measured.cost["macs"])


def _ranking(key: str, flows: Sequence[ComparedFlow]) -> list[tuple[str, float]]:
    """Rank the values of a setting over flows that differ in nothing else.

    A value that was measured under no common conditions, seeds included, is left out. If several sets of
    values could be compared, the one with the most values counts, then the one with the most conditions.
    """
    scores: dict[tuple[tuple[str, str], ...], dict[str, list[float]]] = {}
    for flow in flows:
        if key in flow.settings:
            others = tuple((k, v) for k, v in flow.settings.items() if k != key)
            scores.setdefault(others, {}).setdefault(flow.settings[key], []).append(flow.val_score)

    def common(values: Iterable[str]) -> list[dict[str, list[float]]]:
        """Return the scores under the conditions that some values have in common."""
        return [each for each in scores.values() if each.keys() >= set(values)]

    values = max(scores.values(), key=lambda each: (len(each), len(common(each))), default={})
    if len(values) < 2:
        return []
    means = [(value, fmean(fmean(each[value]) for each in common(values))) for value in values]
    return sorted(means, key=lambda each: (-each[1], each[0]))


def _is_seed(key: str) -> bool:
    return key.endswith(".seed")
