"""The state that goes from stage to stage of a flow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import nn

from autoprune.graph import Plan, Prunable
from autoprune.masks import Masks
from autoprune.score import with_model
from autoprune.tracing import trace


@dataclass(frozen=True, eq=False)
class FlowState:
    """A model on its way through one pass of a flow.

    Attributes:
        number: number of the pass, from 1.
        prunable: the traced model with which the pass began, or with the weights that a stage before the cut
            trained.
        done: the plan by which the passes before cut the original dense model.
        cut: the plan of this pass for `prunable`, or None before "select".
        small: the model that the cut leaves, or None before "rebuild".
        target: {group: width after the last pass}, if each pass narrows a part of the model, or None before
            it is chosen.
        masks: of the parameters of `model`. Without masks the mapping is empty.
    """

    number: int
    prunable: Prunable
    done: Plan = field(default_factory=lambda: Plan({}))
    cut: Plan | None = None
    small: nn.Module | None = None
    target: Mapping[str, int] | None = None
    masks: Masks = field(default_factory=lambda: Masks({}))

    @property
    def model(self) -> nn.Module:
        """The model as it is now. No stage changes it in place."""
        return self.prunable.model if self.small is None else self.small

    @property
    def plan(self) -> Plan:
        """The plan by which `model` is cut from the original dense model."""
        return self.done if self.small is None or self.cut is None else self.done.then(self.cut)

    def with_weights(self, model: nn.Module) -> FlowState:
        """Return the state with a model that differs from `self.model` in its weights alone."""
        if self.small is None:
            return replace(self, prunable=with_model(self.prunable, model))
        return replace(self, small=model)

    def traced(self, origin: Prunable) -> Prunable:
        """Return `model` as a traced model, with the groups that are left of the original dense model."""
        return self.prunable if self.small is None else retraced(self.small, origin, self.plan)

    def next_pass(self, origin: Prunable) -> FlowState:
        """Return the state at the beginning of the next pass of a flow of an original dense model."""
        prunable = self.traced(origin)
        return FlowState(self.number + 1, prunable, self.plan, target=self.target, masks=self.masks)


def retraced(model: nn.Module, origin: Prunable, plan: Plan) -> Prunable:
    """Trace a model that a plan cut from another one. Modules that were frozen there are frozen in it too."""
    return trace(model, origin.example_inputs, rebuilt_from=(origin, plan), watch=None)
