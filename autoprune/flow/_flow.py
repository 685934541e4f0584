"""Runs the stages of a flow, pass by pass, and goes on after the last one that was done.

Example:
    state = run_flow(bench, record)
    state.plan, state.model
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from autoprune.errors import AutopruneError
from autoprune.exporting import load_pruned, read_recipe, save_pruned
from autoprune.flow._masking import keep_masks, kept_masks, remaining_facts
from autoprune.flow._record import FlowRecord, StageEntry
from autoprune.flow._stages import StageResult, find_stage
from autoprune.flow._state import FlowState, retraced
from autoprune.flow._workbench import Workbench, pass_limits
from autoprune.graph import Plan
from autoprune.space import Budget
from autoprune.support.events import Stage


def run_flow(bench: Workbench, record: FlowRecord) -> FlowState:
    """Run the stages that are not done yet, and return the state at the end.

    Each stage begins with the models that the files of the one before hold, so a flow that was killed gives
    the same model as one that was not.

    Args:
        bench: settings, data and the limits of the last pass.
        record: the stages that are done. Each further stage is added to it.
    """
    state = _restored(bench, record)
    while len(record.stages) < bench.passes(state) * len(bench.stages):
        done, place = divmod(len(record.stages), len(bench.stages))
        number, name = done + 1, bench.stages[place]
        if number > state.number:
            state = state.next_pass(bench.origin)
        at = replace(bench, budget=_budget(bench, number), stage=f"{number}-{name.replace(':', '.')}")
        bench.watch(Stage(f"pass {number} of {bench.passes(state)}: {name}"))
        started = time.perf_counter()
        result = _run_stage(at, name, state, record)
        before = state
        state, places = _kept(at, record, before, result)
        entry = StageEntry(
            number=number,
            stage=name,
            seconds=time.perf_counter() - started,
            score=None if result.score is None or not math.isfinite(result.score) else result.score,
            base=places["base"],
            small=places["small"],
            cut=None if state.cut is None else {group: index.tolist() for group, index in state.cut.items()},
            cost=_numbers(bench, state.plan),
            masks=places["masks"],
            facts={**result.facts, **remaining_facts(at, before, state)},
        )
        record.stages.append(entry)
        record.save()
        at.clear_training()
        if result.score is not None:
            bench.watch(Stage(f"{bench.config.task.metric} {result.score:.4f} on the validation part"))
    bench.clear_training()  # also of a stage after whose record a flow was killed
    return state


def _run_stage(bench: Workbench, name: str, state: FlowState, record: FlowRecord) -> StageResult:
    """Run one stage. If the first stage fails before it kept anything, the folder is left as it was."""
    spec = find_stage(name)
    record.begun = name if spec.trains else None
    record.save()
    try:
        return spec.run(bench, state)
    except AutopruneError:
        if not record.stages and not any(bench.folder.glob(f"{bench.stage}*")):
            record.discard()
        raise


def _budget(bench: Workbench, number: int) -> Budget | None:
    """Return the limits of one pass."""
    passes = bench.config.flow.passes
    if bench.budget is None or bench.config.flow.narrow != "all" or number == passes:
        return bench.budget
    limits = pass_limits(bench.budget.limits, _numbers(bench, Plan({})), number, passes)
    return Budget(requested=None, **limits)


def _numbers(bench: Workbench, plan: Plan) -> dict[str, int | float]:
    """Return {name: cost} of the model that a plan cuts from the original dense one."""
    costs: Mapping[str, int | float] = bench.cost_of(plan).known()  # type: ignore[assignment]  # of one model
    return dict(costs)


def _kept(
    bench: Workbench, record: FlowRecord, before: FlowState, result: StageResult
) -> tuple[FlowState, dict[str, str | None]]:
    """Write the model that a stage changed, and its masks. The masked weights of the file are zero.

    Returns:
        The state with the model as it is read from its file, the folders of its two models, and the
        fingerprint of its masks.
    """
    state = result.state
    places = _places(record, before.number)
    if state.model is before.model:
        return state, places
    folder = bench.folder / bench.stage
    save_pruned(state.masks.applied(state.model).cpu(), state.plan, folder)
    state = state.with_weights(_loaded(bench, bench.stage))
    changed = {
        "base" if state.small is None else "small": bench.stage,
        "masks": keep_masks(state.masks, folder),
    }
    return state, {**places, **changed}


def _places(record: FlowRecord, number: int) -> dict[str, str | None]:
    """Return the folders of the models with which the next stage of a pass begins, and their masks."""
    if not record.stages:
        return {"base": None, "small": None, "masks": None}
    last = record.stages[-1]
    if last.number < number:
        return {"base": last.small or last.base, "small": None, "masks": last.masks}
    return {"base": last.base, "small": last.small, "masks": last.masks}


def _restored(bench: Workbench, record: FlowRecord) -> FlowState:
    """Return the state after the last stage of the record."""
    if not record.stages:
        return FlowState(1, bench.origin)
    last = record.stages[-1]
    prunable, done = bench.origin, Plan({})
    if last.base is not None:
        model, done = _loaded(bench, last.base), read_recipe(bench.folder / last.base).plan
        prunable = retraced(model, bench.origin, done)
    small = None if last.small is None else _loaded(bench, last.small)
    target = next((entry.facts["target"] for entry in record.stages if "target" in entry.facts), None)
    masks = kept_masks(bench.folder / (last.small or last.base or ""), last.masks)
    return FlowState(last.number, prunable, done, last.plan, small, target, masks)


def _loaded(bench: Workbench, name: str) -> nn.Module:
    return load_pruned(bench.folder / name, lambda: copy.deepcopy(bench.dense))
