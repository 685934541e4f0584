"""The facts of a study: measurements and choices that are made once, at the start, and used by all trials.

Example:
    facts = StudyFacts(setting=setting.facts, ranking=ranking, dense_score=0.91, limits={"macs": 20_000_000})
    study.facts.dense_score, study.facts.limits["macs"]
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from autoprune.cost import COSTS
from autoprune.support.schema import Strict

FACTS_VERSION = 3
"""Version of the facts that this package writes.

Version 1 has the same keys, but no "version" among them. Studies of versions 1 and 2 hold the facts of trials
in user attributes (see `fact_of`).
"""

_GROUPED = {"dense_costs": "dense", "limits": "budget"}

FLAT_COSTS = {f"{prefix}_{cost}": (name, cost) for name, prefix in _GROUPED.items() for cost in COSTS}
"""Key of a stored cost -> the attribute of `StudyFacts` that holds it, and its name there."""


class WarmStart(Strict):
    """A trial that is queued before the sampler's own: its origin, and the level of each variable."""

    origin: str
    levels: list[int]


class WarmStarts(Strict):
    """The warm starts of a search, and the seconds that each heuristic took."""

    trials: list[WarmStart]
    seconds: dict[str, float] = Field(default_factory=dict)

    @property
    def measured(self) -> dict[str, Any]:
        """The measurements of heuristics, by the name of the heuristic."""
        return self.model_extra or {}


class ToleranceFacts(Strict):
    """The tolerance of a search for the smallest model.

    Attributes:
        cost: the cost that is made small.
        allowed: how far the score may be below the dense model's.
        plans: {heuristic: levels of all variables for each of several budgets, the smallest budget first}.
            The first heuristic is bisected.
    """

    cost: str
    allowed: float = Field(gt=0)
    plans: dict[str, list[list[int]]]

    @field_validator("cost")
    @classmethod
    def _is_known(cls, cost: str) -> str:
        if cost not in COSTS:
            raise ValueError(f"one of {', '.join(COSTS)}")
        return cost


class StrengthFacts(Strict):
    """A strength of a penalty that was tried before the search, as the dense model was made sparse.

    Attributes:
        penalty: its name.
        strength: its factor.
        score: of the model after a short training.
        cut_score: of that model after `share` of its channels were cut.
        cut_error: standard error of `cut_score`, or None if the metric is no mean over images.
        share: of the channels.
    """

    penalty: str
    strength: float
    score: float
    cut_score: float
    cut_error: float | None = None
    share: float


class StudyFacts(Strict):
    """The measurements and choices that a search makes once, at its start.

    Attributes:
        setting: device, number format, layout and threads of all trials, as `Setting.facts`.
        ranking: {group: its channels by importance}, as `encode_ranking` writes them, by the first criterion.
        rankings: {criterion: such a ranking} of the other criteria that the search chooses from.
        dense_score: score of the dense model on the validation part.
        dense_error: its standard error, or None if the metric is no mean over images.
        dense_costs: {cost: that of the dense model}.
        limits: {cost: its limit}, for the costs that the budget limits.
        dense_widths: {group: width} of the groups that are searched.
        relaxed: {group: divisor} of the groups that are too small for the space's divisor.
        stairs: the measured divisor with its timings, as `Stairs.to_json`, or None if it was not measured.
        latency: the latency table, as `LatencyTable.to_json`, or None if there is none.
        statistics: {statistic: {variable: value}} for a sampler that draws by one, or None for the others.
        warm_starts: the first trials of the search.
        tolerance: of a search for the smallest model, or None for the others.
        strengths: the strengths of a penalty that were tried to make the dense model sparse.
        environment: {name: version, device or other fact} of the machine on which the search began.
        version: of these facts.
    """

    setting: dict[str, Any]
    ranking: dict[str, str]
    rankings: dict[str, dict[str, str]] = Field(default_factory=dict)
    dense_score: float
    dense_error: float | None = None
    dense_costs: dict[str, int | float] = Field(default_factory=dict)
    limits: dict[str, int | float] = Field(default_factory=dict)
    dense_widths: dict[str, int] = Field(default_factory=dict)
    relaxed: dict[str, int] = Field(default_factory=dict)
    stairs: dict[str, Any] | None = None
    latency: dict[str, Any] | None = None
    statistics: dict[str, dict[str, float]] | None = None
    warm_starts: WarmStarts = Field(default_factory=lambda: WarmStarts(trials=[]))
    tolerance: ToleranceFacts | None = None
    strengths: list[StrengthFacts] = Field(default_factory=list)
    environment: dict[str, str] = Field(default_factory=dict)
    version: int = FACTS_VERSION

    @model_validator(mode="before")
    @classmethod
    def _of_stored(cls, values: Any) -> Any:
        """Gather the costs, which are stored under keys such as dense_macs, and leave out null values."""
        if not isinstance(values, dict):
            return values
        known = {key: value for key, value in values.items() if value is not None}
        for key, (name, cost) in FLAT_COSTS.items():
            if key in known:
                known[name] = {**known.get(name, {}), cost: known.pop(key)}
        return known

    def to_json(self) -> dict[str, Any]:
        """Return the values that a study stores. `StudyFacts(**values)` gives these facts back."""
        values = self.model_dump(mode="json")
        flat = {key: values[name][cost] for key, (name, cost) in FLAT_COSTS.items() if cost in values[name]}
        return {**{key: value for key, value in values.items() if key not in _GROUPED}, **flat}
