"""The settings of one run as plain frozen dataclasses, one class per section of the config file.

The docstrings are the config reference of the guide: `python -m tests.guide.reference` writes it.

Example:
    RunConfig().search.trials                             # 60
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from autoprune.config.settings._flow import FlowSettings, MaskSettings, RepairSettings, SelectSettings
from autoprune.config.settings._inputs import (
    BudgetSettings,
    DataSettings,
    LatencySettings,
    ModelSettings,
    TaskSettings,
)
from autoprune.config.settings._search import RUNGS, WARM_STARTS, RaceSettings, ScoreSettings, SearchSettings
from autoprune.config.settings._trainings import (
    FinetuneSettings,
    ScheduleSettings,
    SparsifySettings,
    SupernetSettings,
    TrainSettings,
)
from autoprune.config.settings._values import MOST, MOST_SECONDS, Amount, Names, Text

__all__ = [
    "MOST",
    "MOST_SECONDS",
    "RUNGS",
    "WARM_STARTS",
    "Amount",
    "BudgetSettings",
    "DataSettings",
    "FinetuneSettings",
    "FlowSettings",
    "LatencySettings",
    "MaskSettings",
    "ModelSettings",
    "OutputSettings",
    "RaceSettings",
    "RepairSettings",
    "ReportSettings",
    "RunConfig",
    "ScheduleSettings",
    "ScoreSettings",
    "SearchSettings",
    "SelectSettings",
    "SparsifySettings",
    "SupernetSettings",
    "TaskSettings",
    "TrainSettings",
]


@dataclass(frozen=True)
class OutputSettings:
    """Where results are written.

    Attributes:
        folder: receives checkpoints, the finetuned model and reports, runs/STUDY by default.
        formats: exported next to the finetuned model, "onnx" or "pt2", by default ["onnx"].
    """

    folder: Text | None = None
    formats: tuple[Literal["onnx", "pt2"], ...] | None = None


@dataclass(frozen=True)
class ReportSettings:
    """How a search and a finetune are logged while they run.

    Attributes:
        trackers: where trials, training curves, results and reports are logged.
    """

    trackers: Names = ()


@dataclass(frozen=True)
class RunConfig:
    """All settings of one run. The study stores them as `dataclasses.asdict` gives them."""

    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    task: TaskSettings = field(default_factory=TaskSettings)
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    latency: LatencySettings = field(default_factory=LatencySettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    score: ScoreSettings = field(default_factory=ScoreSettings)
    race: RaceSettings = field(default_factory=RaceSettings)
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    flow: FlowSettings = field(default_factory=FlowSettings)
    sparsify: SparsifySettings = field(default_factory=SparsifySettings)
    select: SelectSettings = field(default_factory=SelectSettings)
    mask: MaskSettings = field(default_factory=MaskSettings)
    repair: RepairSettings = field(default_factory=RepairSettings)
    output: OutputSettings = field(default_factory=OutputSettings)
    report: ReportSettings = field(default_factory=ReportSettings)
