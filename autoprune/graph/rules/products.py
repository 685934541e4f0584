"""Rules of products of two tensors: matrix products, einsum, attention, distances.

Each rule ties the summed axes and the broadcast axes. It counts the MACs that torch counts, which are none
for a product with a vector.
"""

from __future__ import annotations

import numpy as np

from autoprune.graph.context import Factor, LayerRule, OpContext, Value
from autoprune.graph.labels import LabelVector


def matmul(op: OpContext) -> Value:
    """Tie the contracted axes of a matrix product and its broadcast batch axes."""
    first, second = _product_operands(op)
    # Batch axes are aligned at the right, as in broadcasting: an operand with fewer has the last letters.
    batch = "".join(chr(ord("a") + axis) for axis in range(max(len(first.shape), len(second.shape), 2) - 2))
    left = f"{batch[len(batch) - len(first.shape) + 2 :]}xk" if len(first.shape) > 1 else "k"
    right = f"{batch[len(batch) - len(second.shape) + 2 :]}ky" if len(second.shape) > 1 else "k"
    out = batch + "x" * ("x" in left) + "y" * ("y" in right)
    return op.output(contract(op, (first, second), (left, right), out, counts="y" in right))


def addmm(op: OpContext) -> Value:
    """Tie a matrix product, or a product of matrix and vector, and the tensor that is added to it."""
    product = matmul(op)
    _tie_added(op, product)
    return product


def addbmm(op: OpContext) -> Value:
    """Tie a matrix product that is summed over the batch, and the tensor that is added to it."""
    operands = (op.tensor("batch1"), op.tensor("batch2"))
    product = op.output(contract(op, operands, ("axk", "aky"), "xy", counts=False))
    _tie_added(op, product)
    return product


def _tie_added(op: OpContext, product: Value) -> None:
    added = op.tensor("self")
    for axis in range(-1, -len(added.shape) - 1, -1):
        if added.shape[axis] > 1:
            op.tie(added.labels[axis], product.labels[axis], added)


def vectors(op: OpContext) -> Value:
    """Tie the summed axes of a product of vectors, or of a matrix and a vector, and mark them as crossed.

    They are crossed because spectral norm divides a weight by such a product.
    """
    first, second = op.tensors()
    for value in (first, second):
        op.cross(value.labels[-1])
    if len(first.shape) == 1:
        return op.output(contract(op, (first, second), ("k", "k"), "", counts=False))
    return op.output(contract(op, (first, second), ("xk", "k"), "x", counts=False))


def outer(op: OpContext) -> Value:
    """Carry the labels of both vectors."""
    first, second = op.tensors()
    return op.output((first.labels[0], second.labels[0]))


def tensordot(op: OpContext) -> Value:
    """Tie the pairs of summed axes. `inner` sums over the last axes."""
    first, second = op.tensors()
    last = op.operator == "inner"
    left = list("abcdefghijkl"[: len(first.shape)])
    right = list("ABCDEFGHIJKL"[: len(second.shape)])
    left_axes = (len(left) - 1,) if last else op.axes("dims_self", len(left))
    right_axes = (len(right) - 1,) if last else op.axes("dims_other", len(right))
    for one, other in zip(left_axes, right_axes, strict=True):
        right[other] = left[one]
    summed = {left[axis] for axis in left_axes}
    out = "".join(letter for letter in (*left, *right) if letter not in summed)
    return op.output(contract(op, (first, second), ("".join(left), "".join(right)), out))


def distance(op: OpContext) -> Value:
    """Tie the coordinates of two sets of points. A coordinate that is zero in both adds nothing."""
    first, second = op.tensor("x1"), op.tensor("x2")
    batch = "".join(chr(ord("a") + axis) for axis in range(max(len(first.shape), len(second.shape)) - 2))
    left = batch[len(batch) - len(first.shape) + 2 :] + "xk"
    right = batch[len(batch) - len(second.shape) + 2 :] + "yk"
    return op.output(contract(op, (first, second), (left, right), batch + "xy", counts=False))


def einsum(op: OpContext) -> Value:
    """Tie the axes that share a letter. Operands are multiplied from left to right, as torch does."""
    equation = str(op.arguments["equation"]).replace(" ", "")
    operands = op.tensors()
    subscripts, out = _subscripts(equation, operands)
    if any(len(set(letters)) < len(letters) for letters in subscripts):
        return op.unsupported(f"has no rule for the diagonal in {equation}")[0]
    if len(operands) > 2 and op.arguments.get("path") is not None:
        return op.unsupported(f"multiplies the operands of {equation} in an order that has no rule")[0]
    if len(operands) == 1:
        return op.output(contract(op, (operands[0],), (subscripts[0],), out))
    done, letters = operands[0], subscripts[0]
    for place in range(1, len(operands)):
        # As torch does, sum the letters here that neither the output nor a later operand reads.
        later = set(out).union(*subscripts[place + 1 :])
        kept = "".join(letter for letter in dict.fromkeys(letters + subscripts[place]) if letter in later)
        kept = out if place == len(operands) - 1 else kept
        sizes = dict(zip(letters, done.shape, strict=True))
        for letter, size in zip(subscripts[place], operands[place].shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
        labels = contract(op, (done, operands[place]), (letters, subscripts[place]), kept)
        done, letters = Value(tuple(sizes[letter] for letter in kept), labels, op.note()), kept
    return done


def _subscripts(equation: str, operands: list[Value]) -> tuple[list[str], str]:
    """Return the letters of each operand and of the output, with ellipses and a missing arrow filled in."""
    left, arrow, out = equation.partition("->")
    given = left.split(",")
    unused = "".join(chr(ord("A") + place) for place in range(26) if chr(ord("A") + place) not in equation)
    covered = [
        len(value.shape) - len(letters.replace("...", "")) if "..." in letters else 0
        for value, letters in zip(operands, given, strict=True)
    ]
    dots = unused[: max(covered)]
    subscripts = [
        letters.replace("...", dots[len(dots) - count :])
        for letters, count in zip(given, covered, strict=True)
    ]
    if not arrow:
        named = left.replace(",", "").replace(".", "")
        out = "..." + "".join(sorted(letter for letter in set(named) if named.count(letter) == 1))
    return subscripts, out.replace("...", dots)


def attention(op: OpContext) -> Value:
    """Tie queries to keys, and the sequence axis of keys to that of values (scaled dot product attention)."""
    query, key, value = op.tensor("query"), op.tensor("key"), op.tensor("value")
    if op.arguments.get("enable_gqa"):
        key, value = (_for_each_query_head(part, query) for part in (key, value))
    batch = "".join(chr(ord("a") + axis) for axis in range(len(query.shape) - 2))
    scores = contract(op, (query, key), (batch + "le", batch + "se"), batch + "ls")
    weights = Value((*query.shape[:-1], key.shape[-2]), scores, query.note)
    mask = op.optional("attn_mask")
    for vector in scores[-2:]:
        op.cross(vector)
    if mask is not None:
        op.freeze_all(mask, "channels lie on an axis of the attention mask")
    if op.arguments.get("scale") is None:
        # The default scale is 1 / sqrt(head width), so a narrower head scales its scores differently.
        op.cross(query.labels[-1])
    return op.output(contract(op, (weights, value), (batch + "ls", batch + "sv"), batch + "lv"))


def _for_each_query_head(part: Value, query: Value) -> Value:
    """Repeat each head of keys or values once for each query head that shares it."""
    heads, shared = query.shape[-3], part.shape[-3]
    vector = part.labels[-3]
    repeated = None if vector is None else np.repeat(vector, heads // shared)
    shape = (*part.shape[:-3], 1 if shared == 1 else heads, *part.shape[-2:])
    return Value(shape, (*part.labels[:-3], repeated, *part.labels[-2:]), part.note)


def contract(
    op: OpContext, operands: tuple[Value, ...], subscripts: tuple[str, ...], out: str, *, counts: bool = True
) -> tuple[LabelVector | None, ...]:
    """Tie the axes that share a letter and count the product of all letters as MACs.

    Args:
        op: the operator.
        operands: one tensor, or two to multiply.
        subscripts: the letters of each operand's axes, as in einsum.
        out: the letters of the output's axes.
        counts: whether torch counts MACs for this product.

    Returns:
        The labels of the axes of `out`.
    """
    letters: dict[str, list[tuple[Value, int]]] = {}
    for operand, subscript in zip(operands, subscripts, strict=True):
        for axis, letter in enumerate(subscript):
            letters.setdefault(letter, []).append((operand, axis))
    labels: dict[str, LabelVector | None] = {}
    factors, summed = [], []
    for letter, places in letters.items():
        # An axis of size 1 is broadcast. It ties nothing.
        wide = [(operand, axis) for operand, axis in places if operand.shape[axis] > 1]
        labels[letter] = next((o.labels[a] for o, a in wide if o.labels[a] is not None), None)
        for operand, axis in wide:
            op.tie(labels[letter], operand.labels[axis], operand)
        if letter in out or len(wide) == len(operands):
            size = max(operand.shape[axis] for operand, axis in places)
            factors.append(Factor(size, labels[letter]))
            if letter not in out:
                summed.append(factors[-1])
    # einsum sums a letter of one operand alone before the product, so that letter is no factor.
    if counts and len(operands) > 1:
        if op.operator != "einsum":
            op.count(*factors)
        elif summed:
            # If no summed axis is wider than 1, einsum multiplies elementwise, which counts as no MACs.
            op.count(*factors, summed=summed)
    return tuple(labels[letter] for letter in out)


def _product_operands(op: OpContext) -> tuple[Value, Value]:
    named = (("mat1", "mat2"), ("batch1", "batch2"), ("mat", "vec"), ("self", "mat2"), ("self", "other"))
    for first, second in named:
        if first in op.arguments and second in op.arguments:
            return op.tensor(first), op.tensor(second)
    raise TypeError(f"{op.where}: got arguments {sorted(op.arguments)}, expected two operands of a product")


PRODUCT_RULES: dict[str, LayerRule] = {
    "matmul": matmul,
    "mm": matmul,
    "bmm": matmul,
    "addmm": addmm,
    "baddbmm": addmm,
    "addmv": addmm,
    "addbmm": addbmm,
    "mv": vectors,
    "dot": vectors,
    "vdot": vectors,
    "outer": outer,
    "ger": outer,
    "tensordot": tensordot,
    "inner": tensordot,
    "cdist": distance,
    "einsum": einsum,
    "scaled_dot_product_attention": attention,
}
