"""Chooses the channels of a pass of a flow by a study of the pass's model. It resumes with the flow."""

from __future__ import annotations

import dataclasses

from autoprune.config.settings import RaceSettings
from autoprune.criteria import plan_from_importance
from autoprune.flow import FlowState, SearchPass, Workbench
from autoprune.graph import Plan
from autoprune.latency.table import LatencyPredictor
from autoprune.run._checks.checks import study_exists
from autoprune.run._resolving.identity import identify
from autoprune.run._resolving.problem import build_problem_from_costs, measures_of
from autoprune.run._resolving.run import Run
from autoprune.run._resolving.stored_config import stored_ranking
from autoprune.run._trial_loop import run_trials
from autoprune.run._trials.new_study import make_study
from autoprune.study import open_study


def search_pass(run: Run, step_ms: float) -> SearchPass:
    """Return the function that searches the widths of a pass and keeps the channels of the best trial.

    Args:
        run: the run of the flow.
        step_ms: milliseconds of a training step of the dense model.
    """

    def search(bench: Workbench, state: FlowState) -> Plan:
        inner = _run_of_pass(run, bench, state)
        storage = str(inner.spec.search.storage)
        if study_exists(inner.spec):
            study, moments = open_study(storage, str(inner.spec.search.study)), None
            study.require(identify(inner))
        else:
            study, moments = make_study(inner, step_ms, storage)
        best = run_trials(inner, study, moments=moments).best
        return plan_from_importance(inner.prunable, best.widths, stored_ranking(study, inner.prunable, best))

    return search


def _run_of_pass(run: Run, bench: Workbench, state: FlowState) -> Run:
    """Return the search problem of a pass: its model, its budget, and a study in the folder of the flow."""
    assert bench.budget is not None  # checked before the flow begins
    prunable = state.prunable
    predict = None if run.table is None else LatencyPredictor(run.table, prunable.blocks)
    measures = measures_of(prunable, predict)
    spec = run.spec.without_names().with_search(
        study=f"{run.spec.search.study}-{bench.stage}",
        storage=f"sqlite:///{bench.file('.db')}",
        depth=run.spec.search.depth and bool(prunable.blocks),  # a pass before may have dropped them all
    )
    problem = build_problem_from_costs(prunable, spec, measures, bench.budget)
    output = dataclasses.replace(spec.output, folder=str(bench.folder / bench.stage))  # of its report
    return Run(
        **vars(problem),
        # Without a race, since the flow itself trains the winner.
        spec=dataclasses.replace(spec, output=output, race=RaceSettings(entrants=1)),
        dense=dataclasses.replace(run.dense, model=prunable.model),
        setting=run.setting,
        table=run.table,
        watch=run.watch,
    )
