"""The JSON documents of verbs that make and evaluate a study."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AliasPath, Field

from autoprune.cli._document_base import Costs, Document, Number, Text
from autoprune.cli._document_parts import (
    ComparisonPart,
    FinetunedPart,
    PointPart,
    RunningRacePart,
    SummaryPart,
    TrialPart,
    WorkerPart,
)


class InitDocument(Document):
    """The result of `init`.

    Attributes:
        text: the config that was written, as TOML with comments.
        notes: sentences about the model, the data and the budget.
        expected: the expected time of the search on this machine.
    """

    document: Literal["init"] = "init"
    text: str
    notes: list[str]
    expected: str


class SearchDocument(Document):
    """The result of `search` and `resume`.

    Attributes:
        summary: the study.
        output: the output folder.
        page: the HTML report.
        next_step: a line that names the next command, for the folder in which this one ran.
    """

    document: Literal["search"] = "search"
    summary: SummaryPart
    output: Text
    page: Text | None
    next_step: str


class SmokeDocument(Document):
    """The result of `search --profile smoke`, a trial run whose scores mean nothing.

    Attributes:
        seconds: how long it took.
        trials: how many sub-models were tried.
        samples: images of each part that were read at most.
        format: the format to which the small model was exported.
    """

    document: Literal["smoke"] = "smoke"
    seconds: Number
    trials: int
    samples: int | None
    format: str


class WatchDocument(Document):
    """The result of `watch --once`.

    Attributes:
        summary: the study.
        storage: URL of its storage.
        trials: number of trials that are planned.
        done: number of trials that have ended.
        reached: {rung: number of trials with a score on it}.
        per_hour: trials an hour at the pace of the last ones.
        left_s: seconds until the last trial ends at this pace.
        heard_s: seconds since a trial last began or ended.
        workers: the processes that work on the study, and those of trials that were killed.
        race: the race while it runs.
        is_finished: whether nothing is left to do.
        resume: the command that goes on if these processes are gone, or "" if nothing is left to do.
    """

    document: Literal["watch"] = "watch"
    summary: SummaryPart
    storage: str
    trials: int
    done: int
    reached: dict[str, int]
    per_hour: Number
    left_s: Number
    heard_s: Number
    workers: list[WorkerPart]
    race: RunningRacePart | None
    is_finished: bool
    resume: str


class BestDocument(Document):
    """The result of `best`.

    Attributes:
        study: name of the study.
        trial: the picked trial.
        command: the command that finetunes it.
    """

    document: Literal["best"] = "best"
    study: str = Field(validation_alias=AliasPath("summary", "study"))
    trial: TrialPart
    command: str


class BudgetsDocument(Document):
    """The result of `best --budget`.

    Attributes:
        study: name of the study.
        key: the key of [budget] that is varied.
        points: the plans, by ascending budget.
        dense_costs: {cost: the dense model's}.
        files: the files that were written.
    """

    document: Literal["budgets"] = "budgets"
    study: str
    key: str
    points: list[PointPart]
    dense_costs: Costs
    files: list[Text]


class FinetuneDocument(FinetunedPart, Document):
    """The result of `finetune`.

    Attributes:
        study: name of the study.
        trial: number of the trial.
        epochs: loss and score of each epoch.
    """

    document: Literal["finetune"] = "finetune"


class ReportDocument(Document):
    """The result of `report` for a study.

    Attributes:
        summary: the study.
        plot: the plot of the trials.
        stairs: the plot of latency against width.
        page: the HTML report.
        finetuned: the finetuned trials whose models still exist.
        next_step: a line that names the next command, for the folder in which this one ran.
        settings: {section: {key: value}} of the study, as in a config, with the defaults of keys that were
            left out. Passwords are not shown.
    """

    document: Literal["report"] = "report"
    summary: SummaryPart
    plot: Text | None
    stairs: Text | None
    page: Text | None
    finetuned: list[FinetunedPart]
    next_step: str
    settings: dict[str, dict[str, Any]]


class FlowsDocument(Document):
    """The result of `report` for a folder of flows.

    Attributes:
        comparisons: one for each dense model.
    """

    document: Literal["flows"] = "flows"
    comparisons: list[ComparisonPart]
