"""Repair layer by layer, with inputs from the already repaired layers and targets from the dense model.

Errors do not add up, because each layer is fitted to the dense model's outputs from its actual inputs. The
last layer of a residual branch is fitted to correct the error of the other branch too.

Example:
    repaired = repair_sequential(prunable, plan, small, images)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree

from autoprune.errors import DataError
from autoprune.graph import Plan, Prunable
from autoprune.graph.capture import unchanged
from autoprune.rebuilding import keep_positions, narrow
from autoprune.reconstruction._calls import Branch, CallCounter, branches, record
from autoprune.reconstruction._closed import Repaired
from autoprune.reconstruction._contractions import (
    Contraction,
    as_contraction,
    from_matrices,
    to_matrices,
)
from autoprune.reconstruction._intercepts import bias_of, fold_into_norm, folded, norm_of, normalised_by
from autoprune.reconstruction._regression import Regression
from autoprune.reconstruction._second_moments import IMAGES, first_images, on_device_of
from autoprune.reconstruction._sums import precise
from autoprune.reconstruction._uses import Axes, cut_of, read_fewer, why_not
from autoprune.support.modes import modes_kept, set_training
from autoprune.support.structures import call_on, mapped
from autoprune.support.usercode import guarded

POSITIONS = 64
"""Number of output positions drawn from each image. Fits on fewer rows leave more errors to later layers."""

_CHUNK = 2**23
"""Number of values in the patches that are in memory at once, at least those of one image."""

_SMALLEST_SCALE = 1e-3
"""Smallest BatchNorm scale by which a convolution's weights are divided."""


def repair_sequential(
    prunable: Prunable,
    plan: Plan,
    small: nn.Module,
    data: Iterable[Any],
    *,
    images: int = IMAGES,
    positions: int = POSITIONS,
    ridge: float | None = None,
    seed: int = 0,
    masks: Mapping[str, Tensor] | None = None,
) -> Repaired:
    """Refit all layers of a narrowed model in the order of their calls, from unlabelled images.

    Masked weights are zero before the layers behind them are fitted, which then correct the error.

    All images and the activations of one forward pass are in memory at once, on the device of `small`: use
    about 100 images of 224 px. Sums are float64, on the CPU instead of MPS, which has no float64.

    Args:
        prunable: the traced dense model.
        plan: the plan that `small` was rebuilt with.
        small: the rebuilt model with the dense model's weights.
        data: batches, each the inputs alone or a tuple that begins with them.
        images: number of images to take.
        positions: number of output positions drawn from each image.
        ridge: strength of the pull towards the weights before the fit. See `refit`.
        seed: seed of the positions.
        masks: {weight of `small`: bool tensor of its shape}, False for the weights that are zero.

    Raises:
        PlanError: the plan does not fit the model's groups.
        DataError: there is no image, or a model fails on the images.

    Reference: He, Zhang, Sun, ICCV 2017, section 3.2 (whole model) and 3.3 (residual branches).
    """
    kept = keep_positions(prunable, plan)
    model = narrow(small, {})
    if not kept:
        return Repaired(model, {})
    inputs = together(data, images)
    with unchanged(prunable.model), modes_kept(model), torch.no_grad():
        set_training(prunable.model, False)
        set_training(model, False)
        with guarded("repair: the model failed on the images", DataError, memory_passes=True):
            # The dense model runs first: it draws the positions, and gives the values that the fits aim at.
            dense_ends, ends = paired_branches(prunable.model, model, inputs)
            targets = Targets(dense_ends, positions, torch.Generator().manual_seed(seed))
            watched(prunable.model, inputs, targets)
            fits = Fits(model, ends, targets, kept, normalised_by(prunable), ridge, masks or {})
            watched(model, inputs, fits)
    left = {
        name: why_not(prunable, name) or "the model calls it more than once"
        for name in read_fewer(prunable, kept)
        if name not in fits.errors
    }
    return Repaired(model, fits.errors, left)


def watched(model: nn.Module, inputs: Any, watcher: Targets | Fits) -> None:
    """Run a model on inputs, wherever it lies, and show each of its calls to a watcher."""
    given = on_device_of(model, inputs)
    with CallCounter(watcher.before, watcher.after):
        call_on(model, given)


def together(data: Iterable[Any], images: int) -> Any:
    """Return the inputs of the first images as one batch.

    Raises:
        DataError: there is none.
    """
    batches = list(first_images(data, images))
    if not batches:
        raise DataError("repair: the data gave no images. Give a loader that is not empty.")
    with guarded("repair: batches cannot be joined", DataError, memory_passes=True):
        return pytree.tree_map(lambda *parts: torch.cat(parts), *batches)


def paired_branches(
    dense: nn.Module, small: nn.Module, inputs: Any
) -> tuple[dict[str, Branch], dict[str, Branch]]:
    """Return the branches of the dense model, and those of the small one.

    If the models make different calls, because blocks are dropped, each contraction is its own target.
    """
    # One image suffices, because the calls and their order do not depend on the batch.
    one = mapped(lambda tensor: tensor[:1], inputs)
    made, made_small = (record(model, on_device_of(model, one)) for model in (dense, small))
    found = branches(made)
    if [each.function for each in made] == [each.function for each in made_small]:
        return found, found
    small_found = branches(made_small)
    alone = (
        {name: Branch(branch.call, branch.call) for name, branch in each.items() if name in small_found}
        for each in (found, small_found)
    )
    return next(alone), next(alone)


@dataclass(eq=False)
class Targets:
    """Reads the target values of each contraction from a run of the dense model."""

    branches: Mapping[str, Branch]
    positions: int
    generator: torch.Generator
    places: dict[str, Tensor | None] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)
    contractions: dict[str, Contraction] = field(default_factory=dict)
    _calls: dict[str, Contraction] = field(default_factory=dict)
    _pending: Contraction | None = None

    def __post_init__(self) -> None:
        self._at = {branch.call: name for name, branch in self.branches.items()}
        self._aims: dict[int, list[str]] = {}
        for name, branch in self.branches.items():
            self._aims.setdefault(branch.target, []).append(name)

    def before(
        self, number: int, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Remember a contraction that is about to run."""
        self._pending = as_contraction(function, args, kwargs) if number in self._at else None

    def after(self, number: int, result: Tensor) -> None:
        """Draw the output positions of a contraction, or keep the values that are targets."""
        if self._pending is not None:
            name = self._at[number]
            self._calls[name] = self._pending
            self.places[name] = self._pending.places(result, self.positions, self.generator)
            self.shapes[name] = tuple(result.shape)
        for name in self._aims.get(number, ()):
            # A target is the contraction itself or a later call, so its places are drawn by now.
            contraction = self._calls.pop(name)
            self.values[name] = contraction.taken(result, self.places[name])
            # Only its stride, padding and shapes are needed later, so its input is freed.
            self.contractions[name] = replace(contraction, input=contraction.input.new_empty(0))


@dataclass(eq=False)
class Fits:
    """Refits each contraction of the small model just before it runs."""

    model: nn.Module
    branches: Mapping[str, Branch]
    targets: Targets
    kept: Mapping[str, Axes]
    followers: Mapping[str, str]
    ridge: float | None
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    _others: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._at = {branch.call: name for name, branch in self.branches.items()}
        self._wanted = {branch.other for branch in self.branches.values()}

    def before(
        self, number: int, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Fit a contraction that is about to run."""
        contraction = as_contraction(function, args, kwargs) if number in self._at else None
        if contraction is not None:
            self.fit(self._at[number], contraction)

    def after(self, number: int, result: Tensor) -> None:
        """Keep the terms of sums in which a later contraction ends."""
        if number in self._wanted:
            self._others[number] = result

    def fit(self, name: str, contraction: Contraction) -> None:
        """Refit one contraction from its actual inputs."""
        sums = self.sums(name, contraction)
        layer = Layer(self.model, name, self.branches[name], contraction.transposed, self.followers)
        self.errors[name] = layer.write(sums, contraction.groups, self.ridge, self.masks.get(name))

    def sums(self, name: str, contraction: Contraction) -> Regression:
        """Return the sums over the patches that a contraction reads and its target values."""
        sums = Regression()
        for rows, aims in self._rows(name, self.branches[name], contraction):
            outputs = aims.reshape(len(aims), contraction.groups, -1).transpose(0, 1)
            sums.add(rows.transpose(0, 1), outputs)
        return sums

    def _rows(self, name: str, branch: Branch, contraction: Contraction) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over float64 patches [rows, groups, patch] and targets [rows, outputs] of a few images.

        The targets are the dense values of the kept channels, minus the other term if they are a sum.
        """
        places, shape = self.targets.places[name], self.targets.shapes[name]
        on = contraction.input.device
        # Each layer is fitted once, so its values are freed here.
        values = self.targets.values.pop(name).to(on)
        places = None if places is None else places.to(on)
        if name in self.kept:
            dense = self.targets.contractions.pop(name)
            shape_of, transposed = dense.weight.shape, dense.transposed
            kept = cut_of(shape_of, self.kept[name], dense.groups, transposed=transposed).rows
            values = values[:, kept.to(values.device)]
        if branch.other is not None:
            values = values - contraction.taken(self._others[branch.other], places)
        each = len(values) // shape[0]  # rows of an image
        patch = contraction.input.shape[1 if contraction.kernel else -1] * math.prod(contraction.kernel)
        step = max(1, _CHUNK // (each * patch))
        for start in range(0, shape[0], step):
            some = slice(start, start + step)
            part = replace(contraction, input=contraction.input[some])
            rows = part.rows((len(part.input), *shape[1:]), None if places is None else places[some])
            yield precise(rows), precise(values[start * each : (start + step) * each])


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer that is refitted, with the BatchNorm behind it or its bias.

    Attributes:
        model: the model.
        name: name of the layer's weight.
        branch: its contraction and target.
        transposed: whether it is a transposed convolution.
        followers: {weight: path of the BatchNorm that follows}.
    """

    model: nn.Module
    name: str
    branch: Branch
    transposed: bool
    followers: Mapping[str, str]

    @property
    def norm(self) -> _BatchNorm | None:
        """The BatchNorm between the layer and its target."""
        return norm_of(self.model, self.name, self.followers) if self.branch.normalised else None

    @property
    def has_constant(self) -> bool:
        """Whether a BatchNorm or a bias takes the constant of a fit."""
        return self.norm is not None or bias_of(self.model, self.name) is not None

    def matrices(self, groups: int) -> Tensor:
        """Return the weight, scaled by the BatchNorm, as float64 [groups, outputs, patch]."""
        weight = precise(self.model.get_parameter(self.name).detach())
        matrices = to_matrices(weight, groups, transposed=self.transposed)
        if self.norm is None:
            return matrices
        # The target lies behind the BatchNorm, so its scale is part of the weight that is fitted.
        scale, _ = folded(self.norm)
        return matrices * scale.reshape(groups, -1, 1)

    def write(self, sums: Regression, groups: int, ridge: float | None, mask: Tensor | None = None) -> float:
        """Refit the layer from its sums. Return the share of the target's variance that is lost."""
        norm, bias = self.norm, bias_of(self.model, self.name)
        weight = self.model.get_parameter(self.name)
        old = self.matrices(groups)
        kept = None if mask is None else to_matrices(mask.to(old.device), groups, transposed=self.transposed)
        zero = None if kept is None else ~kept
        found = sums.solve(old, ridge=ridge, constant=self.has_constant, zero=zero)
        fitted, constant = found.fit.weight, found.constant.flatten()
        if norm is not None:
            scale, _ = folded(norm)
            # The convolution keeps about its old magnitude. The scale of the BatchNorm takes the rest.
            part = scale.abs().clamp_min(_SMALLEST_SCALE) * torch.where(scale < 0, -1.0, 1.0)
            fitted = fitted / part.reshape(len(old), -1, 1)
            mean, variance = found.mean.flatten() / part, found.fit.reached.flatten() / part.square()
            # The fit is part * (fitted @ inputs + own) + shift, so its constant goes without the bias `own`.
            own = torch.zeros_like(mean) if bias is None else precise(bias)
            fold_into_norm(norm, part, constant - part * own, mean + own, variance)
        elif bias is not None:
            bias.copy_(constant)
        weight.copy_(from_matrices(fitted, weight, transposed=self.transposed))
        return found.fit.error
