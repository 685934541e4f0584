"""Run copies of a model on the meta device with blocks dropped.

Example:
    check = BlockCheck(skeleton, inputs, trains=True)
    check.offered([[stand_ins, other_stand_ins], ...])     # for each block the first that run, or None
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.graph.blocks import StandIn
from autoprune.graph.capture import ExampleInputs, call, repeat_batch, unchanged
from autoprune.rebuilding import narrow
from autoprune.support.modes import set_training

StandIns = tuple[StandIn, ...]


@dataclass(frozen=True, eq=False)
class BlockCheck:
    """The check of one model.

    Attributes:
        skeleton: the model with tensors that have no data.
        inputs: the example inputs on the meta device.
        trains: whether the dense model runs in train mode.
        target: path of the submodule that runs, or "" for the model.
    """

    skeleton: nn.Module
    inputs: ExampleInputs
    trains: bool
    target: str = ""

    def offered(self, tried: Sequence[Sequence[StandIns]]) -> list[StandIns | None]:
        """Return for each block the first of its stand-ins with which the model runs, or None.

        All blocks are dropped at once. Only if that fails, each is dropped alone.
        """
        if not tried:
            return []
        dense = _Outputs({each.path for ways in tried for each in ways[0]})
        shapes = self._run(self.skeleton, dense)
        if shapes is None:
            return [None] * len(tried)
        ways = [[way for each in block for way in [dense.fitted(each)] if way is not None] for block in tried]
        chosen: list[StandIns | None] = [block[0] if block else None for block in ways]
        if not self._fits(chosen, shapes):
            chosen = [next((way for way in block if self._fits([way], shapes)), None) for block in ways]
        return chosen if self._fits(chosen, shapes) else [None] * len(tried)

    def _fits(self, dropped: Sequence[StandIns | None], shapes: list[torch.Size]) -> bool:
        stand_ins = [each for block in dropped if block is not None for each in block]
        return self._run(narrow(self.skeleton, {}, stand_ins), None) == shapes

    def _run(self, model: nn.Module, watch: _Outputs | None) -> list[torch.Size] | None:
        """Run a model in eval mode, and in train mode if the dense one can, or return None if it fails.

        Returns:
            The shapes of all outputs.
        """
        shapes = []
        with torch.no_grad(), torch.device("meta"), unchanged(model):
            for training in (False, True) if self.trains else (False,):
                set_training(model, training)
                if watch is not None:
                    watch.hook(model)
                try:
                    outputs = call(
                        model, repeat_batch(self.inputs, 2) if training else self.inputs, self.target
                    )
                except Exception:  # the model's own code may raise anything
                    return None
                shapes += [leaf.shape for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]
        return shapes


class _Outputs:
    """The kinds of results of some modules: {path: number of items of the tuple, or 0 for a tensor}."""

    def __init__(self, paths: set[str]) -> None:
        self._paths = paths
        self._kinds: dict[str, set[int | None]] = {path: set() for path in paths}

    def hook(self, model: nn.Module) -> None:
        """Record the results of the next calls."""
        for path in self._paths:
            kinds = self._kinds[path]

            def record(
                module: nn.Module, inputs: Any, outputs: object, kinds: set[int | None] = kinds
            ) -> None:
                kinds.add(_kind(outputs))

            model.get_submodule(path).register_forward_hook(record)

    def fitted(self, stand_ins: StandIns) -> StandIns | None:
        """Return the stand-ins with the results of their modules, or None if a module has another result."""
        fitted = []
        for each in stand_ins:
            kinds = self._kinds[each.path]
            kind = next(iter(kinds)) if len(kinds) == 1 else None
            if kind is None:
                return None
            fitted.append(replace(each, outputs=kind))
        return tuple(fitted)


def _kind(outputs: object) -> int | None:
    if isinstance(outputs, Tensor):
        return 0
    if type(outputs) is tuple and outputs and isinstance(outputs[0], Tensor):
        return len(outputs) if all(each is None for each in outputs[1:]) else None
    return None
