"""Notes that travel with a rebuilt model, so that exporting it needs no more from the user.

`rebuild` and `load_pruned` write them: the example inputs of the traced model, and the plan.

    note_example(small, prunable.example_inputs)
    example_of(small)      # (tensor [1, 3, 32, 32],)
    note_plan(small, plan)
    plan_of(small)         # the plan
"""

from __future__ import annotations

from torch import nn

from autoprune.graph.capture import ExampleInputs
from autoprune.graph.plan import Plan

_ATTRIBUTE = "_autoprune_example_inputs"
_PLAN = "_autoprune_plan"


def note_example(model: nn.Module, inputs: ExampleInputs) -> None:
    """Note example inputs (positional in a tuple, or by keyword in a dict) on a model of ours."""
    model.__dict__[_ATTRIBUTE] = inputs


def example_of(model: nn.Module) -> ExampleInputs | None:
    """Return the example inputs noted on the model, or None."""
    inputs: ExampleInputs | None = model.__dict__.get(_ATTRIBUTE)
    return inputs


def note_plan(model: nn.Module, plan: Plan) -> None:
    """Note the plan of a model of ours."""
    model.__dict__[_PLAN] = plan


def plan_of(model: nn.Module) -> Plan | None:
    """Return the plan noted on the model, or None."""
    plan: Plan | None = model.__dict__.get(_PLAN)
    return plan
