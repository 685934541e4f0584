"""Own operators: the pieces that a model's latency is the sum of, and the sizes that each depends on.

A runtime shows calls (an ATen call, a node of an ONNX graph), each with all its numbers. A call that
multiplies matrices opens an operator, and what follows it on the same channels belongs to it (its
BatchNorm, its ReLU): runtimes fuse these, in some candidates and not in others. A call on other channels (a
concat, the pooling of one) is an operator of its own. Before: `sizes` and a runtime's calls; after:
`surfaces` has one function of (in size, out size) for all operators of one signature.

    operators, owner = make_operators(calls, sizes)    # owner[i]: the operator that call i belongs to
    operators[1].name, operators[1].sizes              # "layer1.0.conv1", (Size(...), Size(...))
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from autoprune.errors import LatencyError
from autoprune.latency.sizes import Observations, Size

MOST_SIZES = 2
"""Sizes that an operator's latency is a function of: those of what goes in and out."""

_CONTRACTIONS = ("conv", "linear", "mm", "matmul", "einsum", "attention", "lstm", "gru", "rnn")
"""Parts of the names of calls that multiply matrices, in PyTorch and ONNX, in lower case."""


@dataclass(frozen=True)
class Call:
    """One call as a runtime makes it.

    Attributes:
        kind: what is called, and everything about it that is no number.
        numbers: the dimensions of its tensors and its other numbers, in an order that depends on `kind`
            alone.
        weight: the parameter that it multiplies by, or "".
    """

    kind: str
    numbers: tuple[int, ...]
    weight: str = ""

    @property
    def contracts(self) -> bool:
        """Whether it multiplies matrices."""
        return any(part in self.kind.lower() for part in _CONTRACTIONS)


@dataclass(frozen=True)
class Operator:
    """A piece of the model.

    Attributes:
        name: the layer whose weight it multiplies by, or the first call's kind and its place among the
            operators.
        signature: a digest; operators of one signature do the same work at the same sizes.
        sizes: what its latency depends on, at most MOST_SIZES.
    """

    name: str
    signature: str
    sizes: tuple[Size, ...]


@dataclass
class _Draft:
    """An operator as its calls come in."""

    name: str
    sizes: tuple[Size, ...]
    calls: list[tuple[str, tuple[Size | int | None, ...]]] = field(default_factory=list)

    def takes(self, numbers: Sequence[Size | int | None]) -> bool:
        """Tell whether a call that contracts nothing has no other channels than the operator."""
        mine = {size.unit[1] for size in self.sizes}
        return all(number.unit[1] in mine for number in numbers if isinstance(number, Size))

    def signature(self) -> str:
        """Digest the calls, with a sign for each size instead of where its width comes from."""
        units = {size.unit[1]: f"size {place}" for place, size in enumerate(self.sizes)}

        def sign(number: Size | int | None) -> str:
            if not isinstance(number, Size):
                return str(number)
            factor, unit = number.unit
            return f"{factor} x {units.get(unit, 'another')}"

        text = "\n".join(f"{kind}: {[sign(number) for number in numbers]}" for kind, numbers in self.calls)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def make_operators(
    observed: Sequence[Sequence[Call]], sizes: Observations
) -> tuple[list[Operator], list[int]]:
    """Join the calls of a forward pass to operators.

    Args:
        observed: for each row of `sizes.widths` the calls that a model of these widths makes.
        sizes: what the numbers of the calls stand for.

    Returns:
        The operators in order of execution, and for each call the operator that it belongs to.

    Raises:
        LatencyError: which calls are made depends on the widths.
    """
    calls = observed[0]
    for others in observed[1:]:
        if [call.kind for call in others] != [call.kind for call in calls]:
            raise LatencyError(
                f"{len(calls)} operators run in the dense model and {len(others)} or others in a narrowed "
                "one: a table takes the same operators at all widths."
            )
    drafts: list[_Draft] = []
    owner = []
    for same in zip(*observed, strict=True):
        call = same[0]
        numbers = tuple(sizes.find(values) for values in zip(*(one.numbers for one in same), strict=True))
        if not drafts or call.contracts or not drafts[-1].takes(numbers):
            place = f"{call.kind.partition(' ')[0]} {len(drafts)}"
            name = call.weight.removesuffix(".weight") or place
            drafts.append(_Draft(name, _leading(numbers, call, sizes)))
        drafts[-1].calls.append((call.kind, numbers))
        owner.append(len(drafts) - 1)
    return [Operator(draft.name, draft.signature(), draft.sizes) for draft in drafts], owner


def _leading(numbers: Sequence[Size | int | None], call: Call, sizes: Observations) -> tuple[Size, ...]:
    """Return the sizes of a call that are not proportional: a contraction's first two, else the largest."""
    by_unit: dict[Size, Size] = {}
    for number in numbers:
        if isinstance(number, Size):
            by_unit.setdefault(number.unit[1], number)
    distinct = list(by_unit.values())
    if call.contracts:
        return tuple(distinct[:MOST_SIZES])
    # What a concat writes is the sum of what it reads.
    return tuple(sorted(distinct, key=lambda size: -int(size.at(sizes.widths[0])))[:1])
