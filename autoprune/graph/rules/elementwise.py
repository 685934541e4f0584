"""The rule of elementwise operators: they tie the axes of their operands, after broadcasting.

It holds for every operator that torch tags as pointwise. The table lists operators without that tag.
"""

from __future__ import annotations

from collections.abc import Sequence

from autoprune.graph.context import LayerRule, OpContext, Value
from autoprune.graph.labels import LabelVector


def elementwise(op: OpContext) -> list[Value]:
    """Tie the operands axis by axis, aligned at the right. An axis of size 1 is broadcast and not tied."""
    labels = broadcast(op, op.tensors(), len(op.shapes[0]))
    return [op.output(labels, position) for position in range(len(op.shapes))]


def broadcast(op: OpContext, operands: Sequence[Value], rank: int) -> list[LabelVector | None]:
    """Tie operands as `elementwise` does. Return the labels of the `rank` axes of the result."""
    labels: list[LabelVector | None] = [None] * rank
    for axis in range(1, rank + 1):
        wide = [v for v in operands if len(v.shape) >= axis and v.shape[-axis] > 1]
        labels[-axis] = next((v.labels[-axis] for v in wide if v.labels[-axis] is not None), None)
        for value in wide:
            op.tie(labels[-axis], value.labels[-axis], value)
    return labels


def first_operand(op: OpContext) -> Value:
    """Carry the labels of the first operand. The others only give a dtype or a device."""
    return op.output(op.tensors()[0].labels)


def factory(op: OpContext) -> list[Value]:
    """Return fixed axes for a new tensor, whose sizes are numbers in the code."""
    return op.fixed_output(f"the tensor that {op.where} makes")


ELEMENTWISE_RULES: dict[str, LayerRule] = {
    **dict.fromkeys(
        (
            *("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout"),
            *("clone", "contiguous", "alias", "detach", "lift_fresh_copy", "copy", "masked_fill", "where"),
            *("fill", "zero", "bernoulli", "normal", "uniform", "hardtanh", "relu6", "selu", "celu", "rrelu"),
            *("hardswish", "hardsigmoid", "silu", "gelu", "mish", "elu", "leaky_relu"),
            *("softplus", "threshold"),
            *("relu", "sigmoid", "tanh", "logsigmoid", "log_sigmoid", "softsign", "hardshrink", "softshrink"),
            *("add", "sub", "mul", "div", "maximum", "minimum", "rsub", "pow", "to", "_to_copy"),
            *("exponential", "log_normal", "cauchy", "geometric", "random", "broadcast_tensors", "polar"),
            *("real", "imag", "complex", "_conj", "conj", "resolve_conj", "resolve_neg"),
        ),
        elementwise,
    ),
    **dict.fromkeys(
        ("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "type_as"),
        first_operand,
    ),
    **dict.fromkeys(
        (
            *("empty", "zeros", "ones", "full", "arange", "linspace", "rand", "randn", "scalar_tensor"),
            *("new_empty", "new_zeros", "new_ones", "new_full", "new_tensor", "eye", "randint", "randperm"),
            *("range", "logspace", "tril_indices", "triu_indices", "hann_window", "hamming_window"),
        ),
        factory,
    ),
}
