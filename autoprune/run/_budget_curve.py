"""Predicts the least error within each of several budgets from the error library of a study.

Example:
    curve = budget_curve("digits", budget="flops=20%..60%", outputs=["budgets.png"])
    curve.points[0].error, curve.points[0].widths
"""

from __future__ import annotations

import dataclasses
from types import NoneType

import numpy as np
from torch import nn

from autoprune.cost import COSTS
from autoprune.data import UserLoaders, VisionData
from autoprune.errors import ConfigError, shown_value
from autoprune.flow import least_error
from autoprune.latency.table import LatencyPredictor
from autoprune.progress import GIVEN_WATCH, Watch, watching
from autoprune.reconstruction import ErrorLibrary
from autoprune.reporting import BudgetCurve, BudgetPoint, save_budget_curve
from autoprune.run._checks.stored_run import open_run
from autoprune.run._curve_outputs import Outputs, check_outputs
from autoprune.run._measuring.heuristics import Proposer
from autoprune.run._measuring.moments import moments_of
from autoprune.run._measuring.reuse import stored_library
from autoprune.run._measuring.statistics import MeasurementContext
from autoprune.run._resolving.budget_amounts import Limit, read_limit
from autoprune.run._resolving.dense import GIVEN_MODEL, given_dense
from autoprune.run._resolving.problem import measures_of, with_measures
from autoprune.run._resolving.resolve import resolve_stored
from autoprune.run._resolving.run import Run
from autoprune.run._resolving.session import STUDY, Session, StudyRef, of_study
from autoprune.run._resolving.spec import ConfigSource
from autoprune.run._resolving.stored_config import stored_ranking
from autoprune.space import Budget, RequestedLimit, build_space
from autoprune.study import SearchStudy
from autoprune.support.events import Stage
from autoprune.support.usercode import entry

POINTS = 9
"""Budgets of a curve, evenly spaced, both ends included."""


@entry(study=STUDY, storage=(str, NoneType), model=GIVEN_MODEL, watch=GIVEN_WATCH)
def budget_curve(
    study: StudyRef,
    storage: str | None = None,
    *,
    budget: str,
    outputs: Outputs = (),
    model: nn.Module | None = None,
    data: VisionData | UserLoaders | None = None,
    trust: bool = False,
    config: ConfigSource | None = None,
    watch: Watch = True,
) -> BudgetCurve:
    """Predict the least error within each of several budgets. Nothing is trained, and no trial is added.

    The study must not have searched these budgets. Its error library is measured now if the study has none.

    Args:
        study: name of the study, or a result that belongs to it.
        storage: URL of its storage, runs/STUDY.db by default.
        budget: a key of [budget] with its smallest and largest amount, such as "flops=20%..60%".
        outputs: pictures (PNG, SVG, PDF) and tables (CSV) to write, by their suffixes.
        model: the same dense model, if `search` received one.
        data: the same data.
        trust: whether code that the study names may run although no config of yours named it here.
        config: a config of your own, as `search` accepts it. The code that it names is trusted.
        watch: called with events that report the progress. True shows them if there is a terminal or a
            notebook, and None or False shows nothing.

    Returns:
        The best plan within each budget, with its predicted error and its costs.

    Raises:
        ConfigError: the budget is malformed, or the study does not know its cost.
        BudgetError: no plan meets one of the budgets. The message names the smallest reachable cost.
        StudyError: model or data differ from those of the study, or it names code that is not trusted.

    Example:
        curve = autoprune.budget_curve("digits", budget="flops=20%..60%")
        [(point.limit, point.error) for point in curve.points]
    """
    name, url, session = of_study(study, storage, Session(model, data, config))
    with watching(watch) as show, open_run(name, url, trust=trust, config=session.config) as stored:
        opened = stored.study
        limits = read_range(budget, opened.facts.dense_costs)
        check_outputs(outputs, opened.url, stored.spec)
        given = given_dense(session.model, session.data, stored.running)
        run = resolve_stored(opened, stored.running, given, show)
        library = _library(run, opened)
        points = tuple(_point(run, library, limit) for limit in limits)
    dense = {cost: run.dense_cost.known()[cost] for cost in points[0].costs}
    key = limits[0].key
    curve = BudgetCurve(name, key.name, key.cost, points, {k: float(v) for k, v in dense.items()})
    return dataclasses.replace(curve, files=tuple(save_budget_curve(curve, output) for output in outputs))


def read_range(text: str, dense_costs: dict[str, int | float]) -> list[Limit]:
    """Parse "flops=20%..60%" into evenly spaced limits, or "flops=30%" into one.

    Raises:
        ConfigError: the text is malformed, the cost is unknown, or the first amount is not the smaller one.
    """
    name, equals, amounts = text.partition("=")
    low, dots, high = amounts.partition("..")
    if not equals or (dots and not high):
        raise ConfigError(f'--budget: got {shown_value(text)}, expected e.g. "flops=20%..60%".')
    written = [low, high] if dots else [low]
    ends = [read_limit(name.strip(), each.strip(), dense_costs, "--budget") for each in written]
    most = [end.most for end in ends]
    if min(most) <= 0 or most != sorted(most) or (ends[-1].whole and most[-1] >= ends[-1].whole):
        raise ConfigError(
            f"--budget: got {shown_value(text)}, expected amounts above 0 and below the dense model's own, "
            "the smaller one first."
        )
    if len(ends) == 1:
        return ends
    unit, per_cost = ends[0].key.unit, ends[0].key.per_cost
    is_share = all(end.is_share for end in ends)
    spread = np.linspace(most[0], most[1], POINTS).tolist()
    return [
        dataclasses.replace(
            ends[0],
            most=each,
            text=f"{100 * each / ends[0].whole:.3g}%" if is_share else unit.write(each * per_cost),
        )
        for each in spread
    ]


def _library(run: Run, study: SearchStudy) -> ErrorLibrary:
    """Return the error library of a study, or measure it if the study has none that can be read."""
    try:
        library = stored_library(run, study)
    except ValueError:
        library = None
    if library is not None:
        return library
    run.watch(Stage(f"{study.name} has no error library, so it is measured now"))
    moments = moments_of(run)
    context = MeasurementContext(run, stored_ranking(study, run.prunable, None), moments=moments)
    return Proposer(context, run.space).library()


def _point(run: Run, library: ErrorLibrary, limit: Limit) -> BudgetPoint:
    """Return the plan with the least error within one limit."""
    name, key = limit.key.cost, limit.key
    measures = measures_of(run.prunable, None if run.table is None else LatencyPredictor(run.table))
    known = run.dense_cost.known()
    if name not in known:
        raise ConfigError(f"--budget: {run.spec.search.study} has no latency table. Limit another cost.")
    words = RequestedLimit(key, limit.text, float(known[name]) * key.per_cost)
    amount = int(limit.most) if COSTS[name].unit.is_whole else limit.most
    wanted = Budget(requested={name: words}, **{name: amount})
    limited = {cost: measure for cost, measure in measures.items() if cost == name}
    cost = with_measures(run.prunable.cost, limited)
    space = build_space(run.prunable.groups, cost, wanted, run.spec.space)
    levels = least_error(space, library)
    widths = space.ladder.widths(levels[None])
    kept = {group: int(width) for group, width in zip(space.groups, widths[0], strict=True)}
    searched = {name: kept[name] for variable in space.variables for name in variable.groups}
    costs = {each: float(value) for each, value in run.cost(widths).one().known().items()}
    return BudgetPoint(limit.text, library.total(searched), costs, searched)
