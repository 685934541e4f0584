"""Makes the workbench that the stages of a flow share from a resolved run."""

from __future__ import annotations

from pathlib import Path

from autoprune.config.settings import BudgetSettings
from autoprune.flow import SearchPass, Workbench
from autoprune.graph import Prunable
from autoprune.latency.table import LatencyPredictor
from autoprune.run._resolving.problem import measures_of, with_measures
from autoprune.run._resolving.run import Run
from autoprune.space import CostFunction


def workbench(run: Run, folder: Path, search: SearchPass | None = None) -> Workbench:
    """Return everything that the stages of a flow share.

    Args:
        run: the resolved run.
        folder: the folder of the flow.
        search: chooses the channels by a study.
    """

    def cost(prunable: Prunable) -> CostFunction:
        predict = None if run.table is None else LatencyPredictor(run.table, prunable.blocks)
        measures = measures_of(prunable, predict)
        limited = {name: measure for name, measure in measures.items() if name in run.budget.limits}
        return with_measures(prunable.cost, limited)

    return Workbench(
        config=run.spec,
        stages=run.spec.flow.stages,
        origin=run.prunable,
        data=run.dense.data,
        task=run.dense.task,
        setting=run.setting,
        space=run.spec.space,
        cost=cost,
        known=run.cost,
        folder=folder,
        budget=run.budget if run.spec.budget != BudgetSettings() else None,
        watch=run.watch,
        search=search,
    )
