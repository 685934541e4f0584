"""Error library: the output error that each channel group causes at every width, from moments alone.

Example:
    library = error_library(model, prunable.searchable, measured)
    library.curves["layer1.0.conv1"].at(0.5)         # error with half of the channels and refitted readers
    library.estimated                                # {group: why its curve is an estimate}
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from autoprune.graph import ChannelGroup
from autoprune.reconstruction._elimination import Elimination, eliminate, errors_along
from autoprune.reconstruction._leastsquares import RIDGE
from autoprune.reconstruction._readers import Readers, unmeasured_readers
from autoprune.reconstruction._second_moments import Moments
from autoprune.support.arrays import FloatArray, IntArray

RATIOS = (0.75, 0.5, 0.25, 0.12)
"""Keep ratios at which curves are printed and stored."""

UNREAD = "no convolution or linear layer reads it"
"""Reason why the curve of a group without readers is an estimate."""


@dataclass(frozen=True, eq=False)
class ErrorCurve:
    """The error that one group causes at every width.

    Attributes:
        errors: float64 [width + 1], not increasing. Entry w is the error with w channels: the sum over
            readers of the lost share of their output's mean square. The last entry is 0.
        order: int64 [width], the channels, the most important first, or None if no reader has moments.
        estimate: reason why some errors are not measured, or None if all are.
    """

    errors: FloatArray
    order: IntArray | None = None
    estimate: str | None = None

    @property
    def width(self) -> int:
        """Number of channels of the dense group."""
        return len(self.errors) - 1

    def at(self, ratio: float) -> float:
        """Return the error at a keep ratio in [0, 1], linear between widths."""
        return float(np.interp(ratio * self.width, np.arange(len(self.errors)), self.errors))


@dataclass(frozen=True, eq=False)
class ErrorLibrary:
    """The error curves of a model's channel groups.

    Attributes:
        curves: {name of the group: its curve}.
    """

    curves: Mapping[str, ErrorCurve]

    @property
    def estimated(self) -> dict[str, str]:
        """Return {name of the group: why its curve is an estimate}."""
        return {name: curve.estimate for name, curve in self.curves.items() if curve.estimate is not None}

    def to_json(self) -> dict[str, Any]:
        """Return JSON values for a study: the curves as short texts, and for people a few errors of each."""
        return {
            "ratios": list(RATIOS),
            "errors": {name: [curve.at(ratio) for ratio in RATIOS] for name, curve in self.curves.items()},
            "estimated": self.estimated,
            "curves": {
                name: base64.b64encode(zlib.compress(curve.errors.astype("<f8").tobytes(), 9)).decode("ascii")
                for name, curve in self.curves.items()
            },
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], widths: Mapping[str, int]) -> ErrorLibrary:
        """Read the curves of some groups, whose dense widths are known. They have no order of channels.

        Raises:
            ValueError: a curve is missing, as in studies of earlier versions, or is damaged.
        """
        texts, estimated = values.get("curves"), values.get("estimated")
        if not isinstance(texts, Mapping) or not isinstance(estimated, Mapping):
            raise ValueError("curves: missing")
        return cls({name: _read_curve(name, texts, widths[name], estimated.get(name)) for name in widths})

    def total(self, widths: Mapping[str, int]) -> float:
        """Return the summed error of groups at these widths. A group that is not named is whole."""
        return sum(float(self.curves[name].errors[width]) for name, width in widths.items())


def _read_curve(name: str, texts: Mapping[str, Any], width: int, estimate: object) -> ErrorCurve:
    """Read the curve of a group.

    Raises:
        ValueError: it is missing or damaged.
    """
    length = 8 * (width + 1)
    try:
        content = zlib.decompressobj().decompress(base64.b64decode(texts[name]), length)
    except (zlib.error, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"curves: {name}: {type(error).__name__}") from error
    errors = np.frombuffer(content[: len(content) // 8 * 8], "<f8").astype(np.float64)
    if len(content) != length or not np.isfinite(errors).all() or (np.diff(errors) > 0).any():
        raise ValueError(f"curves: {name}: no curve of {width} channels")
    return ErrorCurve(errors, None, None if estimate is None else str(estimate))


def error_library(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    moments: Moments,
    *,
    orders: Mapping[str, IntArray] | None = None,
    ridge: float = RIDGE,
    done: Callable[[int], None] | None = None,
) -> ErrorLibrary:
    """Find the error of every group at every width, with refitted readers and all other groups whole.

    One backward elimination for each group gives its curve and the order of its channels. With a known order
    the curve takes a fraction of that time. The error includes the ridge's pull towards the dense weights, so
    it is slightly larger than that of `refit`.

    A reader without moments gets the mean error of the group's other readers. If none of a group's readers
    has moments, each of them gets the mean error of all measured readers of the model at the same keep ratio.
    A group without readers counts as having one. If nothing was measured, that is (1 - keep ratio)^2.

    Args:
        model: the dense model.
        groups: the groups to measure, such as `prunable.searchable`.
        moments: moments of the model's layers.
        orders: {name of the group: its channels, int64 [width], the most important first}.
        ridge: as in `eliminate`.
        done: called after each group with the number of groups that are done.

    Reference: Frantar and Alistarh, SPDY: Accurate Pruning with Speedup Guarantees, ICML 2022, choose the
    sparsities of layers by a dynamic programme over such errors. Here the error of a width is that of the
    output with refitted weights, summed over all readers of a channel group.
    """
    found_by = Readers(model, moments)
    measured: dict[str, _Measured] = {}
    for number, group in enumerate(groups, start=1):
        if readers := found_by.of(group):
            if orders is None:
                found = eliminate(readers, group.width, ridge=ridge)
            else:
                removed = orders[group.name][::-1]
                found = Elimination(removed, errors_along(readers, removed, ridge=ridge))
            # By rounding, an error may be about 1e-17 below the one before it.
            # Entry k is the error after k removals. In reverse order, entry w is the error with w channels.
            errors = np.maximum.accumulate(np.concatenate([[0.0], found.errors]))[::-1]
            measured[group.name] = _Measured(errors, found.order[::-1].copy(), len(found_by.names(group)))
        if done is not None:
            done(number)
    typical = _typical([each.errors / each.layers for each in measured.values()])
    curves: dict[str, ErrorCurve] = {}
    for group in groups:
        missing = unmeasured_readers(model, group, moments)
        reason = "; ".join(f"{name}: {why}" for name, why in missing.items()) or None
        if known := measured.get(group.name):
            scale = 1 + len(missing) / known.layers
            curves[group.name] = ErrorCurve(known.errors * scale, known.order, reason)
        else:
            errors = max(1, len(missing)) * typical(np.arange(group.width + 1) / group.width)
            curves[group.name] = ErrorCurve(errors, None, reason or UNREAD)
    return ErrorLibrary(curves)


@dataclass(frozen=True, eq=False)
class _Measured:
    """The result for one group: errors [width + 1], order of its channels, number of measured readers."""

    errors: FloatArray
    order: IntArray
    layers: int


def _typical(curves: Sequence[FloatArray]) -> Callable[[FloatArray], FloatArray]:
    """Return the mean of curves as a function of the keep ratio."""

    def mean(ratios: FloatArray) -> FloatArray:
        if not curves:
            return (1 - ratios) ** 2
        at = [np.interp(ratios, np.linspace(0, 1, len(curve)), curve) for curve in curves]
        average: FloatArray = np.mean(at, axis=0)
        return average

    return mean
