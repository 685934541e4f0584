"""Turns results into JSON documents. `autoprune guide json` lists their keys.

A document has the attributes of the result in Python under the same names, so that one description holds for
both. Numbers that are not finite are null.

Example:
    document(result, ["Next: autoprune finetune digits"])    # '{"document": "search", "version": 1, ...'

A new result is a class below and a row of DOCUMENTS.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasPath, BaseModel, BeforeValidator, ConfigDict, Field

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
from autoprune.study import Race

VERSION: Literal[1] = 1
"""Version of all documents. It rises if a key is removed or changes its meaning."""


def _finite(value: Any) -> Any:
    """Return a number of Python, or None for one that is not finite."""
    plain = value.item() if hasattr(value, "item") else value
    return plain if plain is None or math.isfinite(plain) else None


def _named(value: Any) -> Any:
    """Return {cost: amount} of a `Cost`."""
    return value if value is None or isinstance(value, Mapping) else value.known()


def _called(value: Any) -> Any:
    return value() if callable(value) else value


def _raced(value: Any) -> Any:
    """Return a race with its entrants in a list. The samples of their scores stay in the study."""
    if not isinstance(value, Race):
        return value
    entrants = [
        {"trial": number, "failure": value.failure(number), "stages": entry.stages}
        for number, entry in value.entries.items()
    ]
    result = value.result
    return {"winner": result.winner, "uniform": result.uniform, "ends": result.ends, "entrants": entrants}


Number = Annotated[int | float | None, BeforeValidator(_finite)]
Text = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, Path) else value)]
Costs = Annotated[dict[str, Number], BeforeValidator(_named)]
Pair = tuple[Number, Number]


class Part(BaseModel):
    """A part of a document, read from the attributes of an object."""

    model_config = ConfigDict(from_attributes=True, frozen=True, populate_by_name=True)


class Document(Part):
    """The keys that every document has.

    Attributes:
        version: version of the documents.
        sentences: those that the command prints under its tables.
    """

    version: Literal[1] = VERSION
    sentences: list[str] = Field(default_factory=list)


class RungPart(Part):
    """The score of a trial at a rung."""

    name: str
    score: Number
    error: Number
    seconds: Number


class MeasuredPart(Part):
    """The timed latency of a finalist, with 95% intervals."""

    latency_ms: Number
    interval_ms: Pair
    ratio: Number
    ratio_interval: Pair
    met: bool | None


class TrialPart(Part):
    """A trial.

    Attributes:
        number: its number.
        state: "waiting", "running", "complete", "pruned" or "failed".
        score: the score at its last rung.
        error: standard error of the score.
        rungs: the rungs that it climbed.
        costs: {cost: amount}; macs, params and those that are limited or minimised. FLOPs are 2 x MACs.
        widths: {group: channels kept}.
        criteria: {group: criterion} if the search chooses criteria.
        origin: "sampler", or the names of the heuristics that proposed it.
        seconds: duration of its scoring.
        reused: the trial whose scores it took.
        failure: why it failed.
        measured: its timed latency.
    """

    number: int
    state: str
    score: Number
    error: Number
    rungs: list[RungPart] = Field(validation_alias="scores")
    costs: Costs
    widths: dict[str, int]
    criteria: dict[str, str]
    origin: str
    seconds: Number
    reused: int | None
    failure: str | None
    measured: MeasuredPart | None


class FailurePart(Part):
    """A reason of failures, and the trials that failed for it."""

    reason: str
    trials: list[int]


class AgreementPart(Part):
    """How similarly two rungs rank the trials, with 95% intervals."""

    lower: str
    upper: str
    tau: Number
    tau_interval: Pair
    rho: Number
    rho_interval: Pair
    trials: int


class StagePart(Part):
    """The score of an entrant after a stage of the race."""

    epochs: int
    score: Number
    error: Number
    seconds: Number
    learning_rate: Number


class EntrantPart(Part):
    """An entrant of a race."""

    trial: int
    failure: str | None
    stages: list[StagePart]


class RacePart(Part):
    """The race of a search.

    Attributes:
        winner: the trial that won.
        uniform: the trial with one keep ratio for all groups, if it raced.
        ends: the epochs after which the stages ended.
        entrants: the trials that took part.
    """

    winner: int
    uniform: int | None
    ends: list[int]
    entrants: list[EntrantPart]


class VerdictPart(Part):
    """What the winner of the race gains over one keep ratio for all groups, with its 95% interval."""

    winner: int
    uniform: int | None
    other: int | None
    gain: Number
    interval: Pair | None
    is_clear: bool
    sentence: str


class SummaryPart(Part):
    """A study.

    Attributes:
        study: its name.
        metric: name of the score.
        objectives: "score", then the costs that are minimised.
        rungs: names of the rungs.
        limits: {cost: its limit}.
        dense_score: score of the dense model on the validation part.
        dense_error: its standard error.
        dense_costs: {cost: the dense model's}.
        counts: {state: number of trials}.
        best: the best trial.
        front: the Pareto front, the cheapest first.
        trials: all trials.
        failures: the reasons of failures, the most frequent first.
        race: the race.
        verdict: the result of the race.
        agreements: how well cheap rungs predict expensive ones.
        importances: {keep ratio: its share of the variance of the scores}.
        least_score: the smallest score within the tolerance of the search.
    """

    study: str
    metric: str
    objectives: list[str]
    rungs: list[str]
    limits: Costs
    dense_score: Number
    dense_error: Number
    dense_costs: Costs
    counts: Annotated[dict[str, int], BeforeValidator(_called)]
    best: TrialPart | None
    front: list[TrialPart]
    trials: list[TrialPart] = Field(validation_alias="records")
    failures: Annotated[list[FailurePart], BeforeValidator(_called)]
    race: Annotated[RacePart | None, BeforeValidator(_raced)]
    verdict: VerdictPart | None
    agreements: list[AgreementPart]
    importances: dict[str, Number]
    least_score: Number


class WorkerPart(Part):
    """A process that works on a study.

    Attributes:
        host: name of its machine.
        pid: its number there.
        phase: what it does, such as "trials" or "race".
        is_alive: whether it lives, or null if it is on another host and cannot be seen.
        trials: {number of a trial that it runs: seconds since it began}.
    """

    host: str
    pid: int
    phase: str
    is_alive: bool | None
    trials: dict[int, Number]


class RacerPart(Part):
    """An entrant of a race that runs."""

    trial: int
    origin: str
    epochs: int
    score: Number
    failure: str | None


class RunningRacePart(Part):
    """A race that runs: its entrants that are trained so far, and the epochs after which stages end."""

    entrants: list[RacerPart]
    expected: int
    ends: list[int]
    left_s: Number


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


class PointPart(Part):
    """The plan with the least predicted error within one budget."""

    limit: str
    error: Number
    costs: Costs
    widths: dict[str, int]


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


class PrunedPart(Part):
    """A small model next to the dense one.

    Attributes:
        folder: the folder of the small model.
        cost: {cost: the small model's}.
        dense_cost: {cost: the dense model's}.
        val_score: score of the small model on the validation part.
        test_score: score of the small model on the test part.
        dense_val_score: score of the dense model on the validation part.
        dense_test_score: score of the dense model on the test part.
    """

    folder: Text
    cost: Costs
    dense_cost: Costs
    val_score: Number
    test_score: Number
    dense_val_score: Number
    dense_test_score: Number


class EpochPart(Part):
    """An epoch of a finetune."""

    loss: Number
    score: Number


class FinetunedPart(PrunedPart):
    """A finetuned trial, with its `study`, `trial` and `epochs`."""

    study: str
    trial: int
    epochs: list[EpochPart]


class FinetuneDocument(FinetunedPart, Document):
    """The result of `finetune`.

    Attributes:
        study: name of the study.
        trial: number of the trial.
        epochs: loss and score of each epoch.
    """

    document: Literal["finetune"] = "finetune"


class FlowStagePart(Part):
    """A stage of a flow."""

    number: int
    stage: str
    seconds: Number
    score: Number
    cost: Costs


class RemainingPart(Part):
    """What masks leave."""

    weights: int
    dense_weights: int
    macs: int
    dense_macs: int
    sparsity: Number


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


class ComparedPart(Part):
    """A finished flow. `share` is its MACs as a share of the dense model's."""

    folder: Text
    settings: dict[str, str]
    val_score: Number
    share: Number


class ComparisonPart(Part):
    """The flows of one dense model, and the mean score of each value of a setting."""

    metric: str
    dense_score: Number
    flows: list[ComparedPart]
    rankings: dict[str, list[tuple[str, Number]]]


class FlowsDocument(Document):
    """The result of `report` for a folder of flows.

    Attributes:
        comparisons: one for each dense model.
    """

    document: Literal["flows"] = "flows"
    comparisons: list[ComparisonPart]


class GroupPart(Part):
    """A channel group. `frozen` is the reason why it is not searched, or null."""

    name: str
    width: int
    layers: list[str]
    macs: int
    params: int
    frozen: str | None


class BlockPart(Part):
    """A residual branch that a search may drop."""

    name: str
    groups: list[str]
    macs: int
    params: int


class RangePart(Part):
    """A cost of the smallest plan, of the largest plan and of the dense model."""

    smallest: Number
    largest: Number
    dense: Number


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


class CurvePart(Part):
    """The error or the score of a group at several widths."""

    name: str
    widths: list[int]
    ratios: list[Number]
    values: list[Number]


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


class TimePart(Part):
    """The time of a forward pass, with its 95% interval."""

    median_ms: Number
    interval_ms: Pair


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


class BenchPart(Part):
    """The time of a model and its ratio to the first one, with 95% intervals."""

    path: Text
    runtime: str
    median_ms: Number = Field(validation_alias=AliasPath("measurement", "median_ms"))
    interval_ms: Pair = Field(validation_alias=AliasPath("measurement", "interval_ms"))
    p90_ms: Number = Field(validation_alias=AliasPath("measurement", "p90_ms"))
    ratio: Number = Field(None, validation_alias=AliasPath("ratio", "ratio"))
    ratio_interval: Pair | None = Field(None, validation_alias=AliasPath("ratio", "interval"))


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


class MethodPart(Part):
    """A preset of `prune`."""

    name: str
    about: str
    paper: str
    needs: list[str]


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
