"""The result of a flow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.table import Table
from torch import nn

from autoprune.exporting import ExportReport, read_recipe
from autoprune.flow import FlowRecord, StageEntry
from autoprune.graph import Cost, Plan
from autoprune.masks import Remaining
from autoprune.run._export import export_saved
from autoprune.run._resolving.session import Session
from autoprune.run._results.tables import flow_table, pruned_table, scores_line
from autoprune.support.notebook import Shown


@dataclass(frozen=True, repr=False)
class FlowResult(Shown):
    """The small model of a flow, with its scores and costs next to those of the dense model.

    Attributes:
        folder: the folder that `save_pruned` wrote, with the record and the models of all stages.
        method: the preset, or None.
        cost: cost of the small model.
        dense_cost: cost of the dense model.
        val_score: score of the small model on the validation part.
        test_score: score of the small model on the test part, or None if the data have none.
        dense_val_score: score of the dense model on the validation part.
        dense_test_score: score of the dense model on the test part, or None if the data have none.
        remaining: the weights and theoretical MACs that masks leave, or None if nothing is masked.
        stages: the stages of all passes, with score and cost after each.
        model: the small model, on the CPU and in evaluation mode.
        session: the model, the data and the functions that the caller of `prune` has passed.
    """

    folder: Path
    method: str | None
    cost: Cost
    dense_cost: Cost
    val_score: float
    test_score: float | None
    dense_val_score: float
    dense_test_score: float | None
    remaining: Remaining | None
    stages: tuple[StageEntry, ...]
    model: nn.Module
    session: Session = field(default_factory=Session, compare=False)

    def _headline(self) -> str:
        return f"{self.method or 'flow'}: {scores_line(self)}, saved in {self.folder}"

    def _tables(self) -> list[Table]:
        return [pruned_table(self), flow_table(self)]

    @cached_property
    def plan(self) -> Plan:
        """The channels that the small model keeps."""
        return read_recipe(self.folder).plan

    def export(self, path: str | os.PathLike[str] | None = None, format: str = "onnx") -> ExportReport:
        """Export the small model, as `autoprune.export` does. By default the file lies in `folder`."""
        return export_saved(self.folder, format, output=path, session=self.session)

    @classmethod
    def of(cls, record: FlowRecord, model: nn.Module) -> FlowResult:
        """Return the result of a record that holds one."""
        assert record.result is not None
        left = record.stages[-1].facts.get("remaining")
        return cls(
            folder=record.folder,
            method=record.config.get("flow", {}).get("method"),
            cost=_cost(record.stages[-1].cost),
            dense_cost=_cost(record.measured.cost),
            remaining=None if left is None else Remaining(**left),
            stages=tuple(record.stages),
            model=model.cpu().eval(),
            **record.result.model_dump(),
        )


def _cost(known: Mapping[str, Any]) -> Cost:
    return Cost(**known)
