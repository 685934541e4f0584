"""Repair a rebuilt model in one of the modes of MODES.

Example:
    better = repair(prunable, plan, small, moments)                       # milliseconds, no image needed
    better = repair(prunable, plan, small, images, mode="sequential")     # seconds, closer to the dense model
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from autoprune.errors import PlanError, unknown
from autoprune.graph import Plan, Prunable
from autoprune.reconstruction._closed import Repaired, repair_closed
from autoprune.reconstruction._second_moments import Moments, moments
from autoprune.reconstruction._sequential import repair_sequential
from autoprune.support.usercode import entry

_log = logging.getLogger(__name__)

Source = Moments | Iterable[Any]
"""Moments of the dense model, or batches of unlabelled images: the inputs, or tuples that begin with them."""


def _closed(
    prunable: Prunable, plan: Plan, small: nn.Module, source: Source, ridge: float | None
) -> Repaired:
    measured = source if isinstance(source, Moments) else moments(prunable, source)
    return repair_closed(prunable, plan, small, measured, ridge=ridge)


def _sequential(
    prunable: Prunable, plan: Plan, small: nn.Module, source: Source, ridge: float | None
) -> Repaired:
    if isinstance(source, Moments):
        raise PlanError(
            'repair: mode "sequential" needs images, got moments. Pass a loader, or use mode "closed".'
        )
    return repair_sequential(prunable, plan, small, source, ridge=ridge)


MODES: dict[str, Callable[[Prunable, Plan, nn.Module, Source, float | None], Repaired]] = {
    "closed": _closed,
    "sequential": _sequential,
}
"""{name of a mode: the function that repairs in it}."""


@entry(PlanError, prunable=Prunable, plan=Plan, small=nn.Module)
def repair(
    prunable: Prunable,
    plan: Plan,
    small: nn.Module,
    source: Source,
    *,
    mode: str = "closed",
    ridge: float | None = None,
) -> nn.Module:
    """Refit the layers of a rebuilt model by least squares, from unlabelled images and without training.

    Convolutions of any kind and linear layers are refitted to the dense model's outputs. Layers that cannot
    be refitted stay as they are and are logged. A BatchNorm after a refitted layer gets matching statistics,
    so a later recalibration does no harm. After mode "closed" it often helps.

    Args:
        prunable: the traced dense model.
        plan: the plan that `small` was rebuilt with.
        small: the rebuilt model with the dense model's weights. It is not changed.
        source: moments of the dense model (`autoprune.moments`), or batches of images.
        mode: "closed" refits each layer by itself, from the dense model's moments alone. "sequential" refits
            layer after layer, from the outputs of the repaired layers before it, and needs images.
        ridge: strength of the pull towards the weights before the fit, as a share of the inputs' mean
            variance. None means half of inputs / rows of the fit, which was best on held-out images. Mode
            "closed" takes half of the dense layer's inputs.

    Returns:
        A new model of the same widths, in the mode of `small`.

    Raises:
        PlanError: the mode is unknown, needs images and got moments, or the plan does not fit.
        DataError: there is no image, or the model fails on one.

    Reference: He, Zhang, Sun, Channel Pruning for Accelerating Very Deep Neural Networks, ICCV 2017.

    Example:
        repaired = autoprune.repair(prunable, plan, small, measured)
    """
    if mode not in MODES:
        raise PlanError(unknown("repair: mode", mode, MODES))
    repaired = MODES[mode](prunable, plan, small, source, ridge)
    for name, reason in repaired.left.items():
        _log.info("repair: %s stays as it was: %s", name, reason)
    return repaired.model
