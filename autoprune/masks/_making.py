"""Make masks at a sparsity, from scores of the weights.

Example:
    masks = make_masks(prunable, 0.8, granularity="kernel", scope="global", skip=["conv1"])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from autoprune.errors import MaskError, unknown
from autoprune.graph import Prunable
from autoprune.masks._channels import whole_channels
from autoprune.masks._granularity import GRANULARITIES, GranularitySpec, require_fours, two_of_four
from autoprune.masks._masks import Masks
from autoprune.masks._scores import SCORES, LossFunction, ScoreInput, ScoreSpec
from autoprune.support.rows import find_row, guarding
from autoprune.support.usercode import entry

SCOPES = ("layer", "global")


@dataclass(frozen=True)
class MaskRule:
    """How masks are made at a sparsity.

    Attributes:
        granularity: a row of GRANULARITIES.
        score: a row of SCORES, or "package.module:function".
        scope: "layer", the same sparsity in each layer, or "global", one ranking of all units.
        skip: names of modules that stay dense.
        target: path of the submodule whose layers are masked, or "" for the model.

    Raises:
        MaskError: a name is unknown.
    """

    granularity: str = "weight"
    score: str = "magnitude"
    scope: str = "layer"
    skip: tuple[str, ...] = ()
    # Not in the repr, which identifies trainings: a flow cannot change its target.
    target: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Check the names."""
        for where, name, known in (
            ("granularity", self.granularity, GRANULARITIES),
            ("scope", self.scope, SCOPES),
        ):
            if name not in known:
                raise MaskError(unknown(f"mask.{where}", name, known))
        find_row(self.score, SCORES, "mask.score", ScoreSpec, MaskError)

    @property
    def units(self) -> GranularitySpec:
        """The units to keep or to drop."""
        return GRANULARITIES[self.granularity]

    def check(self, sparsity: float) -> None:
        """Refuse a sparsity that is out of range.

        Raises:
            MaskError: it is not in [0, 1), or not 0.5 for 2:4.
        """
        if not isinstance(sparsity, (int, float)) or isinstance(sparsity, bool) or not 0 <= sparsity < 1:
            raise MaskError(f"sparsity: got {sparsity!r}, expected the share of weights to drop, in [0, 1).")
        if self.units.two_of_four and sparsity != 0.5:
            raise MaskError(f'sparsity: got {sparsity}, but "2:4" keeps half of the weights. Give 0.5.')

    def maskable(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Return {parameter: weight [out, in, *kernel]} of the convolutions and linear layers to mask.

        Transposed convolutions and weights under a parametrization are left out.

        Raises:
            MaskError: there is none, or a module to skip does not exist.
        """
        modules = dict(model.named_modules())
        for name in self.skip:
            if name not in modules:
                raise MaskError(unknown("mask.skip", name, modules, kind="module"))
        found: dict[str, nn.Parameter] = {}
        seen: set[int] = set()
        for path, module in modules.items():
            weight = module._parameters.get("weight")
            is_layer = isinstance(module, (nn.Linear, _ConvNd)) and not isinstance(module, _ConvTransposeNd)
            skipped = any(_is_in(path, each) for each in self.skip) or not _is_in(path, self.target)
            if is_layer and weight is not None and not skipped and id(weight) not in seen:
                seen.add(id(weight))
                found[f"{path}.weight" if path else "weight"] = weight
        if not found:
            raise MaskError(f"masks: {type(model).__name__} has no convolution or linear layer to mask.")
        return found

    def require_suited(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Return the weights to mask, after a check that they suit the granularity.

        Raises:
            MaskError: there is none, a module to skip does not exist, or a layer does not suit.
        """
        weights = self.maskable(model)
        if self.units.two_of_four:
            require_fours(weights)
        return weights

    def masks(
        self,
        model: nn.Module,
        sparsity: float,
        data: Iterable[Any] | None,
        loss: LossFunction,
        before: Masks | None = None,
    ) -> Masks:
        """Make masks. Weights that `before` masks stay masked.

        Raises:
            MaskError: data are missing, or a layer does not suit the granularity.
        """
        weights = self.require_suited(model)
        spec = find_row(self.score, SCORES, "mask.score", ScoreSpec, MaskError)
        with guarding(self.score, "mask.score"):
            scores = spec.scores(self.score, ScoreInput(model, weights, data, loss))
        if self.units.two_of_four:
            return Masks({name: two_of_four(score) for name, score in scores.items() if name in weights})
        # Scores are 0 or more, so weights that are masked already rank last.
        for name, mask in (before or {}).items():
            if name in scores:
                scores[name] = scores[name].masked_fill(~mask.to(scores[name].device), -1)
        units = {name: self.units.units(scores[name].double()) for name in weights}
        keep = _kept_globally if self.scope == "global" else _kept_by_layer
        kept = keep(units, {name: weights[name].numel() // units[name].numel() for name in units}, sparsity)
        made = Masks({name: self.units.spread(kept[name], weights[name]) for name in weights})
        return made if before is None else made.also(before)


@entry(MaskError, model=(nn.Module, Prunable), data=(Iterable, NoneType), loss=Callable)
def make_masks(
    model: nn.Module | Prunable,
    sparsity: float,
    *,
    granularity: str = "weight",
    score: str = "magnitude",
    scope: str = "layer",
    skip: Sequence[str] = (),
    data: Iterable[Any] | None = None,
    loss: LossFunction = functional.cross_entropy,
) -> Masks:
    """Choose the weights of convolutions and linear layers to hold at zero.

    Each layer keeps at least one unit. Transposed convolutions and weights under a parametrization stay
    dense.

    Args:
        model: the model, or the traced model. If it is traced, a channel that loses all its filters is masked
            in all parameters of its group, so that `compile_masks` can cut it.
        sparsity: share of the weights to drop, in [0, 1), and 0.5 for "2:4".
        granularity: a row of GRANULARITIES.
        score: a row of SCORES, or "package.module:function".
        scope: "layer", the same sparsity in each layer, or "global", one ranking of all units.
        skip: names of modules that stay dense.
        data: batches (inputs, targets), for scores that run the model.
        loss: (outputs, targets) -> scalar, for scores that read gradients.

    Raises:
        MaskError: an argument is wrong, data are missing, or a layer does not suit the granularity.
    """
    target = model.target if isinstance(model, Prunable) else ""
    rule = MaskRule(granularity, score, scope, tuple(skip), target)
    rule.check(sparsity)
    if isinstance(model, Prunable):
        return whole_channels(model, rule.masks(model.model, sparsity, data, loss))
    return rule.masks(model, sparsity, data, loss)


def _is_in(path: str, module: str) -> bool:
    """Return whether a path is that of a module, or of one in it."""
    return f"{path}.".startswith(f"{module}." if module else "")


def _kept_by_layer(
    units: Mapping[str, Tensor], sizes: Mapping[str, int], sparsity: float
) -> dict[str, Tensor]:
    """Keep the best units of each layer. The first comes first among equals."""
    return {name: _best(each, each.numel() - round(sparsity * each.numel())) for name, each in units.items()}


def _kept_globally(
    units: Mapping[str, Tensor], sizes: Mapping[str, int], sparsity: float
) -> dict[str, Tensor]:
    """Drop the worst units of all layers until the target is reached. Each layer keeps its best unit."""
    scores = torch.cat([each.flatten() for each in units.values()])
    best = torch.cat([_best(each, 1).flatten() for each in units.values()])
    weights = torch.cat([torch.full((each.numel(),), sizes[name]) for name, each in units.items()])
    # Sorted downwards and then reversed: of equal scores the last unit goes first.
    order = scores.argsort(stable=True, descending=True).flip(0).cpu()
    order = order[~best.cpu()[order]]
    dropped = order[weights[order].cumsum(0) <= round(sparsity * float((weights).sum()))]
    kept = torch.ones(len(scores), dtype=torch.bool)
    kept[dropped] = False
    parts = torch.split(kept, [each.numel() for each in units.values()])
    return {
        name: part.reshape(each.shape).to(each.device)
        for (name, each), part in zip(units.items(), parts, strict=True)
    }


def _best(scores: Tensor, count: int) -> Tensor:
    """Mark the highest scores, at least one. The first comes first among equals."""
    order = scores.flatten().argsort(descending=True, stable=True)[: max(1, count)]
    marked = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    marked[order] = True
    return marked.reshape(scores.shape)
