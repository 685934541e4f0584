"""Example inputs and plan that a rebuilt model carries, so that `export` and `save_pruned` need no more.

Example:
    note_example(small, prunable.example_inputs)
    example_of(small)      # (tensor [1, 3, 32, 32],)
"""

from __future__ import annotations

from torch import nn

from autoprune.graph.capture import ExampleInputs
from autoprune.graph.plan import Plan

_ATTRIBUTE = "_autoprune_example_inputs"
_TARGET = "_autoprune_target"
_PLAN = "_autoprune_plan"


def note_example(model: nn.Module, inputs: ExampleInputs, target: str = "") -> None:
    """Store example inputs on a rebuilt model: positional in a tuple, or by keyword in a dict.

    With a target, they are the inputs of that submodule.
    """
    model.__dict__[_ATTRIBUTE] = inputs
    model.__dict__[_TARGET] = target


def target_of(model: nn.Module) -> str:
    """Return the path of the submodule whose example inputs are stored, or "" for the model."""
    return str(model.__dict__.get(_TARGET, ""))


def example_of(model: nn.Module) -> ExampleInputs | None:
    """Return the example inputs that `note_example` stored on the model, or None."""
    inputs: ExampleInputs | None = model.__dict__.get(_ATTRIBUTE)
    return inputs


def note_plan(model: nn.Module, plan: Plan) -> None:
    """Store its plan on a rebuilt model."""
    model.__dict__[_PLAN] = plan


def plan_of(model: nn.Module) -> Plan | None:
    """Return the plan that `note_plan` stored on the model, or None."""
    plan: Plan | None = model.__dict__.get(_PLAN)
    return plan
