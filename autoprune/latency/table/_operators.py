"""Own operators: the pieces that a model's latency is the sum of, and the sizes that each depends on.

A runtime shows calls (an ATen call, a node of an ONNX graph), each with all its numbers. A call that
multiplies matrices opens an operator, and what follows it on the same channels belongs to it (its BatchNorm,
its ReLU): runtimes fuse these, in some candidates and not in others. A call on other channels (a concat, the
pooling of one) is an operator of its own. Before: `sizes` and a runtime's calls; after: `surfaces` has one
function of (in size, out size) for all operators of one signature.

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
"""Sizes that an operator's latency is a function of: those of what goes in and out."""

_CONTRACTION = re.compile(
    r"(conv(olution|transpose)?|linear|gemm|(add|b|addb|baddb)?mm|(add)?mv|matmul|einsum|attention|lstm|gru|rnn)"
)
"""A word in the names of calls that multiply matrices, in PyTorch and ONNX, in lower case."""

_WORD = re.compile(r"[a-z]+")
"""What stands between dots, underscores and digits: `upsample_bilinear2d` is not linear."""

_UPSAMPLE = "upsample"
"""What interpolates bears the name of the interpolation, which may be linear."""


@dataclass(frozen=True)
class Call:
    """One call as a runtime makes it.

    Attributes:
        kind: what is called, and everything about it that is no number.
        shapes: of its tensors, those that it reads first; how many axes each has follows from `kind`.
        integers: its other numbers, as many as `kind` says.
        weights: {position among the shapes: the parameter}.
    """

    kind: str
    shapes: tuple[tuple[int, ...], ...]
    integers: tuple[int, ...]
    weights: Mapping[int, str]

    @property
    def name(self) -> str:
        """What is called."""
        return self.kind.partition(" ")[0]

    @property
    def contracts(self) -> bool:
        """Whether it multiplies matrices."""
        words = _WORD.findall(self.name.lower())
        return _UPSAMPLE not in words and any(_CONTRACTION.fullmatch(word) for word in words)

    @property
    def numbers(self) -> tuple[int, ...]:
        """All its numbers."""
        return (*(length for shape in self.shapes for length in shape), *self.integers)


@dataclass(frozen=True)
class Operator:
    """A piece of the model.

    Attributes:
        name: the layer whose weight it multiplies by, else the first call's name and the operator's number.
        signature: a digest; operators of one signature do the same work at the same sizes.
        sizes: what its latency depends on, at most MOST_SIZES.
    """

    name: str
    signature: str
    sizes: tuple[Size, ...]


def sizes_of(operators: Sequence[Operator], groups: int) -> Callable[[IntArray], IntArray]:
    """Return a function from widths [n, groups] to sizes [n, operators, 2], 0 if an operator has fewer."""
    none = (Size(0, (0,) * groups),) * MOST_SIZES
    table = SizeTable.of([size for each in operators for size in (*each.sizes, *none)[:MOST_SIZES]], groups)
    return lambda widths: table.at(widths).T.reshape(len(widths), -1, MOST_SIZES).astype(np.int64)


@dataclass(frozen=True)
class Share:
    """A number that is proportional to one of its operator's sizes.

    Attributes:
        factor: the number over the size.
        place: which of the sizes.
    """

    factor: float
    place: int


Number = Share | int
"""What a call's number is to its operator; a size that is not the operator's counts with its dense value."""


@dataclass(frozen=True)
class Operators:
    """A forward pass in pieces.

    Attributes:
        operators: in order of execution.
        owner: for each call the number of its operator.
        work: {signature: the dense model's calls of the first operator that has it, each with its numbers}.
    """

    operators: tuple[Operator, ...]
    owner: tuple[int, ...]
    work: Mapping[str, tuple[tuple[Call, tuple[Number, ...]], ...]]


@dataclass
class _Draft:
    """An operator as its calls come in."""

    name: str
    sizes: tuple[Size, ...]
    calls: list[tuple[Call, tuple[Number, ...]]] = field(default_factory=list)

    def takes(self, found: Sequence[Size | int | None]) -> bool:
        """Tell whether a call has no other channels than the operator."""
        mine = {size.unit[1] for size in self.sizes}
        return all(number.unit[1] in mine for number in found if isinstance(number, Size))

    def add(self, call: Call, found: Sequence[Size | int | None]) -> None:
        """Append a call whose numbers stand for `found`."""
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
        """Digest the calls with all numbers but the sizes."""
        text = "\n".join(f"{call.kind}: {numbers}" for call, numbers in self.calls)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def make_operators(observed: Sequence[Sequence[Call]], sizes: Observations) -> Operators:
    """Join the calls of a forward pass to operators.

    Args:
        observed: for each row of `sizes.widths` the calls that a model of these widths makes.
        sizes: what the numbers of the calls stand for.

    Raises:
        LatencyError: which calls are made depends on the widths.
    """
    calls = observed[0]
    for others in observed[1:]:
        if [call.kind for call in others] != [call.kind for call in calls]:
            raise LatencyError(
                f"latency table: {len(calls)} calls run in the dense model, and in a narrowed one "
                f"{len(others)} or others; a table needs the same at all widths: freeze the layers whose "
                'widths decide that, or limit "macs" instead of the latency.'
            )
    drafts: list[_Draft] = []
    owner = []
    for same in zip(*observed, strict=True):
        call = same[0]
        found = [sizes.find(values) for values in zip(*(each.numbers for each in same), strict=True)]
        if not drafts or call.contracts or not drafts[-1].takes(found):
            layer = next(iter(call.weights.values()), "").removesuffix(".weight")
            drafts.append(_Draft(layer or f"{call.name} {len(drafts)}", _leading(call, found)))
        drafts[-1].add(call, found)
        owner.append(len(drafts) - 1)
    operators = tuple(Operator(draft.name, draft.signature(), draft.sizes) for draft in drafts)
    work = {operator.signature: tuple(draft.calls) for operator, draft in zip(operators, drafts, strict=True)}
    return Operators(operators, tuple(owner), work)


def _leading(call: Call, found: Sequence[Size | int | None]) -> tuple[Size, ...]:
    """Return sizes of which none is proportional to another: of a contraction two, else the largest."""
    by_unit: dict[Size, tuple[Size, int]] = {}
    for dense, number in zip(call.numbers, found, strict=True):
        if isinstance(number, Size):
            by_unit.setdefault(number.unit[1], (number, dense))
    distinct = list(by_unit.values())
    if not call.contracts:
        # What a concat writes is the sum of what it reads.
        distinct = sorted(distinct, key=lambda pair: -pair[1])[:1]
    return tuple(size for size, _ in distinct[:MOST_SIZES])
