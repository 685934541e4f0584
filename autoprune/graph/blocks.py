"""Droppable blocks: residual branches that a plan may leave out, and the modules that take their place.

A block is a group of width {0, 1}. The shortcut of a dropped block stays, and its branch adds nothing to it.

Example:
    block = prunable.blocks[0]
    block.name, block.groups                # "layer1.0:branch", ("layer1.0.conv1",)
    make_plan(prunable, {block.name: 0}).dropped      # ("layer1.0:branch",)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

SUFFIX = ":branch"
"""Ending of the names of blocks. No channel group has it."""

Gives = Literal["nothing", "zero", "zeros"]


class Dropped(nn.Module):
    """Takes the place of a module of a dropped branch. It has no parameters and computes no layer.

    The model's own code still runs around it, so its result must pass through this code. The last module of a
    branch returns the number 0.0, which can be added to a tensor of any shape. If the code works on the
    result before the sum, it returns a tensor of one zero instead. The modules before it return a tensor of
    one zero, on which further operators cost nothing. If the code needs a tensor of the full shape, all of
    them return zeros like their input.

    Args:
        gives: "nothing" for 0.0, "zero" for a tensor of one zero, or "zeros" for zeros like the input.
        outputs: number of items of the tuple that is returned, the zero and then None, or 0 for no tuple.
    """

    def __init__(self, gives: Gives, outputs: int = 0) -> None:
        super().__init__()
        self.gives = gives
        self.outputs = outputs

    def extra_repr(self) -> str:
        """Return the arguments as `print(model)` shows them."""
        return self.gives if not self.outputs else f"{self.gives}, outputs={self.outputs}"

    def forward(self, *inputs: object, **named: object) -> object:
        """Return the zero, whatever the inputs are."""
        zero = self._zero((inputs, named))
        return (zero, *[None] * (self.outputs - 1)) if self.outputs else zero

    def _zero(self, inputs: object) -> Tensor | float:
        tensor = next((leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)), None)
        if self.gives == "nothing" or tensor is None:
            return 0.0
        return torch.zeros_like(tensor) if self.gives == "zeros" else tensor.new_zeros([1] * tensor.ndim)


@dataclass(frozen=True)
class StandIn:
    """The place of one `Dropped` in a model. `path` is that of the module that it replaces."""

    path: str
    gives: Gives
    outputs: int = 0

    def make(self) -> Dropped:
        """Make the module."""
        return Dropped(self.gives, self.outputs)


@dataclass(frozen=True, eq=False)
class Block:
    """A branch that is added to a shortcut, and that a plan may drop.

    Attributes:
        name: the module that holds the branch, and ":branch". It is unique in a model.
        stand_ins: the modules that are replaced, under each of their paths.
        groups: names of the channel groups that live inside the branch alone.
        tensors: names of the parameters and buffers that go with the branch.
        nodes: names of the nodes of the eval graph that compute the branch alone.
        sums: {name of the node that adds the branch: position of the branch among its arguments}.
    """

    name: str
    stand_ins: tuple[StandIn, ...]
    groups: tuple[str, ...]
    tensors: frozenset[str]
    nodes: frozenset[str]
    sums: dict[str, int]

    def __repr__(self) -> str:
        """Return the name and the replaced modules in one line."""
        return f"<Block {self.name}: {', '.join(each.path for each in self.stand_ins)}>"


def stand_ins_of(model: nn.Module) -> tuple[StandIn, ...]:
    """Return the places of all `Dropped` modules in a model."""
    named = model.named_modules(remove_duplicate=False)
    return tuple(StandIn(path, m.gives, m.outputs) for path, m in named if isinstance(m, Dropped))


def replaced_by(model: nn.Module, stand_ins: Iterable[StandIn]) -> Iterator[tuple[nn.Module, Dropped]]:
    """Iterate over the modules that stand-ins replace, each once, with the new module in its place."""
    made: set[int] = set()
    for each in stand_ins:
        module = model.get_submodule(each.path)
        if id(module) not in made:
            made.add(id(module))
            yield module, each.make()
