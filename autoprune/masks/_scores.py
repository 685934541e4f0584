"""The scores that rank weights: their size, the effect of removing them on the loss, or their inputs too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from autoprune.errors import MaskError
from autoprune.support.modes import modes_kept, set_training
from autoprune.support.rows import Row
from autoprune.support.structures import call_on, moved

LossFunction: TypeAlias = Callable[[Any, Any], Tensor]


@dataclass(frozen=True, eq=False)
class ScoreInput:
    """The input of a score, which changes none of it.

    Attributes:
        model: the model, in eval mode.
        weights: {parameter: weight [out, in, *kernel]} of the layers to mask.
        data: batches (inputs, targets), or None.
        loss: (outputs, targets) -> scalar.
    """

    model: nn.Module
    weights: Mapping[str, nn.Parameter]
    data: Iterable[Any] | None
    loss: LossFunction

    def batches(self) -> Iterable[tuple[Any, Any]]:
        """Iterate over the data on the model's device."""
        device = next(self.model.parameters()).device
        for inputs, targets in self.data or ():
            yield moved(inputs, device), moved(targets, device)


Score: TypeAlias = Callable[[ScoreInput], Mapping[str, Tensor]]
"""Gives {parameter: score of each weight}. Weights with higher scores stay."""


def magnitude(given: ScoreInput) -> dict[str, Tensor]:
    """Score a weight by its absolute value.

    Reference: Han et al., Learning both Weights and Connections, NeurIPS 2015, section 3.
    """
    return {name: weight.detach().abs() for name, weight in given.weights.items()}


def gradient(given: ScoreInput) -> dict[str, Tensor]:
    """Score a weight by |weight times gradient of the loss|, the gradient summed over all batches.

    Reference: Lee et al., SNIP, ICLR 2019, section 4, equation 5.
    """
    total = {name: torch.zeros_like(weight) for name, weight in given.weights.items()}
    for inputs, targets in given.batches():
        with torch.enable_grad():
            loss = given.loss(call_on(given.model, inputs), targets)
            found = torch.autograd.grad(loss, list(given.weights.values()), allow_unused=True)
        for name, each in zip(given.weights, found, strict=True):
            if each is not None:
                total[name] += each
    return {name: (weight.detach() * total[name]).abs() for name, weight in given.weights.items()}


def activation(given: ScoreInput) -> dict[str, Tensor]:
    """Score a weight by its absolute value times the norm of its input over all samples and positions.

    Reference: Sun et al., A Simple and Effective Pruning Approach for Large Language Models (Wanda), ICLR
    2024, section 3. It scores linear layers. The input of a convolution's weight is its input channel here.
    """
    squares: dict[str, Tensor] = {}
    owners = {name: given.model.get_submodule(name.rpartition(".")[0]) for name in given.weights}

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def add(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            # Counted from the end, so that images without a batch axis are read correctly too.
            axis = -1 if isinstance(module, nn.Linear) else 1 - given.weights[name].ndim
            channels = inputs[0].detach().movedim(axis, -1).flatten(0, -2)
            squares[name] = squares.get(name, 0) + channels.double().square().sum(0)

        return add

    handles = [module.register_forward_pre_hook(watch(name)) for name, module in owners.items()]
    try:
        for inputs, _ in given.batches():
            call_on(given.model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return {
        name: weight.detach().abs() * _by_input(squares[name].sqrt().to(weight.dtype), weight)
        if name in squares
        else torch.zeros_like(weight)
        for name, weight in given.weights.items()
    }


def _by_input(norms: Tensor, weight: Tensor) -> Tensor:
    """Return the norms [inputs] in the shape of a weight, whose outputs may come in groups."""
    groups = len(norms) // weight.shape[1]
    rows = norms.reshape(groups, weight.shape[1]).repeat_interleave(weight.shape[0] // groups, dim=0)
    return rows.reshape(*rows.shape, *[1] * (weight.ndim - 2))


@dataclass(frozen=True)
class ScoreSpec(Row):
    """A row of SCORES.

    Attributes:
        score: gives the score of each weight.
        needs: its input in addition to the weights: "images", or "gradients" (images and targets).
    """

    score: Score
    needs: Literal["weights", "images", "gradients"] = "weights"

    def scores(self, name: str, given: ScoreInput) -> dict[str, Tensor]:
        """Return the checked scores.

        Raises:
            MaskError: data are missing, or a score has the wrong shape or is not finite.
        """
        if self.needs != "weights" and given.data is None:
            raise MaskError(f'score "{name}": needs {self.needs}. Give data, batches (inputs, targets).')
        with modes_kept(given.model), torch.no_grad():
            set_training(given.model, False)
            found = dict(self.score(given))
        for parameter, weight in given.weights.items():
            score = found.get(parameter)
            if score is None or score.shape != weight.shape or not bool(torch.isfinite(score).all()):
                raise MaskError(
                    f'score "{name}": {parameter} needs a finite score of shape {list(weight.shape)}, got '
                    f"{'none' if score is None else list(score.shape)}."
                )
        return found


SCORES: Mapping[str, ScoreSpec] = {
    "magnitude": ScoreSpec(magnitude, about="the absolute value of a weight"),
    "gradient": ScoreSpec(gradient, needs="gradients", about="a weight times its gradient on images"),
    "activation": ScoreSpec(
        activation, needs="images", about="the absolute value times the norm of the input"
    ),
}
"""Name -> score. `about` names the quantity that ranks the weights."""
