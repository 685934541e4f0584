"""Everything that the stages of a flow share: the settings, the data, the budget of the pass, and files."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from typing import Any

from torch import nn

from autoprune.config.settings import RunConfig, SelectSettings
from autoprune.criteria import Importance, Rule
from autoprune.data import Batch, VisionData, first_batches, head, spread_samples
from autoprune.errors import BudgetError, PlanError
from autoprune.execution import Setting
from autoprune.flow._state import FlowState
from autoprune.flow._units import units
from autoprune.graph import Cost, Plan, Prunable
from autoprune.graph.writers import map_stages
from autoprune.reconstruction import Moments, measure_model
from autoprune.score import Cutter, choose, rank, sensitive_groups
from autoprune.space import (
    Budget,
    CostFunction,
    SearchSpace,
    SpaceSpec,
    build_space,
    tie_stages,
)
from autoprune.support.events import Counted, Stage, Watcher, silent
from autoprune.support.structures import moved, samples_in
from autoprune.training import Task, evaluate

SearchPass = Callable[["Workbench", FlowState], Plan]
"""Chooses the channels of a pass by a study. The caller of a flow gives it."""


@dataclass(frozen=True, eq=False)
class Workbench:
    """Everything that the stages of one pass share.

    Attributes:
        config: all settings.
        stages: the stages of a pass.
        origin: the traced original dense model, which is never changed.
        data: trains on data.train and scores on data.val.
        task: loss and metric.
        setting: how forward and backward passes run.
        space: which widths a pass may choose, such as multiples of a divisor.
        cost: returns the function that computes all limited costs of a traced model.
        known: computes all known costs of the original dense model's widths.
        folder: the folder of the flow.
        budget: the limits of the pass, or None if [select] has its own measure of a cut.
        stage: name of the stage, which its files have.
        watch: called with events that report the progress.
        search: chooses the channels by a study.
    """

    config: RunConfig
    stages: tuple[str, ...]
    origin: Prunable
    data: VisionData
    task: Task
    setting: Setting
    space: SpaceSpec
    cost: Callable[[Prunable], CostFunction]
    known: CostFunction
    folder: Path
    budget: Budget | None = None
    stage: str = ""
    watch: Watcher = silent
    search: SearchPass | None = None
    _moments: dict[int, tuple[Prunable, Moments]] = field(default_factory=dict)

    def file(self, suffix: str) -> Path:
        """Return a file of this stage and pass, such as 1-sparsify.training."""
        return self.folder / f"{self.stage}{suffix}"

    @property
    def dense(self) -> nn.Module:
        """The original dense model."""
        return self.origin.model

    def cost_of(self, plan: Plan) -> Cost:
        """Return all known costs of the model that a plan cuts from the original dense one."""
        return self.known(self.origin.row(plan.widths)).one()

    @property
    def checkpoint(self) -> Path:
        """The file from which a stopped training resumes."""
        return self.file(".training")

    @property
    def pth(self) -> Path | None:
        """The file for the usual checkpoint of a training, or None for no checkpoint."""
        return self.file(".pth") if self.config.flow.checkpoints else None

    def units(self, state: FlowState) -> tuple[tuple[str, ...], ...]:
        """Return the groups that each pass narrows, if passes go through the model layer by layer."""
        return units(self.origin, self.config.flow.narrow, state.target or {})

    def passes(self, state: FlowState) -> int:
        """Return the number of passes, which is 1 before the widths of a flow by layers are chosen."""
        if self.config.flow.narrow == "all":
            return self.config.flow.passes
        return max(1, len(self.units(state)))

    def clear_training(self) -> None:
        """Remove the states of trainings that have ended."""
        for left_over in self.folder.glob(f"{self.stage}*.training"):
            left_over.unlink()

    def score(self, model: nn.Module) -> float:
        """Return the metric of a model on the validation part."""
        return evaluate(model, self.data.val, self.task, self.setting)

    def search_space(self, prunable: Prunable, budget: Budget) -> SearchSpace:
        """Return the widths of a model that meet a budget, and the floor, ties and skips of [select].

        Raises:
            BudgetError: no plan meets the budget.
            PlanError: all groups are sensitive.
        """
        floor = self.config.select.floor
        bounds = {"low": floor} if isinstance(floor, float) else {"floor": max(1, floor, self.space.floor)}
        sensitive = self.sensitive(prunable)
        skip = (*self.space.skip, *map(escape, sensitive))
        spec = SpaceSpec(**{**vars(self.space), **bounds, "skip": skip})
        if self.config.select.ties == "stage":
            spec = tie_stages(spec, map_stages(prunable))
        try:
            return build_space(prunable.groups, self.cost(prunable), budget, spec)
        except (BudgetError, PlanError) as error:
            if not sensitive:
                raise
            whole = f"Or raise select.skip_fall, which leaves {', '.join(sensitive)} whole."
            raise type(error)(f"{error} {whole}") from None

    def ranked(self, prunable: Prunable, widths: Mapping[str, int] | None = None) -> Importance:
        """Return the importance of all channels by the criterion of [select].

        Args:
            prunable: the traced model.
            widths: the widths that will be kept, for criteria that choose for them alone.
        """
        return rank(prunable, self.data, self.task, widths=widths, **self._ranking(prunable))

    def choose(self, prunable: Prunable, widths: Mapping[str, int]) -> Plan:
        """Return the plan that keeps the channels which the criterion and the rule of [select] choose."""

        def done(groups: int, total: int) -> None:
            self.watch(Counted("groups ranked", groups, total))

        return choose(prunable, self.data, self.task, widths=widths, done=done, **self._ranking(prunable))

    def cutter(self, prunable: Prunable) -> Cutter:
        """Return a cutter, which builds cut models and recalibrates them on batches that are drawn here."""
        search = self.config.search
        batches = first_batches(self.data.train, search.sensitivity_batches, seed=search.seed)
        return Cutter(prunable, self.ranked(prunable), self.setting, batches)

    def sensitive(self, prunable: Prunable) -> tuple[str, ...]:
        """Return the groups that stay whole by `select.skip_fall`, by cutting each alone."""
        select = self.config.select
        if select.skip_fall is None:
            return ()
        whole = Budget(macs=int(prunable.cost().macs))
        space = build_space(prunable.groups, prunable.cost, whole, self.space)
        images = spread_samples(self.data.val, self.config.search.sensitivity_images)
        total = 1 + len(space.variables)
        self.watch(Stage(f"sensitive groups: {total} evaluations on {images.samples:,} validation images"))
        found = sensitive_groups(
            self.cutter(prunable),
            space,
            images,
            self.task,
            keep=select.skip_at,
            tolerance=select.skip_fall,
            done=self.counter("sensitive groups", total),
        )
        self.watch(Stage(f"groups that stay whole: {', '.join(found) or 'none'}"))
        return found

    def _ranking(self, prunable: Prunable) -> dict[str, Any]:
        """Return the arguments of a ranking that [select] gives."""
        return {
            "criterion": self.config.select.criterion or self.config.search.criteria[0],
            "seed": self.config.search.seed,
            "moments": lambda: self.moments(prunable),
            "rule": rule_of(self.config.select),
        }

    def counter(self, what: str, total: int) -> Callable[[int], None]:
        """Return a function that reports how many parts of a measurement are done."""
        return lambda done: self.watch(Counted(what, done, total))

    def images(self) -> Iterator[Batch]:
        """Yield batches of `repair.images` training images on the CPU."""
        return (moved(batch, "cpu") for batch in self.batches(self.config.repair.images))

    def batches(self, images: int) -> Iterator[Batch]:
        """Yield batches of as many training images, without augmentation."""
        for batch in self.data.unchanged_train.batches(self.config.search.seed, 0):
            yield head(batch, images)
            images -= samples_in(batch[0])
            if images <= 0:
                return

    def moments(self, prunable: Prunable) -> Moments:
        """Return the moments of a model, measured once."""
        if id(prunable) not in self._moments:
            self._moments.clear()  # those of an earlier model are not read again
            self._moments[id(prunable)] = prunable, self._measure(prunable)
        return self._moments[id(prunable)][1]

    def _measure(self, prunable: Prunable) -> Moments:
        total = min(self.config.repair.images, self.data.unchanged_train.samples)
        self.watch(Stage(f"measuring moments of {total:,} images"))
        model = copy.deepcopy(prunable.model).to(self.setting.device)
        seed, batches = self.config.search.seed, self._counted(total)
        return measure_model(model, batches, images=total, seed=seed, groups=prunable.groups).to("cpu")

    def _counted(self, total: int) -> Iterator[Batch]:
        seen = 0
        for batch in self.images():
            yield batch
            seen += samples_in(batch[0])
            self.watch(Counted("moments", seen, total))


def rule_of(settings: SelectSettings) -> Rule:
    """Return the rule by which [select] chooses channels."""
    return Rule(settings.ranking, settings.residual, settings.remove)


def pass_limits(
    limits: Mapping[str, float], dense: Mapping[str, float], number: int, passes: int
) -> dict[str, float]:
    """Return the limits of one pass, so that the costs fall by the same factor in every pass.

    Args:
        limits: those of the last pass, by the name of the cost.
        dense: the dense model's costs.
        number: number of the pass, from 1.
        passes: number of passes.
    """
    if number == passes:
        return dict(limits)
    found = {name: dense[name] * (limit / dense[name]) ** (number / passes) for name, limit in limits.items()}
    return {name: int(value) if isinstance(limits[name], int) else value for name, value in found.items()}
