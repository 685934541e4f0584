"""The example inputs that travel with a rebuilt model, so that exporting it needs no more from the user.

Before: `rebuild` notes the traced model's inputs on the smaller one, `load_pruned` those of the recipe.
After: `export` reads them where it is given none.

    note_example(small, prunable.example_inputs)
    example_of(small)      # (tensor [1, 3, 32, 32],)
"""

from __future__ import annotations

from torch import nn

from autoprune.graph.capture import ExampleInputs

_ATTRIBUTE = "_autoprune_example_inputs"


def note_example(model: nn.Module, inputs: ExampleInputs) -> None:
    """Note example inputs (positional in a tuple, or by keyword in a dict) on a model of ours."""
    model.__dict__[_ATTRIBUTE] = inputs


def example_of(model: nn.Module) -> ExampleInputs | None:
    """Return the example inputs noted on the model, or None."""
    inputs: ExampleInputs | None = model.__dict__.get(_ATTRIBUTE)
    return inputs
