"""The recipe of a pruned model: all that it needs besides its tensors and the dense architecture.

Example:
    recipe = read_recipe("best/")
    recipe.plan.widths          # {"layer1.0.conv1": 8, ...}
    recipe.tensors["conv1.weight"].shape
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.exporting._recipe_schema import DTYPES, FORMAT, VERSION, RecipeFile
from autoprune.graph.attached import example_of, target_of
from autoprune.graph.blocks import StandIn, stand_ins_of
from autoprune.graph.capture import ExampleInputs, named_tensors
from autoprune.graph.patches import Patch, read_patches
from autoprune.graph.plan import Plan

_LAYOUTS: Mapping[str, torch.memory_format] = {
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
    "channels_last_3d": torch.channels_last_3d,
}


@dataclass(frozen=True)
class Leaf:
    """One stored tensor.

    Attributes:
        shape: shape of the tensor.
        dtype: torch's name of its type, such as "float32".
        kind: "parameter" or "buffer".
        requires_grad: whether it is trained.
        layout: "contiguous", "channels_last" or "channels_last_3d".
    """

    shape: tuple[int, ...]
    dtype: str
    kind: str
    requires_grad: bool
    layout: str = "contiguous"

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout as a `torch.memory_format`."""
        return _LAYOUTS[self.layout]


@dataclass(frozen=True)
class Recipe:
    """The contents of `recipe.json`.

    Attributes:
        tensors: {first name of each stored tensor: its description}, with non-persistent buffers.
        ties: {other name: first name} of tensors that several modules share.
        patches: numbers of modules that follow from the shapes.
        plan: the keep indices.
        dropped: the places of the modules that add nothing, in dropped blocks.
        inputs: shapes and dtypes of the example inputs, a list if positional, a dict if by keyword, or None.
        target: path of the submodule whose inputs these are, or "" for the model.
        extra: JSON values that the caller added.
        digest: SHA-256 of the file with the tensors.
    """

    tensors: Mapping[str, Leaf]
    ties: Mapping[str, str]
    patches: tuple[Patch, ...]
    plan: Plan
    dropped: tuple[StandIn, ...] = ()
    inputs: list[Any] | dict[str, Any] | None = None
    target: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""

    @property
    def leaves(self) -> dict[str, Leaf]:
        """{name: its description}, with all names of shared tensors."""
        return {**self.tensors, **{name: self.tensors[first] for name, first in self.ties.items()}}


def named_leaves(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return {first name: tensor} of all parameters and buffers, and the ties {other name: first name}."""
    first: dict[int, str] = {}
    leaves: dict[str, Tensor] = {}
    ties: dict[str, str] = {}
    for name, tensor in named_tensors(model, shared=True):
        if id(tensor) in first:
            ties[name] = first[id(tensor)]
        else:
            first[id(tensor)] = name
            leaves[name] = tensor
    return leaves, ties


def describe(model: nn.Module, plan: Plan, extra: Mapping[str, object]) -> Recipe:
    """Return the recipe of a model, with an empty digest."""
    leaves, ties = named_leaves(model)
    return Recipe(
        tensors={
            name: Leaf(
                shape=tuple(tensor.shape),
                dtype=str(tensor.dtype).removeprefix("torch."),
                kind="parameter" if isinstance(tensor, nn.Parameter) else "buffer",
                requires_grad=tensor.requires_grad,
                layout=_layout(tensor),
            )
            for name, tensor in leaves.items()
        },
        ties=ties,
        patches=tuple(read_patches(model)),
        plan=plan,
        dropped=stand_ins_of(model),
        inputs=_describe_inputs(example_of(model)),
        target=target_of(model),
        extra=dict(extra),
    )


def to_json(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as JSON values."""
    dropped = [[each.path, each.gives, each.outputs] for each in recipe.dropped]
    return {
        "format": FORMAT,
        "version": VERSION if recipe.target else 2 if dropped else 1,
        "digest": recipe.digest,
        "widths": recipe.plan.widths,
        "inputs": recipe.inputs,
        "extra": recipe.extra,
        "tensors": {
            name: [list(leaf.shape), leaf.dtype, leaf.kind, leaf.requires_grad, leaf.layout]
            for name, leaf in recipe.tensors.items()
        },
        "ties": recipe.ties,
        "patches": [[patch.module, patch.attribute, patch.value] for patch in recipe.patches],
        "keep": {name: index.tolist() for name, index in recipe.plan.items()},
        **({"dropped": dropped} if dropped else {}),
        **({"target": recipe.target} if recipe.target else {}),
    }


def from_file(values: RecipeFile) -> Recipe:
    """Return the recipe in a checked file."""
    inputs = values.model_dump(include={"inputs"})["inputs"]
    return Recipe(
        tensors={
            name: Leaf(tuple(leaf.shape), leaf.dtype, leaf.kind, leaf.requires_grad, leaf.layout)
            for name, leaf in values.tensors.items()
        },
        ties=dict(values.ties),
        patches=tuple(Patch(each.module, each.attribute, each.value) for each in values.patches),
        plan=Plan({name: np.array(index, dtype=np.int64) for name, index in values.keep.items()}),
        dropped=tuple(StandIn(each.path, each.gives, each.outputs) for each in values.dropped),
        inputs=inputs,
        target=values.target,
        extra=dict(values.extra),
        digest=values.digest,
    )


def example_from(recipe: Recipe) -> ExampleInputs | None:
    """Make example inputs of zeros with the recorded shapes and dtypes, and keep values of other types."""
    if isinstance(recipe.inputs, dict):
        return {name: _zeros(value) for name, value in recipe.inputs.items()}
    return None if recipe.inputs is None else tuple(_zeros(value) for value in recipe.inputs)


def _layout(tensor: Tensor) -> str:
    """Return the memory layout of a tensor. The last bit of a model's outputs depends on it."""
    if not tensor.is_contiguous():
        for name, ndim in (("channels_last", 4), ("channels_last_3d", 5)):
            if tensor.ndim == ndim and tensor.is_contiguous(memory_format=_LAYOUTS[name]):
                return name
    return "contiguous"


def _describe_inputs(inputs: ExampleInputs | None) -> list[Any] | dict[str, Any] | None:
    values = inputs.values() if isinstance(inputs, dict) else inputs or ()
    if not all(isinstance(value, (Tensor, int, float, str, type(None))) for value in values):
        return None
    if isinstance(inputs, dict):
        return {name: _describe_input(value) for name, value in inputs.items()}
    return None if inputs is None else [_describe_input(value) for value in inputs]


def _describe_input(value: object) -> Any:
    if isinstance(value, Tensor):
        return {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    return value


def _zeros(value: Any) -> Any:
    if isinstance(value, dict):
        return torch.zeros(value["shape"], dtype=DTYPES[value["dtype"]])
    return value
