"""Rules of recurrent layers: their input is free, their states are frozen.

All gates share one axis and the width of the states, which is also the module's hidden_size.
"""

from __future__ import annotations

from autoprune.graph.context import LayerRule, OpContext, Value, axis_factor

_GATES = "its gates and states share one width, which cannot be narrowed"


def recurrent(op: OpContext) -> list[Value]:
    """Tie the features of the input to axis 1 of the first layer's weights. Freeze all other axes."""
    source = op.optional("input")
    weights = op.arguments.get("params")
    if source is None or not isinstance(weights, list | tuple) or "batch_sizes" in op.arguments:
        return op.unsupported("has no rule for packed sequences")
    matrices = [value for value in weights if isinstance(value, Value) and len(value.shape) == 2]
    layers = op.integer("num_layers", 1) * (2 if op.arguments.get("bidirectional") else 1)
    # Each layer and direction has two matrices, or three with a projection. The reverse direction of the
    # first layer comes second.
    each = len(matrices) // layers
    first = [matrices[0], *([matrices[each]] if op.arguments.get("bidirectional") else [])]
    for value in op.tensors():
        if value is not source and not any(value is weight for weight in first):
            op.freeze_all(value, _GATES)
    for axis in range(len(source.shape) - 1):
        op.freeze(source.labels[axis], "channels lie on the axis of steps or samples")
    for value in op.tensors():
        if value is not source and value.shape[:1] == matrices[0].shape[:1]:
            op.tie(matrices[0].labels[0], value.labels[0])  # reports then list one frozen group, not many
    for weight in first:
        op.freeze(weight.labels[0], _GATES)
        op.tie(source.labels[-1], weight.labels[1], source)
    for weight in matrices:
        op.count(*source.shape[:-1], *(axis_factor(weight, axis) for axis in (0, 1)))
    return op.fixed_output(f"the states of {op.where}")


def cell(op: OpContext) -> list[Value]:
    """Tie the features of the input to axis 1 of the weight that reads them. Freeze all other axes."""
    source, reads, steps = op.tensor("input"), op.tensor("w_ih"), op.tensor("w_hh")
    for value in op.tensors():
        if value is not source and value is not reads:
            op.freeze_all(value, _GATES)
    op.freeze(reads.labels[0], _GATES)
    op.tie(source.labels[-1], reads.labels[1], source)
    for weight in (reads, steps):
        op.count(*source.shape[:-1], *(axis_factor(weight, axis) for axis in (0, 1)))
    return op.fixed_output(f"the states of {op.where}")


RECURRENT_RULES: dict[str, LayerRule] = {
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), recurrent),
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), cell),
}
