"""The context that a layer rule works on: one operator with its labelled inputs.

`propagate` makes one `OpContext` for each node and passes it to the operator's rule in LAYER_RULES. The rule
ties, freezes and counts through it, and returns the labelled output.

    def relu_like(op: OpContext) -> Value:
        return op.output(op.tensor("input").labels)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from autoprune.graph.labels import STRUCTURAL, LabelStore, LabelVector

Labels = tuple[LabelVector | None, ...]


@dataclass(frozen=True, eq=False)
class Value:
    """One tensor of the graph.

    Attributes:
        shape: its shape in the dense model.
        labels: for each axis the label of each position, or None if the whole axis is fixed.
        note: why its fixed axes are fixed, for reports ("the model's input").
        constant: the tensor itself if it is an integer or boolean constant, such as an index.
    """

    shape: tuple[int, ...]
    labels: Labels
    note: str = ""
    constant: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Factor:
    """One factor of a MAC count: the number of positions along one axis."""

    size: int
    labels: LabelVector | None = None


@dataclass(frozen=True, eq=False)
class MacTerm:
    """The MACs of one operator, as a product of factors.

    Attributes:
        node: the operator's name in the graph.
        layer: the module that called it.
        factors: the factors of the product.
        summed: if given, the product counts only if one of these factors is above 1.
    """

    node: str
    layer: str
    factors: tuple[Factor, ...]
    summed: tuple[Factor, ...] = ()


@dataclass
class OpContext:
    """One operator with its arguments, in which each tensor is a `Value`.

    Attributes:
        node: the node's name in the graph.
        layer: the module that called the operator ("layer1.0.conv1", or "model" for the root).
        operator: the operator's name without the ATen namespace and the underscore of in-place operators
            ("conv2d").
        arguments: {name in the operator's schema: value}, with defaults filled in.
        shapes: the shape of each output.
        store: collects ties and freezes.
        terms: collects MAC counts, or None for the graph in train mode.
        read: positions of the outputs that the graph reads.
        dense_macs: counts the operator's MACs in the dense model by running it on the meta device.
    """

    node: str
    layer: str
    operator: str
    arguments: Mapping[str, object]
    shapes: Sequence[tuple[int, ...]]
    store: LabelStore
    terms: list[MacTerm] | None
    read: frozenset[int]
    dense_macs: Callable[[], int]
    _froze: str = ""

    @property
    def where(self) -> str:
        """The operator's place, as reasons and errors name it: "layer1.0.conv1 (conv2d)"."""
        return f"{self.layer} ({self.operator})"

    def tensor(self, name: str) -> Value:
        """Return the tensor argument `name`."""
        value = self.arguments[name]
        if not isinstance(value, Value):
            raise TypeError(f"{self.where}: argument {name} is {value!r}, not a tensor")
        return value

    def optional(self, name: str) -> Value | None:
        """Return the tensor argument `name`, or None if it was not given."""
        value = self.arguments.get(name)
        return value if isinstance(value, Value) else None

    def integer(self, name: str, default: int = 0) -> int:
        """Return the integer argument `name`."""
        value = self.arguments.get(name, default)
        return value if isinstance(value, int) else default

    def axes(self, name: str, ndim: int) -> tuple[int, ...]:
        """Return the argument `name`, one axis or a list (None means all), as axes in [0, ndim)."""
        value = self.arguments.get(name)
        if value is None or value == []:
            return tuple(range(ndim))
        listed = value if isinstance(value, list | tuple) else [value]
        return tuple(axis % ndim for axis in listed if isinstance(axis, int))

    def tensors(self) -> list[Value]:
        """Return every tensor argument, including those inside lists."""
        found = []
        for value in self.arguments.values():
            for item in value if isinstance(value, list | tuple) else [value]:
                if isinstance(item, Value):
                    found.append(item)
        return found

    def output(self, labels: Sequence[LabelVector | None], position: int = 0) -> Value:
        """Return output number `position` with these labels."""
        return Value(tuple(self.shapes[position]), tuple(labels), self.note())

    def produced(self, labels: Sequence[LabelVector | None]) -> Value:
        """Return the output of a layer that makes channels. Its unlabelled axes hold no channels."""
        return Value(tuple(self.shapes[0]), tuple(labels), f"an axis of {self.where} that holds no channels")

    def fixed_output(self, note: str = "") -> list[Value]:
        """Return all outputs without labels. `note` is the reason."""
        return [Value(tuple(shape), (None,) * len(shape), note or self.note()) for shape in self.shapes]

    def unsupported(self, reason: str) -> list[Value]:
        """Freeze every axis of every input and return outputs without labels.

        The operator then costs the same for every plan, so its dense MACs are counted.
        """
        for value in self.tensors():
            self.freeze_all(value, reason)
        if self.terms is not None:
            self.count(self.dense_macs())
        return self.fixed_output(f"the output of {self.where}, which {reason.partition(';')[0]}")

    def note(self) -> str:
        """Return why the output has fixed axes: this operator's own freeze, else the note of an input."""
        if self._froze:
            return f"the output of {self.where}: {self._froze}"
        return next((value.note for value in self.tensors() if value.note), "")

    def tie(
        self, first: LabelVector | None, second: LabelVector | None, partner: Value | None = None
    ) -> None:
        """Tie two axes position by position. If one is fixed, freeze the other and name this operator.

        Args:
            first: labels of one axis.
            second: labels of the other axis.
            partner: the tensor of either axis, whose note explains a fixed position.
        """
        because = partner.note if partner is not None and partner.note else self.note()
        self.store.tie(first, second, f"{self.where}: meets {because or 'an axis that no layer produces'}")

    def freeze(self, vector: LabelVector | None, reason: str) -> None:
        """Freeze an axis. The recorded reason starts with this operator's place."""
        if vector is not None and vector.size:
            self._froze = self._froze or reason
            self.store.freeze(vector, f"{self.where}: {reason}")

    def freeze_all(self, value: Value, reason: str) -> None:
        """Freeze every axis of a tensor."""
        for vector in value.labels:
            self.freeze(vector, reason)

    def structural(self, vector: LabelVector | None) -> None:
        """Mark an axis that holds no channels, such as the height of a kernel."""
        self.store.freeze(vector, STRUCTURAL)

    def cross(self, vector: LabelVector | None) -> None:
        """Mark an axis over which this operator normalises."""
        self.store.cross(vector, self.where)

    def count(self, *factors: Factor | int, summed: Sequence[Factor] = ()) -> None:
        """Count the product of the factors as MACs. If `summed` is given, only if one of those is above 1."""
        if self.terms is not None:
            wrapped = tuple(factor if isinstance(factor, Factor) else Factor(factor) for factor in factors)
            self.terms.append(MacTerm(self.node, self.layer, wrapped, tuple(summed)))


LayerRule = Callable[[OpContext], Value | list[Value]]
"""A layer rule: returns the labelled output, or outputs, of one operator."""


def axis_factor(value: Value, axis: int) -> Factor:
    """Return the size of one axis of a tensor as a factor of a MAC count."""
    return Factor(value.shape[axis], value.labels[axis])
