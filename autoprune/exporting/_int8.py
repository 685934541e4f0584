"""Quantise an ONNX file to int8 by ONNX Runtime: 8-bit weights per channel, and 8-bit activations.

The ranges of the activations are calibrated on images. Nothing is trained.

Example:
    batches = [np.zeros((32, 3, 224, 224), np.float32)]
    quantise(Path("model.onnx"), Path("model.int8.onnx"), batches, method="minmax")
"""

from __future__ import annotations

import contextlib
import io
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from autoprune.errors import ExportError, reason_of
from autoprune.exporting._onnx import read_signature
from autoprune.support.cpu import cpu_facts

CALIBRATIONS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
"""{name: member of onnxruntime's CalibrationMethod}."""

_DOT_PRODUCTS = ("avx512_vnni", "avx_vnni", "amx_int8")
"""Instruction sets of x86 CPUs that add products of bytes without saturation."""


def may_saturate() -> bool:
    """Return whether sums of products of bytes may saturate on this CPU: on x86 without VNNI or AMX."""
    if platform.machine().lower() not in ("x86_64", "amd64", "i686", "x86"):
        return False
    return not set(cpu_facts()["flags"].split()) & set(_DOT_PRODUCTS)


def quantise(
    source: Path,
    target: Path,
    batches: Sequence[NDArray[Any]],
    *,
    method: str = "minmax",
    reduce_range: bool = False,
) -> None:
    """Write an int8 version of an ONNX file, with QuantizeLinear and DequantizeLinear around its operators.

    Args:
        source: the file, with one input.
        target: the file to write.
        batches: images to calibrate with. "entropy" and "percentile" keep all activations on them in memory.
        method: a name in CALIBRATIONS.
        reduce_range: whether weights have 7 bits, so that sums do not saturate on x86 CPUs without VNNI.

    Raises:
        ExportError: the file has several inputs, or it cannot be quantised.
    """
    inputs = read_signature(source).inputs
    if len(inputs) != 1:
        raise ExportError(f"{source}: has {len(inputs)} inputs, expected one to calibrate int8 with.")
    try:
        with tempfile.TemporaryDirectory(prefix="autoprune-") as folder:
            prepared = Path(folder) / "prepared.onnx"
            _prepare(source, prepared)
            _quantise(prepared, target, inputs[0].name, batches, method, reduce_range=reduce_range)
    except Exception as error:  # onnxruntime may raise anything
        raise ExportError(f"{source}: cannot be quantised to int8: {reason_of(error)}") from error


def _prepare(source: Path, target: Path) -> None:
    """Infer shapes and fuse operators, so that a convolution and its BatchNorm are quantised as one."""
    from onnxruntime.quantization.shape_inference import (  # type: ignore[import-untyped]  # ships no types
        quant_pre_process,
    )

    try:
        quant_pre_process(source, target)
    except Exception:  # symbolic inference does not know all operators, and is optional
        quant_pre_process(source, target, skip_symbolic_shape=True)


def _quantise(
    source: Path,
    target: Path,
    name: str,
    batches: Sequence[NDArray[Any]],
    method: str,
    *,
    reduce_range: bool,
) -> None:
    from onnxruntime.quantization import (  # type: ignore[import-untyped]  # ships no types
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # its base is untyped
        def __init__(self) -> None:
            self._left = iter(batches)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            batch = next(self._left, None)
            return None if batch is None else {name: batch}

    # The calibration prints its progress, which would end up in a command's JSON.
    with contextlib.redirect_stdout(io.StringIO()):
        quantize_static(
            source,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[CALIBRATIONS[method]],
        )
