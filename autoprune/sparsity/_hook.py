"""The hook that applies a penalty to a model in training, and records its scales as they change."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.criteria import scale_members
from autoprune.errors import ConfigError, shown_value
from autoprune.graph import Plan, Prunable
from autoprune.sparsity._history import ScaleHistory
from autoprune.sparsity._penalties import PenaltyInput
from autoprune.sparsity._specs import PenaltySpec
from autoprune.support.rows import guarding
from autoprune.training import Moment, StepHook


class PenaltyHook(StepHook):
    """Adds the gradient of a penalty after each backward pass, or takes a proximal step after each step.

    Args:
        prunable: the traced model, whose groups are those of the model in training.
        name: of the penalty, for messages and the identity.
        spec: the penalty.
        strength: factor of the penalty.
        every: steps between two records of the scales.
        plan: the channels to keep, for penalties that act on those to be cut.
        options: arguments of the penalty by name.
    """

    def __init__(
        self,
        prunable: Prunable,
        name: str,
        spec: PenaltySpec,
        strength: float,
        *,
        every: int,
        plan: Plan | None = None,
        options: Mapping[str, float] | None = None,
    ) -> None:
        self._prunable = prunable
        self._name = name
        self._spec = spec
        self._strength = strength
        self._every = every
        self._options = dict(options or {})
        self._going = _going(prunable, plan) if plan is not None else {}
        self._places: list[tuple[nn.Parameter, Tensor | None]] = []
        self._records: list[tuple[int, NDArray[np.float64]]] = []
        self.identity = self._identify(plan)

    @property
    def history(self) -> ScaleHistory:
        """The scales that were recorded so far."""
        steps = tuple(step for step, _ in self._records)
        return ScaleHistory(steps, tuple(scales for _, scales in self._records))

    def begin(self, model: nn.Module) -> None:
        """Find the scales in the model, and record them as they are before the training."""
        self._places = scale_places(model, self._prunable)
        self._records = []
        self._record(model, 0)

    def after_backward(self, model: nn.Module, moment: Moment) -> None:
        """Add the gradient of the penalty, unless it takes proximal steps."""
        if self._spec.proximal is not None or self._strength == 0:
            return
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        value = self._strength * self._value(model, moment)
        gradients = torch.autograd.grad(value, trained, allow_unused=True)
        for parameter, gradient in zip(trained, gradients, strict=True):
            if gradient is not None and parameter.grad is not None:
                parameter.grad.add_(gradient)
            elif gradient is not None:
                parameter.grad = gradient

    @torch.no_grad()
    def after_step(self, model: nn.Module, moment: Moment) -> None:
        """Take the proximal step, and record the scales if it is time."""
        if self._spec.proximal is not None:
            for parameter, index in self._places:
                scale = parameter if index is None else parameter[index]
                # A gradient step on strength x penalty is proportional to this product as well.
                shrunk = self._spec.proximal(scale, self._strength * moment.learning_rate)
                parameter[slice(None) if index is None else index] = shrunk
        if (moment.step + 1) % self._every == 0 or moment.step + 1 == moment.total:
            self._record(model, moment.step + 1)

    def state(self) -> dict[str, Any]:
        """Return the records."""
        return {"records": [[step, torch.from_numpy(scales)] for step, scales in self._records]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the records back."""
        self._records = [(step, scales.numpy()) for step, scales in state["records"]]

    def _value(self, model: nn.Module, moment: Moment) -> Tensor:
        scales = tuple(parameter if index is None else parameter[index] for parameter, index in self._places)
        given = PenaltyInput(
            model, self._prunable.searchable, scales, moment.step / moment.total, self._going
        )
        with torch.enable_grad(), guarding(self._name, "sparsify.penalty"):
            value: object = self._spec.penalty(given, **self._options)
        if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
            raise ConfigError(
                f'sparsify.penalty: "{self._name}" gave {shown_value(value)}, expected a scalar tensor with '
                "a gradient, computed from the scales or the parameters."
            )
        return value.reshape(())

    def _record(self, model: nn.Module, step: int) -> None:
        ranked = self._spec.ranked(model, self._prunable)
        self._records.append((step, np.concatenate([np.empty(0), *ranked.values()])))

    def _identify(self, plan: Plan | None) -> str:
        digest = hashlib.sha256(self._prunable.fingerprint.encode())
        for name, index in sorted((plan or {}).items()):
            digest.update(name.encode() + index.tobytes())
        options = "".join(f", {name}={value!r}" for name, value in sorted(self._options.items()))
        return f"{self._name} {self._strength!r}{options}, every {self._every}: {digest.hexdigest()[:16]}"


def scale_places(model: nn.Module, prunable: Prunable) -> list[tuple[nn.Parameter, Tensor | None]]:
    """Return the trainable BatchNorm scales of searchable groups, and their positions if not all belong."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    positions: dict[str, list[NDArray[np.int64]]] = {}
    for group in prunable.searchable:
        for member in scale_members(prunable.model, group):
            if parameters[member.parameter].requires_grad:
                positions.setdefault(member.parameter, []).append(member.index.reshape(-1))
    places: list[tuple[nn.Parameter, Tensor | None]] = []
    for name, parts in positions.items():
        parameter, index = parameters[name], np.unique(np.concatenate(parts))
        whole = len(index) == len(parameter)
        places.append((parameter, None if whole else torch.from_numpy(index).to(parameter.device)))
    return places


def _going(prunable: Prunable, plan: Plan) -> dict[str, NDArray[np.int64]]:
    prunable.check(plan)
    return {name: np.setdiff1d(np.arange(prunable.group(name).width), kept) for name, kept in plan.items()}
