"""Masks in a flow: the stage that makes them, the hook that holds them, and their file.

Example:
    state = mask_model(bench, state)             # its model has zeros, by state.masks
    hook = training_mask(bench, state)           # holds them while the model trains
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from autoprune.config.settings import MaskSettings, RunConfig
from autoprune.data import Batch
from autoprune.errors import CheckpointError, ConfigError, MaskError
from autoprune.flow._selectors import find_selector
from autoprune.flow._state import FlowState
from autoprune.flow._workbench import Workbench
from autoprune.graph import Prunable
from autoprune.masks import (
    SCORES,
    GradualMasks,
    MaskHook,
    MaskRule,
    Masks,
    ScoreSpec,
    load_masks,
    remaining_of,
    save_masks,
    whole_channels,
)
from autoprune.score import loss_of
from autoprune.space import SpaceSpec, matches
from autoprune.support.events import Stage
from autoprune.support.rows import find_row

FILE = "masks.safetensors"
"""Name of the file of the masks, next to the weights of the masked model."""


def rule_of_masks(settings: MaskSettings, target: str = "") -> MaskRule:
    """Return the rule by which [mask] chooses weights, of a target alone if there is one.

    Raises:
        MaskError: a name is unknown, or the sparsity is not one of the granularity.
    """
    rule = MaskRule(settings.granularity, settings.score, settings.scope, settings.skip, target)
    rule.check(settings.sparsity)
    return rule


def check_masks(config: RunConfig, stages: tuple[str, ...]) -> None:
    """Check the settings of [mask] before anything is loaded.

    Raises:
        ConfigError: they do not fit the stages.
        MaskError: a name is unknown, or the sparsity is not one of the granularity.
    """
    settings = config.mask
    rule_of_masks(settings)
    cuts = _cuts_masked(stages)
    later = stages[stages.index("mask") :]
    trains = "finetune" in later and config.finetune.epochs > 0
    reasons = {
        "mask.file gives masks that do not grow": settings.file is not None,
        '"2:4" has one sparsity only': settings.granularity == "2:4",
        'no "finetune" with epochs follows "mask"': not trains,
        '"rebuild" cuts the masked filters before it': cuts
        and "finetune" in stages[stages.index("rebuild") :],
    }
    reason = next((reason for reason, holds in reasons.items() if holds), None)
    if settings.schedule == "cubic" and reason is not None:
        raise ConfigError(
            f'mask.schedule: "cubic" lets masks grow during the finetune, but {reason}. Use "one-shot".'
        )
    repeats = config.flow.passes > 1 or config.flow.narrow != "all"
    if settings.file is not None and repeats and "rebuild" in stages:
        raise ConfigError(
            "mask.file: got masks of one model, but each pass has another one, since flow.stages has "
            '"rebuild". Use one pass, or leave mask.file out.'
        )
    if cuts and settings.file is None and settings.granularity != "filter":
        raise ConfigError(
            'flow.stages: without "select", "rebuild" cuts masked filters, but mask.granularity is '
            f'"{settings.granularity}". Use "filter", or leave "rebuild" out.'
        )


def check_maskable(config: RunConfig, stages: tuple[str, ...], prunable: Prunable, space: SpaceSpec) -> None:
    """Check that a dense model and all its smaller versions can have the masks of [mask].

    Args:
        config: the settings.
        stages: of a pass.
        prunable: the traced dense model.
        space: the widths that a pass may choose.

    Raises:
        MaskError: it has no such layers, its widths do not suit the granularity, or mask.file is of another
            model.
        CheckpointError: mask.file cannot be read.
    """
    settings, rule = config.mask, rule_of_masks(config.mask, prunable.target)
    masks = None if settings.file is None else load_masks(Path(settings.file))
    cuts_first = "select" in stages[: stages.index("mask")]
    if masks is None:
        weights = rule.require_suited(prunable.model)
        has_more = config.flow.passes > 1 or config.flow.narrow != "all"
        if rule.units.two_of_four and (cuts_first or ("select" in stages and has_more)):
            _require_narrowed_fours(config.select.by, weights, prunable, space)
    elif cuts_first:  # the widths are not known yet
        rule.maskable(prunable.model)
    else:
        masks.placed(prunable.model)


def _require_narrowed_fours(by: str, weights: Collection[str], prunable: Prunable, space: SpaceSpec) -> None:
    """Refuse 2:4 masks of layers whose inputs may not divide by four once channels are cut.

    Raises:
        MaskError: there are such layers. The first is named.
    """
    follows = find_selector(by).has_space
    for group in prunable.searchable:
        divisor = space.resolved(group.name).divisor if follows else 1
        for member in group.members:
            is_read = member.axis == 1 and member.parameter in weights
            if is_read and divisor * member.index.shape[1] % 4 and not matches(group.name, space.skip):
                raise MaskError(
                    f'mask.granularity: "2:4" needs inputs that divide by 4, but "select" may leave other '
                    f"widths of {group.name}, which {member.parameter} reads. Set search.divisor = 4 and a "
                    f"select.by that follows it, or leave the layer dense with mask.skip."
                )


def mask_model(bench: Workbench, state: FlowState) -> FlowState:
    """Return the state with the masks of this pass, and their weights at zero.

    Masks that grow during the finetune begin with it, so the state stays as it is.
    """
    settings = bench.config.mask
    if settings.schedule == "cubic":
        return state
    prunable = state.traced(bench.origin)
    if settings.file is not None:
        made = load_masks(Path(settings.file))
    else:
        made = rule_of_masks(settings, bench.origin.target).masks(
            prunable.model,
            _sparsity(bench, state, state.number),
            _batches(bench),
            loss_of(bench.task),
            before=state.masks,
        )
    masks = whole_channels(prunable, made.also(state.masks))
    return replace(state.with_weights(masks.applied(state.model)), masks=masks)


def training_mask(bench: Workbench, state: FlowState, *, grows: bool = False) -> MaskHook | None:
    """Return the hook that holds the masks of a state in a training, or None if it has none.

    Args:
        bench: settings, data and the stages of the pass.
        state: the model to train.
        grows: whether masks with the cubic schedule grow in this training.
    """
    settings = bench.config.mask
    if not (grows and settings.schedule == "cubic" and "mask" in bench.stages):
        return MaskHook(state.masks) if state.masks else None
    return GradualMasks(
        rule_of_masks(settings, bench.origin.target),
        _sparsity(bench, state, state.number),
        initial=_initial_sparsity(bench, state),
        start=state.masks,
        prunable=state.traced(bench.origin),
        data=_batches(bench),
        loss=loss_of(bench.task),
    )


def keep_masks(masks: Masks, folder: Path) -> str | None:
    """Write masks next to the weights of their model, and return their fingerprint. None are not written."""
    if not masks:
        return None
    save_masks(masks, folder / FILE)
    return masks.fingerprint


def kept_masks(folder: Path, fingerprint: str | None) -> Masks:
    """Read the masks that `keep_masks` wrote.

    Raises:
        CheckpointError: the file is missing, damaged, or holds other masks.
    """
    if fingerprint is None:
        return Masks({})
    masks = load_masks(folder / FILE)
    if masks.fingerprint != fingerprint:
        raise CheckpointError(
            f"{folder / FILE}: holds other masks than those of the flow. Restore it, or remove "
            f"{folder.parent} to start over."
        )
    return masks


def _cuts_masked(stages: Sequence[str]) -> bool:
    """Return whether "rebuild" cuts the masked filters, so that the masks of the next pass begin again."""
    return "select" not in stages and "rebuild" in stages


def _initial_sparsity(bench: Workbench, state: FlowState) -> float:
    """Return the sparsity from which masks grow in a pass. Filters that a cut left masked do not count."""
    if not state.masks or _cuts_masked(bench.stages):
        return 0.0
    return _sparsity(bench, state, state.number - 1)


def _sparsity(bench: Workbench, state: FlowState, number: int) -> float:
    """Return the sparsity after a pass.

    The share of weights that stay is the same in every pass. If a pass cuts its masked filters, the masks of
    the next one begin again.
    """
    settings, passes = bench.config.mask, bench.passes(state)
    if settings.granularity == "2:4":
        return settings.sparsity
    share = float((1 - settings.sparsity) ** (1 / passes))
    if _cuts_masked(bench.stages):
        return 1 - share
    return settings.sparsity if number == passes else 1 - share**number


def _batches(bench: Workbench) -> list[Batch] | None:
    """Return the images that the score of [mask] reads, or None if it reads the weights alone."""
    settings = bench.config.mask
    spec = find_row(settings.score, SCORES, "mask.score", ScoreSpec)
    return None if spec.needs == "weights" else list(bench.batches(settings.images))


def remaining_facts(bench: Workbench, before: FlowState, state: FlowState) -> dict[str, Any]:
    """Return the size of a masked model for the record, and report it if a stage changed its masks."""
    if not state.masks:
        return {}
    cost = bench.cost_of(state.plan)
    left = remaining_of(state.model, bench.origin.example_inputs, cost, state.masks, bench.origin.target)
    if state.masks is not before.masks:
        bench.watch(Stage(f"masks leave {left}"))
    return {"remaining": asdict(left)}
