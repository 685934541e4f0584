"""The order of calls in a forward pass: which weight each contraction uses, and where its output is added.

Two models of one class make the same calls in the same order, whatever their widths, so a call's number pairs
the dense model's tensors with the small one's.

    found = branches(record(model, images[:1]))
    found["layer1.0.conv2.weight"]      # Branch(call=7, target=9, other=3): call 9 adds the result of call 3
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.graph.capture import call
from autoprune.reconstruction._contractions import as_contraction
from autoprune.reconstruction._watch import CallMode

_SUMS = {torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__, Tensor.__radd__, operator.add}
_PASSED_IN_EVAL = {
    functional.dropout,
    functional.dropout1d,
    functional.dropout2d,
    functional.dropout3d,
    torch.dropout,
}


@dataclass(frozen=True)
class Branch:
    """A contraction and the tensor that its fit aims at.

    Attributes:
        call: number of the contraction's call.
        target: number of the call whose result is aimed at: the contraction's own, that of the BatchNorm
            behind it, or that of the sum to which its output is added.
        other: number of the call whose result is the other term of that sum, made before the contraction;
            None if the target is no sum.
        normalised: whether a BatchNorm lies between the contraction and the target.
    """

    call: int
    target: int
    other: int | None = None
    normalised: bool = False


@dataclass(eq=False)
class _Made:
    """One call that made a tensor."""

    function: Callable[..., Any]
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    weight: str | None = None


class CallCounter(CallMode):
    """A block in which the calls that make tensors are numbered, in order, from 0.

    Args:
        before: called with (number, function, args, kwargs) before each call whose result may be a tensor.
        after: called with (number, result) after each call that made a tensor.
    """

    def __init__(
        self,
        before: Callable[[int, Callable[..., Any], tuple[Any, ...], Mapping[str, Any]], None],
        after: Callable[[int, Tensor], None],
    ) -> None:
        super().__init__()
        self._before = before
        self._after = after
        self._number = 0

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run one call and number it."""
        self._before(self._number, function, args, kwargs)
        result = function(*args, **kwargs)
        if isinstance(result, Tensor):
            self._after(self._number, result)
            self._number += 1
        return result


@dataclass(eq=False)
class _Recorder:
    """Notes every call that makes a tensor, with the calls that made its inputs."""

    names: Mapping[int, str]
    made: list[_Made] = field(default_factory=list)
    _producer: dict[int, int] = field(default_factory=dict)
    _alive: list[Tensor] = field(default_factory=list)
    _pending: _Made | None = None

    def before(
        self, number: int, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Note who made the inputs; an operator in place may give its input another maker."""
        leaves = [leaf for leaf in pytree.tree_leaves((args, dict(kwargs))) if isinstance(leaf, Tensor)]
        inputs = tuple(self._producer[id(leaf)] for leaf in leaves if id(leaf) in self._producer)
        contraction = as_contraction(function, args, kwargs)
        weight = None if contraction is None else self.names.get(id(contraction.weight))
        self._pending = _Made(function, inputs, (), weight)

    def after(self, number: int, result: Tensor) -> None:
        """Note the tensor; it is kept, so that no later one has its identity."""
        if self._pending is None:
            raise RuntimeError("a call ended that did not begin")
        self._pending.shape = tuple(result.shape)
        self.made.append(self._pending)
        self._alive.append(result)
        self._producer[id(result)] = number


def record(model: nn.Module, inputs: tuple[Any, ...]) -> list[_Made]:
    """Run the model once and return its calls; the model is in eval mode already."""
    recorder = _Recorder({id(parameter): name for name, parameter in model.named_parameters()})
    with torch.no_grad(), CallCounter(recorder.before, recorder.after):
        call(model, inputs)
    return recorder.made


def branches(made: list[_Made]) -> dict[str, Branch]:
    """Return, for each weight that one contraction uses, the tensor that its fit should aim at.

    Where two contractions meet in a sum, the later one makes up for the error of the earlier.
    """
    readers: dict[int, list[int]] = {}
    for number, each in enumerate(made):
        for source in set(each.inputs):
            readers.setdefault(source, []).append(number)
    uses: dict[str, list[int]] = {}
    for number, each in enumerate(made):
        if each.weight is not None:
            uses.setdefault(each.weight, []).append(number)
    return {weight: _branch(made, readers, calls[0]) for weight, calls in uses.items() if len(calls) == 1}


def _branch(made: list[_Made], readers: Mapping[int, list[int]], first: int) -> Branch:
    """Follow the output of a contraction as far as one call after the other alone reads it."""
    place, normalised = first, False
    while len(following := readers.get(place, [])) == 1:
        reader = made[following[0]]
        if reader.function is functional.batch_norm and not normalised:
            normalised = True
        elif reader.function in _SUMS and len(reader.inputs) == 2:
            other = next((number for number in reader.inputs if number != place), None)
            if other is not None and other < first and made[other].shape == reader.shape:
                return Branch(first, following[0], other, normalised)
            break
        elif reader.function not in _PASSED_IN_EVAL:
            break
        place = following[0]
    return Branch(first, place, None, normalised)
