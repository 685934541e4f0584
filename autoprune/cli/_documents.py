"""Turns results into JSON documents. `autoprune guide json` lists their keys.

A document has the attributes of the result in Python under the same names, so that one description holds for
both. Numbers that are not finite are null.

Example:
    document(result, ["Next: autoprune finetune digits"])    # '{"document": "search", "version": 1, ...'

A new result is a class below and a row of DOCUMENTS.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import AliasPath, Field

from autoprune.cli._document_parts import (
    BenchPart,
    BlockPart,
    ComparisonPart,
    Costs,
    CurvePart,
    FinetunedPart,
    FlowStagePart,
    GroupPart,
    MethodPart,
    Number,
    Pair,
    Part,
    PointPart,
    PrunedPart,
    RangePart,
    RemainingPart,
    RunningRacePart,
    SummaryPart,
    Text,
    TimePart,
    TrialPart,
    WorkerPart,
)
from autoprune.config import Preset
from autoprune.exporting import ExportReport
from autoprune.reporting import BudgetCurve, Curves
from autoprune.run import (
    Bench,
    FinetuneResult,
    FlowComparison,
    FlowResult,
    Inspection,
    Int8Report,
    Picked,
    Proposal,
    Report,
    SearchResult,
    SmokeResult,
    StudyStatus,
    TrainResult,
)

VERSION: Literal[1] = 1
"""Version of all documents. It rises if a key is removed or changes its meaning."""


class Document(Part):
    """The keys that every document has.

    Attributes:
        version: version of the documents.
        sentences: those that the command prints under its tables.
    """

    version: Literal[1] = VERSION
    sentences: list[str] = Field(default_factory=list)


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


class TrainDocument(Document):
    """The result of `train`.

    Attributes:
        checkpoint: the file of weights.
        val_score: the score on the validation part after the last epoch.
    """

    document: Literal["train"] = "train"
    checkpoint: Text
    val_score: Number


class SearchDocument(Document):
    """The result of `search` and `resume`.

    Attributes:
        summary: the study.
        output: the output folder.
        page: the HTML report.
        next_step: a line that names the next command.
    """

    document: Literal["search"] = "search"
    summary: SummaryPart
    output: Text
    page: Text | None
    next_step: str


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


class PruneDocument(PrunedPart, Document):
    """The result of `prune`.

    Attributes:
        method: the preset.
        remaining: what masks leave.
        stages: the stages of all passes.
    """

    document: Literal["prune"] = "prune"
    method: str | None
    remaining: RemainingPart | None
    stages: list[FlowStagePart]


class ReportDocument(Document):
    """The result of `report` for a study.

    Attributes:
        summary: the study.
        plot: the plot of the trials.
        stairs: the plot of latency against width.
        page: the HTML report.
        finetuned: the finetuned trials whose models still exist.
        next_step: a line that names the next command.
    """

    document: Literal["report"] = "report"
    summary: SummaryPart
    plot: Text | None
    stairs: Text | None
    page: Text | None
    finetuned: list[FinetunedPart]
    next_step: str


class FlowsDocument(Document):
    """The result of `report` for a folder of flows.

    Attributes:
        comparisons: one for each dense model.
    """

    document: Literal["flows"] = "flows"
    comparisons: list[ComparisonPart]


class InspectDocument(Document):
    """The result of `inspect`.

    Attributes:
        model: name of the model.
        groups: the channel groups.
        blocks: the residual branches that a search may drop.
        variables: number of keep ratios that are searched.
        dense_cost: {cost: the dense model's}.
        smallest: {cost: that of the smallest plan}.
        largest: {cost: that of the largest plan}.
        costs: {cost: its range} of limited and minimised costs.
        limits: {cost: its limit}, or null if the budget cannot be met.
        plans: number of distinct plans within the budget, or null if they are too many to count.
        problem: why the budget cannot be met, or "".
        memory_bytes: estimated peak memory of the search.
    """

    document: Literal["inspect"] = "inspect"
    model: str
    groups: list[GroupPart]
    blocks: list[BlockPart]
    variables: int
    dense_cost: Costs
    smallest: Costs
    largest: Costs
    costs: dict[str, RangePart]
    limits: Costs | None = Field(None, validation_alias=AliasPath("budget", "limits"))
    plans: int | None
    problem: str
    memory_bytes: int


class CurvesDocument(Document):
    """The result of `inspect --errors` and `inspect --sensitivity`.

    Attributes:
        title: what the curves show.
        value: name of the values.
        curves: the curves.
        baseline: the value of the dense model.
        files: the files that were written.
    """

    document: Literal["curves"] = "curves"
    title: str
    value: str
    curves: list[CurvePart]
    baseline: Number
    files: list[Text]


class ExportDocument(Document):
    """The result of `export`.

    Attributes:
        path: the file or the folder.
        format: its format.
        max_difference: largest absolute difference to the outputs in PyTorch.
        opset: version of ONNX's operators, or null.
    """

    document: Literal["export"] = "export"
    path: Text
    format: str
    max_difference: Number
    opset: int | None


class Int8Document(Document):
    """The result of `export --int8`.

    Attributes:
        path: the int8 file.
        float_path: the float file beside it, or null.
        metric: name of the score.
        score: of the int8 file on the validation part.
        float_score: of the float file.
        interval: 95% interval of the difference of the scores.
        val_images: number of validation images.
        size_bytes: of the int8 file.
        float_size_bytes: of the float file.
        time: of the int8 file at batch 1 on one thread.
        float_time: of the float file.
        ratio: time of the int8 file over the float file's.
        ratio_interval: its 95% interval.
        calibration: method of the calibration.
        images: number of training images to calibrate with.
        reduce_range: whether weights have 7 bits.
        loses: whether the score falls by more than the tolerance.
    """

    document: Literal["int8"] = "int8"
    path: Text
    float_path: Text | None
    metric: str
    score: Number
    float_score: Number
    interval: Pair | None
    val_images: int
    size_bytes: int
    float_size_bytes: int
    time: TimePart
    float_time: TimePart
    ratio: Number = Field(validation_alias=AliasPath("ratio", "ratio"))
    ratio_interval: Pair = Field(validation_alias=AliasPath("ratio", "interval"))
    calibration: str
    images: int
    reduce_range: bool
    loses: bool


class BenchDocument(Document):
    """The result of `bench`.

    Attributes:
        rows: the models, in the given order.
        batch: images of a forward pass.
        threads: CPU threads.
        device: the device.
    """

    document: Literal["bench"] = "bench"
    rows: list[BenchPart]
    batch: int
    threads: int
    device: str


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


class MethodsDocument(Document):
    """The result of `methods`.

    Attributes:
        methods: the presets.
    """

    document: Literal["methods"] = "methods"
    methods: list[MethodPart]


DOCUMENTS: Mapping[type, tuple[type[Document], str]] = {
    TrainResult: (TrainDocument, ""),
    SearchResult: (SearchDocument, ""),
    SmokeResult: (SmokeDocument, ""),
    StudyStatus: (WatchDocument, ""),
    Picked: (BestDocument, ""),
    Proposal: (InitDocument, ""),
    BudgetCurve: (BudgetsDocument, ""),
    FinetuneResult: (FinetuneDocument, ""),
    FlowResult: (PruneDocument, ""),
    Report: (ReportDocument, ""),
    FlowComparison: (FlowsDocument, "comparisons"),
    Inspection: (InspectDocument, ""),
    Curves: (CurvesDocument, ""),
    ExportReport: (ExportDocument, ""),
    Int8Report: (Int8Document, ""),
    Bench: (BenchDocument, ""),
    Preset: (MethodsDocument, "methods"),
}
"""{class of a result: its document, and the key of its items if the result is a sequence of them}."""


def document(result: object, sentences: Sequence[str] = ()) -> str:
    """Return the JSON document of a result.

    Args:
        result: an object of a class in DOCUMENTS, or a sequence of them.
        sentences: those that the command prints under its tables.
    """
    first = result[0] if isinstance(result, tuple) else result
    kind, items = DOCUMENTS[type(first)]
    read = kind.model_validate({items: result} if items else result)
    values = {
        "document": None,
        **read.model_copy(update={"sentences": list(sentences)}).model_dump(mode="json"),
    }
    return json.dumps(values, indent=2, allow_nan=False)


def schema() -> str:
    """Return the JSON Schema of all documents."""
    from pydantic.json_schema import models_json_schema

    kinds: list[Any] = [(kind, "serialization") for kind, _ in DOCUMENTS.values()]
    _, found = models_json_schema(kinds)
    names = [kind.__name__ for kind, _ in DOCUMENTS.values()]
    one_of = [{"$ref": f"#/$defs/{name}"} for name in names]
    return json.dumps({"title": "Documents of autoprune", "oneOf": one_of, **found}, indent=2)
