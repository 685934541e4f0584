"""Number the calls in a forward pass, and find the weight of each contraction and the sum that it ends in.

Two models of one class make the same calls in the same order at all widths. So the number of a call pairs the
dense model's tensors with the small model's.

Example:
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

from autoprune.reconstruction._contractions import as_contraction
from autoprune.reconstruction._watch import CallMode
from autoprune.support.structures import call_on

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
    """A contraction and the target of its fit.

    Attributes:
        call: number of the contraction's call.
        target: number of the call whose result is the target. It is the contraction itself, the BatchNorm
            after it, or the sum to which its output is added.
        other: number of the call that returned the other term of that sum, before the contraction ran. None
            if the target is not a sum.
        normalised: whether there is a BatchNorm between the contraction and the target.
    """

    call: int
    target: int
    other: int | None = None
    normalised: bool = False


@dataclass(eq=False)
class _Made:
    """One call that returned a tensor.

    Attributes:
        function: the function that was called.
        inputs: numbers of the calls that returned its inputs.
        shape: shape of the tensor.
        weight: name of the weight, if the call is a contraction with a parameter.
    """

    function: Callable[..., Any]
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    weight: str | None = None


class CallCounter(CallMode):
    """A block in which the calls that return tensors are numbered in order, from 0.

    Args:
        before: called with (number, function, args, kwargs) before each call that may return a tensor.
        after: called with (number, result) after each call that returned a tensor.
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
    """Records every call that returns a tensor, with the calls that returned its inputs."""

    names: Mapping[int, str]
    made: list[_Made] = field(default_factory=list)
    _producer: dict[int, int] = field(default_factory=dict)
    _alive: list[Tensor] = field(default_factory=list)
    _pending: _Made | None = None

    def before(
        self, number: int, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Record the calls that returned the inputs. An in-place operator replaces the entry of its input."""
        leaves = [leaf for leaf in pytree.tree_leaves((args, dict(kwargs))) if isinstance(leaf, Tensor)]
        inputs = tuple(self._producer[id(leaf)] for leaf in leaves if id(leaf) in self._producer)
        contraction = as_contraction(function, args, kwargs)
        weight = None if contraction is None else self.names.get(id(contraction.weight))
        self._pending = _Made(function, inputs, (), weight)

    def after(self, number: int, result: Tensor) -> None:
        """Record the tensor, and keep it alive: otherwise a later tensor might get the same id."""
        if self._pending is None:
            raise RuntimeError("a call ended that did not begin")
        self._pending.shape = tuple(result.shape)
        self.made.append(self._pending)
        self._alive.append(result)
        self._producer[id(result)] = number


def record(model: nn.Module, inputs: Any) -> list[_Made]:
    """Run a model, which must be in eval mode, once and return its calls."""
    recorder = _Recorder({id(parameter): name for name, parameter in model.named_parameters()})
    with torch.no_grad(), CallCounter(recorder.before, recorder.after):
        call_on(model, inputs)
    return recorder.made


def branches(made: list[_Made]) -> dict[str, Branch]:
    """Return {weight: its contraction and target} of the weights that exactly one contraction uses.

    If two contractions are added up, the target of the later one is the sum, so that it corrects the error of
    the earlier one too.
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
    """Follow the output of a contraction through calls that are its only readers, at most up to a sum.

    A BatchNorm and layers without effect in eval mode may lie on the way.
    """
    place, normalised = first, False
    while len(following := readers.get(place, [])) == 1:
        reader = made[following[0]]
        if reader.function is functional.batch_norm and not normalised:
            normalised = True
        elif reader.function in _SUMS and len(reader.inputs) == 2:
            other = next((number for number in reader.inputs if number != place), None)
            # The fit takes place just before the contraction runs, so the other term must be there by then. A
            # term that is broadcast has no value for each position of the sum.
            if other is not None and other < first and made[other].shape == reader.shape:
                return Branch(first, following[0], other, normalised)
            break
        elif reader.function not in _PASSED_IN_EVAL:
            break
        place = following[0]
    return Branch(first, place, None, normalised)
