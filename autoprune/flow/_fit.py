"""Checks that a model fits the methods of a flow, before anything is trained or written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from autoprune.config import presets
from autoprune.config.settings import RunConfig
from autoprune.errors import ConfigError
from autoprune.flow._masking import check_maskable
from autoprune.flow._selectors import check_threshold
from autoprune.flow._stages import stages_of
from autoprune.graph import Prunable
from autoprune.graph.writers import shortcuts
from autoprune.space import SpaceSpec
from autoprune.sparsity import check_penalty, scale_places
from autoprune.support.rows import Row


@dataclass(frozen=True)
class NeedSpec(Row):
    """A row of NEEDS.

    Attributes:
        fits: (traced model) -> whether it has it.
    """

    fits: Callable[[Prunable], bool]


def _has_batchnorm(prunable: Prunable) -> bool:
    return bool(scale_places(prunable.model, prunable))


def _has_residual(prunable: Prunable) -> bool:
    return bool(shortcuts(prunable))


NEEDS: Mapping[str, NeedSpec] = {
    "batchnorm": NeedSpec(_has_batchnorm, about="a BatchNorm that scales a searchable channel group"),
    "residual": NeedSpec(_has_residual, about="residual blocks, whose branches are added to shortcuts"),
}
"""{name in the `needs` of a preset: the check of a model}."""


def check_fit(config: RunConfig, prunable: Prunable, space: SpaceSpec) -> None:
    """Refuse a model that the method, the penalty or the masks of a flow cannot work on.

    Args:
        config: the settings.
        prunable: the traced dense model.
        space: the widths that a pass may choose.

    Raises:
        ConfigError: the model lacks something.
        PlanError: select.share is more than select.floor leaves.
    """
    method, model = config.flow.method, type(prunable.model).__name__
    for need in presets()[method].needs if method is not None else ():
        if not NEEDS[need].fits(prunable):
            raise ConfigError(
                f'flow.method: "{method}" needs {NEEDS[need].about}, but {model} has none. '
                "`autoprune methods` lists the needs of the others."
            )
    if not prunable.searchable and "select" in stages_of(config):
        raise ConfigError(f"flow: {model} has no channel group to narrow. See `autoprune inspect`.")
    if config.select.residual == "shortcut" and not shortcuts(prunable):
        raise ConfigError(
            f'select.residual: got "shortcut", but {model} has no residual stream. Set residual = "all".'
        )
    stages = stages_of(config)
    if "mask" in stages:
        check_maskable(config, stages, prunable, space)
    if "sparsify" in stages:
        first = "select" in stages[: stages.index("sparsify")]
        check_penalty(prunable, config.sparsify.penalty, config.sparsify.options, has_plan=first)
    if "select" in stages and config.select.by == "global-threshold":
        check_threshold(config, stages, prunable, space)
