"""Split a model into operators, whose latencies add up to the model's, and find the sizes of each.

A runtime makes calls (ATen calls, nodes of an ONNX graph), each with a kind and numbers. A call that
multiplies matrices begins an operator. Calls that follow it on the same channels, such as its BatchNorm and
its ReLU, belong to the operator, because runtimes fuse them in some candidates and not in others. A call on
other channels, such as a concat, is an operator of its own. Operators with the same signature share one
surface.

Example:
    found = make_operators(observed, sizes)
    found.operators[1].name, found.operators[1].sizes  # "layer1.0.conv1", (Size(...), Size(...))
    found.owner[7]                                     # 1: the operator that call 7 belongs to
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from autoprune.cost.polynomial import Size, SizeTable
from autoprune.errors import LatencyError
from autoprune.latency.table._operator_sizes import Observations
from autoprune.support.arrays import IntArray

MOST_SIZES = 2
"""Number of sizes on which an operator's latency depends: those of its input and its output channels."""

_CONTRACTION = re.compile(
    r"(conv(olution|transpose)?|linear|gemm|(add|b|addb|baddb)?mm|(add)?mv|matmul|einsum|attention|lstm|gru|rnn)"
)
"""A word in the names of calls that multiply matrices, in PyTorch and ONNX, in lower case."""

_WORD = re.compile(r"[a-z]+")
"""Dots, underscores and digits separate words, so that `upsample_bilinear2d` does not match "linear"."""

_UPSAMPLE = "upsample"
"""Upsampling calls have the name of the interpolation in theirs, which may be "linear"."""


@dataclass(frozen=True)
class Call:
    """One call that a runtime makes.

    Attributes:
        kind: name of the operator and everything about the call that is not a number. It fixes the number of
            axes of each tensor and the number of integers.
        shapes: shapes of the call's tensors, inputs first.
        integers: the call's other numbers.
        weights: {position among the shapes: name of the parameter}.
    """

    kind: str
    shapes: tuple[tuple[int, ...], ...]
    integers: tuple[int, ...]
    weights: Mapping[int, str]

    @property
    def name(self) -> str:
        """Name of the operator that is called."""
        return self.kind.partition(" ")[0]

    @property
    def contracts(self) -> bool:
        """Whether the call multiplies matrices."""
        words = _WORD.findall(self.name.lower())
        return _UPSAMPLE not in words and any(_CONTRACTION.fullmatch(word) for word in words)

    @property
    def numbers(self) -> tuple[int, ...]:
        """All numbers of the call."""
        return (*(length for shape in self.shapes for length in shape), *self.integers)


@dataclass(frozen=True)
class Operator:
    """A part of the model whose latency is predicted by itself.

    Attributes:
        name: the layer with the operator's weight, or the first call's name and the operator's number.
        signature: a digest. Operators with the same signature do the same work at the same sizes.
        sizes: at most MOST_SIZES sizes on which the latency depends.
    """

    name: str
    signature: str
    sizes: tuple[Size, ...]

    @property
    def layer(self) -> str | None:
        """The layer with the operator's weight, or None if it has no weight."""
        return None if " " in self.name else self.name


def sizes_of(operators: Sequence[Operator], groups: int) -> Callable[[IntArray], IntArray]:
    """Return a function from widths [n, groups] to sizes [n, operators, 2], 0 if an operator has fewer."""
    none = (Size(0, (0,) * groups),) * MOST_SIZES
    table = SizeTable.of([size for each in operators for size in (*each.sizes, *none)[:MOST_SIZES]], groups)
    return lambda widths: table.at(widths).T.reshape(len(widths), -1, MOST_SIZES).astype(np.int64)


@dataclass(frozen=True)
class Share:
    """A number that is proportional to one of its operator's sizes.

    Attributes:
        factor: the number divided by the size.
        place: index of the size.
    """

    factor: float
    place: int


Number = Share | int
"""A number of a call: a share of one of the operator's sizes, otherwise its value in the dense model."""


@dataclass(frozen=True)
class Operators:
    """The operators of a forward pass.

    Attributes:
        operators: the operators in order of execution.
        owner: for each call the index of its operator.
        work: {signature: the dense model's calls of its first operator, each with its numbers}.
    """

    operators: tuple[Operator, ...]
    owner: tuple[int, ...]
    work: Mapping[str, tuple[tuple[Call, tuple[Number, ...]], ...]]


@dataclass
class _Draft:
    """An operator to which calls are still added."""

    name: str
    sizes: tuple[Size, ...]
    calls: list[tuple[Call, tuple[Number, ...]]] = field(default_factory=list)

    def takes(self, found: Sequence[Size | int | None]) -> bool:
        """Return whether a call has no channels that the operator does not have."""
        mine = {size.unit[1] for size in self.sizes}
        return all(number.unit[1] in mine for number in found if isinstance(number, Size))

    def add(self, call: Call, found: Sequence[Size | int | None]) -> None:
        """Append a call, given the size behind each of its numbers."""
        places = {size.unit[1]: place for place, size in enumerate(self.sizes)}
        numbers: list[Number] = []
        for dense, number in zip(call.numbers, found, strict=True):
            if isinstance(number, Size) and number.unit[1] in places:
                place = places[number.unit[1]]
                numbers.append(Share(number.unit[0] / self.sizes[place].unit[0], place))
            else:
                numbers.append(dense)
        self.calls.append((call, tuple(numbers)))

    def signature(self) -> str:
        """Return a digest of the calls with all their numbers except the sizes."""
        text = "\n".join(f"{call.kind}: {numbers}" for call, numbers in self.calls)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def make_operators(observed: Sequence[Sequence[Call]], sizes: Observations) -> Operators:
    """Group the calls of a forward pass into operators.

    Args:
        observed: for each row of `sizes.widths` the calls of the model with these widths.
        sizes: identifies the sizes behind the numbers of the calls.

    Raises:
        LatencyError: a narrowed model makes other calls than the dense one.
    """
    calls = observed[0]
    for others in observed[1:]:
        if [call.kind for call in others] != [call.kind for call in calls]:
            raise LatencyError(
                f"latency table: got {len(others)} operator calls in a narrowed model, expected the same "
                f"{len(calls)} calls as in the dense one. Freeze the layers whose widths decide which calls "
                'are made, or limit "macs" instead of the latency.'
            )
    drafts: list[_Draft] = []
    owner = []
    for same in zip(*observed, strict=True):
        call = same[0]
        found = [sizes.find(values) for values in zip(*(each.numbers for each in same), strict=True)]
        # Calls without sizes of their own, such as activations, join the contraction before them, and one
        # surface is fitted to their sum.
        if not drafts or call.contracts or not drafts[-1].takes(found):
            layer = next(iter(call.weights.values()), "").removesuffix(".weight")
            drafts.append(_Draft(layer or f"{call.name} {len(drafts)}", _leading(call, found)))
        drafts[-1].add(call, found)
        owner.append(len(drafts) - 1)
    operators = tuple(Operator(draft.name, draft.signature(), draft.sizes) for draft in drafts)
    work = {operator.signature: tuple(draft.calls) for operator, draft in zip(operators, drafts, strict=True)}
    return Operators(operators, tuple(owner), work)


def _leading(call: Call, found: Sequence[Size | int | None]) -> tuple[Size, ...]:
    """Return two sizes of a contraction that are not proportional to each other, else the largest size."""
    by_unit: dict[Size, tuple[Size, int]] = {}
    for dense, number in zip(call.numbers, found, strict=True):
        if isinstance(number, Size):
            by_unit.setdefault(number.unit[1], (number, dense))
    distinct = list(by_unit.values())
    if not call.contracts:
        # The largest size covers the others: the output of a concat is the sum of its inputs.
        distinct = sorted(distinct, key=lambda pair: -pair[1])[:1]
    return tuple(size for size, _ in distinct[:MOST_SIZES])
