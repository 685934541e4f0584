"""The stages of a flow, one function and one row of STAGES each.

Example:
    done = find_stage("repair").run(bench, state)
    done.state.model, done.facts["errors"]
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from autoprune.config.settings import RunConfig, SparsifySettings
from autoprune.errors import ConfigError
from autoprune.flow._masking import mask_model, training_mask
from autoprune.flow._repairs import find_repair
from autoprune.flow._schedules import epoch_reporter, naming_learning_rate, schedule_of, step_reporter
from autoprune.flow._selectors import Selection, select
from autoprune.flow._state import FlowState
from autoprune.flow._workbench import Workbench
from autoprune.graph import Plan
from autoprune.masks import compile_masks, narrow_masks
from autoprune.rebuilding import rebuild
from autoprune.reporting import Histograms, save_histograms
from autoprune.score import calibrate
from autoprune.sparsity import StrengthTrial, sparsify
from autoprune.support.events import Stage
from autoprune.support.rows import Row, find_row, quoted
from autoprune.training import fit

_SMALL = 0.01
"""Channels of a smaller size count as sparse in reports."""

_SHOWN_WIDTHS = 60
"""Number of widths that the line about a selection shows."""


@dataclass(frozen=True, eq=False)
class StageResult:
    """The result of a stage.

    Attributes:
        state: the state after it. Its models are new ones if the stage changed weights.
        score: the metric on the validation part, or None if no model changed.
        facts: JSON values for the record.
    """

    state: FlowState
    score: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def sparsify_stage(bench: Workbench, state: FlowState) -> StageResult:
    """Train the model with a penalty that drives channels to zero."""
    settings, mask = bench.config.sparsify, training_mask(bench, state)
    with naming_learning_rate(settings):
        found = sparsify(
            state.prunable,
            bench.data,
            schedule_of(settings),
            bench.setting,
            bench.task,
            penalty=settings.penalty,
            strength=settings.strength,
            seed=settings.seed,
            share=settings.share,
            plan=state.cut,
            initial_scale=settings.initial_scale if state.number == 1 else None,
            options=settings.options,
            hooks=() if mask is None else (mask,),
            checkpoint=bench.checkpoint,
            pth=bench.pth,
            on_epoch=epoch_reporter(settings.epochs, bench.watch),
            on_step=step_reporter(bench.watch),
            on_trial=lambda trial: bench.watch(Stage(_tried_text(trial, settings.share))),
        )
    if found.trials:
        bench.watch(Stage(f"strength {found.strength:g} was trained in full: the best score after the cut"))
    histories = {f"{trial.strength:g}": trial.history for trial in found.trials}
    histories[f"{found.strength:g}{', in full' if histories else ''}"] = found.history
    pictures = Histograms.of(
        f"Sizes of channels under {settings.penalty}",
        "size",
        {name: each.last for name, each in histories.items()},
    )
    for suffix in (".png", ".csv"):
        save_histograms(pictures, bench.file(suffix))
    facts = {
        "strength": found.strength,
        "trials": [
            {name: getattr(trial, name) for name in ("strength", "score", "cut_score", "cut_error")}
            for trial in found.trials
        ],
        "share_below": {f"{_SMALL:g}": found.history.share_below(_SMALL)[-1]},
    }
    return StageResult(replace(state, prunable=found.prunable), found.result.score, facts)


def _tried_text(trial: StrengthTrial, share: float) -> str:
    below = trial.history.share_below(_SMALL)[-1]
    return (
        f"strength {trial.strength:g}: {trial.score:.4f}, and {trial.cut_score:.4f} with {share:.0%} of the "
        f"channels cut. {below:.0%} of them end below {_SMALL:g}"
    )


def select_stage(bench: Workbench, state: FlowState) -> StageResult:
    """Choose the channels that stay."""
    if bench.config.flow.narrow == "all":
        plan = select(Selection(bench, state))
    else:
        target = state.target or select(Selection(bench, state)).widths
        state = replace(state, target=target)
        units = bench.units(state)
        part = units[state.number - 1] if units else ()  # none if all groups stay whole
        plan = bench.choose(state.prunable, {name: target[name] for name in part})
    widths = {group.name: plan.widths.get(group.name, group.width) for group in state.prunable.searchable}
    widths |= {name: width for name, width in plan.widths.items() if width == 0}  # dropped blocks
    listed = list(widths.values())
    more = f" and {len(listed) - _SHOWN_WIDTHS} more" if len(listed) > _SHOWN_WIDTHS else ""
    shown = " ".join(map(str, listed[:_SHOWN_WIDTHS]))
    bench.watch(Stage(f"channels kept per group: {shown}{more}"))
    facts = {"widths": widths, **({} if state.target is None else {"target": dict(state.target)})}
    # Without its ranking, as a resumed flow reads it: repairs of plans with a ranking are rounded otherwise.
    return StageResult(replace(state, cut=Plan(plan.keep)), facts=facts)


def rebuild_stage(bench: Workbench, state: FlowState) -> StageResult:
    """Make the smaller model, with the weights of the channels that stay.

    If nothing was selected, the channels that masks hold at zero go.
    """
    if state.cut is None:
        found = compile_masks(state.prunable, state.masks)
        cut, small, masks = found.plan, found.model, found.masks
    else:
        cut, small = state.cut, rebuild(state.prunable, state.cut)
        masks = narrow_masks(state.prunable, state.masks, cut)
    return StageResult(replace(state, cut=cut, small=small, masks=masks), bench.score(small))


def mask_stage(bench: Workbench, state: FlowState) -> StageResult:
    """Hold weights at zero, from now on or during the finetune."""
    masked = mask_model(bench, state)
    return StageResult(masked, None if masked is state else bench.score(masked.model))


def repair_stage(bench: Workbench, state: FlowState) -> StageResult:
    """Refit the layers of the smaller model by least squares."""
    found = find_repair(bench.config.repair.mode).repair(bench, state)
    facts = {"errors": dict(found.errors), "left": dict(found.left)}
    return StageResult(replace(state, small=found.model), bench.score(found.model), facts)


def finetune_stage(bench: Workbench, state: FlowState) -> StageResult:
    """Train the model by [finetune], or measure BatchNorm again if it has no epochs."""
    settings, model = bench.config.finetune, copy.deepcopy(state.model)
    mask = training_mask(bench, state, grows=True)
    if settings.epochs == 0:
        batches = bench.config.score.calibration_batches
        calibrate(model, bench.data, batches, bench.setting, seed=settings.seed)
        score = bench.score(model)
    else:
        with naming_learning_rate(settings):
            score = fit(
                model,
                bench.data,
                schedule_of(settings),
                bench.setting,
                bench.task,
                seed=settings.seed,
                teacher=copy.deepcopy(bench.dense) if settings.teacher == "dense" else None,
                hooks=() if mask is None else (mask,),
                on_epoch=epoch_reporter(settings.epochs, bench.watch),
                on_step=step_reporter(bench.watch),
                checkpoint=bench.checkpoint,
                pth=bench.pth,
            ).score
    masks = state.masks if mask is None else mask.masks
    return StageResult(replace(state.with_weights(model), masks=masks), score)


@dataclass(frozen=True)
class StageSpec(Row):
    """A row of STAGES.

    Attributes:
        run: (bench, state) -> result. It leaves the models of the given state as they are.
        after: stages of which each that a flow has comes earlier.
        needs: stages of which one must come earlier.
        sections: of the settings that it reads. They may change until it begins.
        trains: whether it keeps the state of a stopped training in the folder.
    """

    run: Callable[[Workbench, FlowState], StageResult]
    after: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    trains: bool = False


STAGES: dict[str, StageSpec] = {
    "sparsify": StageSpec(
        sparsify_stage,
        trains=True,
        sections=("sparsify",),
        about="a training with a penalty drives channels to zero",
    ),
    "select": StageSpec(select_stage, sections=("select",), about="the channels that stay are chosen"),
    "rebuild": StageSpec(
        rebuild_stage,
        after=("sparsify", "select"),
        needs=("select", "mask"),
        about="the smaller model is made, with the weights of these channels",
    ),
    "repair": StageSpec(
        repair_stage,
        needs=("rebuild",),
        sections=("repair",),
        about="its layers are refitted by least squares",
    ),
    "mask": StageSpec(
        mask_stage,
        after=("sparsify", "repair"),
        sections=("mask",),
        about="weights are held at zero while the others train on",
    ),
    "finetune": StageSpec(finetune_stage, trains=True, sections=("finetune",), about="the model is trained"),
}
"""{name in flow.stages: stage}."""


def find_stage(name: str) -> StageSpec:
    """Return a row of STAGES, or a user's own from "package.module:function".

    Raises:
        ConfigError: the row or the function does not exist. The message suggests the nearest row.
    """
    return find_row(name, STAGES, "flow.stages", StageSpec)


def stages_of(config: RunConfig) -> tuple[str, ...]:
    """Return the stages of a pass, those of flow.stages or the default ones.

    Raises:
        ConfigError: see `ordered`.
    """
    first = ("sparsify",) if config.sparsify != SparsifySettings() else ()
    return ordered(config.flow.stages or (*first, "select", "repair", "finetune"))


def ordered(names: Sequence[str]) -> tuple[str, ...]:
    """Return the stages of a pass, with "rebuild" after "select" if it is not listed.

    A "sparsify" that follows "select" directly stays before it.

    Raises:
        ConfigError: a stage is unknown, comes twice or too early, or "select" and "mask" are both missing.
    """
    stages = list(names)
    if len(set(stages)) < len(stages):
        twice = next(name for name in stages if stages.count(name) > 1)
        raise ConfigError(f'flow.stages: got "{twice}" more than once, expected each stage once.')
    if "select" not in stages and "mask" not in stages:
        raise ConfigError(
            f'flow.stages: got {quoted(stages) or "none"}, expected "select" or "mask" among them.'
        )
    if "select" in stages and "rebuild" not in stages:
        # A penalty on the channels that a plan cuts trains between the selection and the cut.
        place = stages.index("select") + 1
        stages.insert(place + (stages[place : place + 1] == ["sparsify"]), "rebuild")
    for place, name in enumerate(stages):
        spec = find_stage(name)
        late = [each for each in spec.after if each in stages[place:]]
        if spec.needs and not set(spec.needs) & set(stages[:place]):
            late.append(spec.needs[0])
        if late:
            # A "rebuild" that the config does not list comes too early only because of the stage behind it.
            early = name if name in names else stages[place + 1]
            raise ConfigError(
                f'flow.stages: "{late[0]}" must come before "{early}". Write e.g. '
                '["sparsify", "select", "rebuild", "repair", "finetune"].'
            )
    return tuple(stages)
