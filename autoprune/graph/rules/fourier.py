"""Rules of Fourier transforms and complex numbers: transformed axes are frozen, all others stay free."""

from __future__ import annotations

from autoprune.graph.context import LayerRule, OpContext, Value
from autoprune.graph.labels import LabelVector

_FREQUENCIES = "mixes all positions of the axis into frequencies"


def transform(op: OpContext) -> Value:
    """Freeze the transformed axes and carry the others."""
    source = op.tensors()[0]
    default = () if op.operator.endswith("n") or op.operator.endswith("shift") else (-1, -2)
    if op.arguments.get("dim") is None and default:
        axes = tuple(axis % len(source.shape) for axis in default)
    else:
        axes = op.axes("dim", len(source.shape))
    labels: list[LabelVector | None] = list(source.labels)
    for axis in axes:
        op.freeze(labels[axis], _FREQUENCIES)
        labels[axis] = None
    return op.output(labels)


def as_real(op: OpContext) -> Value:
    """Append the axis of the real and imaginary parts."""
    return op.output((*op.tensors()[0].labels, None))


def as_complex(op: OpContext) -> Value:
    """Remove the axis of the real and imaginary parts."""
    source = op.tensors()[0]
    op.structural(source.labels[-1])
    return op.output(source.labels[:-1])


FOURIER_RULES: dict[str, LayerRule] = {
    **dict.fromkeys(
        (
            *(f"fft_{kind}fft{n}" for kind in ("", "i", "r", "ir", "h", "ih") for n in ("", "2", "n")),
            *("fft_fftshift", "fft_ifftshift", "_fft_c2c", "_fft_r2c", "_fft_c2r"),
        ),
        transform,
    ),
    "view_as_real": as_real,
    "view_as_complex": as_complex,
}
