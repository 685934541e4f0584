"""The parts of JSON documents: trials, studies, curves and the like."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AliasPath, BeforeValidator, Field

from autoprune.cli._document_base import Costs, Number, Pair, Part, Text
from autoprune.study import Race


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
        costs: {cost: amount} of macs, params and the costs that are limited or minimised. FLOPs are 2 x MACs.
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
    """The comparison of the trials of a race with uniform, the trial with one keep ratio for all groups.

    Attributes:
        winner: the trial that won the race.
        uniform: the number of uniform, or null if it did not train to the end.
        other: the best trial other than uniform that trained to the end, or null if `uniform` is null or
            there is none.
        gain: score of `other` minus that of uniform, below 0 if uniform scored higher. It is 0 if `other` is
            null.
        interval: 95% interval of `gain` over the draw of the images, or null if it is not known.
        is_clear: whether the winner is above uniform by more than noise. Then it is `other`, and the interval
            lies above 0.
        sentence: the verdict in one sentence, or in two.
    """

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


class PointPart(Part):
    """The plan with the least predicted error within one budget."""

    limit: str
    error: Number
    costs: Costs
    widths: dict[str, int]


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


class FlowStagePart(Part):
    """A stage of a flow."""

    number: int
    stage: str
    seconds: Number
    score: Number
    cost: Costs


class RemainingPart(Part):
    """The numbers of weights and of MACs that masks leave."""

    weights: int
    dense_weights: int
    macs: int
    dense_macs: int
    sparsity: Number


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


class CurvePart(Part):
    """The error or the score of a group at several widths."""

    name: str
    widths: list[int]
    ratios: list[Number]
    values: list[Number]


class TimePart(Part):
    """The time of a forward pass, with its 95% interval."""

    median_ms: Number
    interval_ms: Pair


class BenchPart(Part):
    """The time of a model and its ratio to the first one, with 95% intervals."""

    path: Text
    runtime: str
    median_ms: Number = Field(validation_alias=AliasPath("measurement", "median_ms"))
    interval_ms: Pair = Field(validation_alias=AliasPath("measurement", "interval_ms"))
    p90_ms: Number = Field(validation_alias=AliasPath("measurement", "p90_ms"))
    ratio: Number = Field(None, validation_alias=AliasPath("ratio", "ratio"))
    ratio_interval: Pair | None = Field(None, validation_alias=AliasPath("ratio", "interval"))


class MethodPart(Part):
    """A preset of `prune`."""

    name: str
    about: str
    paper: str
    needs: list[str]
