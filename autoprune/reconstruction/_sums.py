"""Add up second moments of layers' inputs within a memory limit.

Example:
    sums = Sums(16, 1 << 30, torch.Generator(), {"classifier.0.weight": 49})
    sums.begin_batch()
    sums.add("conv1.weight", contraction, output)
    sums.layers()["conv1.weight"]      # LayerMoments
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from autoprune.reconstruction._contractions import Contraction
from autoprune.reconstruction._layer_moments import LayerMoments, split_positions

UNSEEN = "no convolution or linear layer multiplies its input with it"


@dataclass(eq=False)
class _Sum:
    """Sums over the patches of one layer.

    Attributes:
        second: float64 [groups, m, m], sum of x x^T.
        mean: float64 [groups, patch], sum of x.
        transposed: whether the layer is a transposed convolution.
        span: number of positions of each channel in a patch.
        rows: number of patches so far.
    """

    second: Tensor
    mean: Tensor
    transposed: bool
    span: int
    rows: int = 0

    @property
    def poolable(self) -> bool:
        """Whether positions can be pooled and are not pooled yet."""
        return self.span > 1 and self.second.shape[1] == self.mean.shape[1]

    def add(self, rows: Tensor) -> None:
        """Add rows [groups, rows, patch]."""
        self.rows += rows.shape[1]
        self.mean += rows.sum(dim=1)
        rows = split_positions(rows, self.mean.shape[1] // self.second.shape[1])
        # In place, since a separate product of the largest layer would double the memory.
        self.second.baddbmm_(rows.mT, rows)

    def pool(self) -> None:
        """Keep the sums over the positions of each pair of channels."""
        groups, patch, _ = self.second.shape
        channels = patch // self.span
        # Only products of two channels at the same position count, since the refit mixes channels in the
        # same way at all positions.
        pairs = self.second.view(groups, channels, self.span, channels, self.span)
        self.second = pairs.diagonal(dim1=2, dim2=4).sum(dim=-1)

    def moments(self) -> LayerMoments:
        """Turn the sums into means, in place."""
        pooled = self.mean.shape[1] // self.second.shape[1]
        # A pooled patch has added one product for each of its positions, but one mean.
        second, mean = self.second.div_(self.rows * pooled), self.mean.div_(self.rows)
        return LayerMoments(second, mean, self.rows, self.transposed)


class Sums:
    """Running sums over the patches of each layer.

    Args:
        positions: number of output positions drawn from each image.
        limit_bytes: largest memory of all sums.
        generator: draws the positions.
        flattened: {weight of a linear layer: number of consecutive inputs of each channel}.

    Attributes:
        refused: {weight: why it is left out}.
        too_large: the entries of `refused` that the memory limit leaves out.
    """

    def __init__(
        self, positions: int, limit_bytes: int, generator: torch.Generator, flattened: Mapping[str, int]
    ) -> None:
        self.refused: dict[str, str] = {}
        self.too_large: dict[str, str] = {}
        self._positions = positions
        self._limit = limit_bytes
        self._generator = generator
        self._flattened = flattened
        self._sums: dict[str, _Sum] = {}
        self._in_batch: set[str] = set()

    def begin_batch(self) -> None:
        """Start a batch: every layer may be called once in it."""
        self._in_batch.clear()

    def add(self, name: str, contraction: Contraction, output: Tensor) -> None:
        """Add the patches of one call."""
        if name in self._in_batch and name not in self.refused:
            self._sums.pop(name)
            self.refused[name] = "the model calls it more than once"
        self._in_batch.add(name)
        if name not in self.refused and name not in self._sums:
            self._begin(name, contraction)
        if name in self.refused:
            return
        places = contraction.places(output, self._positions, self._generator)
        rows = contraction.rows(output.shape, places).transpose(0, 1)  # [groups, rows, patch]
        self._sums[name].add(precise(rows))

    def _begin(self, name: str, contraction: Contraction) -> None:
        """Allocate the sums of a layer at its first call."""
        groups, _, patch = contraction.matrix(contraction.weight).shape
        span = math.prod(contraction.kernel) if contraction.kernel else self._flattened.get(name, 1)
        on = precise_device(contraction.weight.device)
        # On the meta device first, so that a layer that is too large never takes memory.
        second = torch.empty(groups, patch, patch, dtype=torch.float64, device="meta")
        mean = torch.zeros(groups, patch, dtype=torch.float64, device=on)
        self._sums[name] = _Sum(second, mean, contraction.transposed, span)
        self._make_room()
        # `_make_room` may have left out this very layer.
        if name in self._sums:
            self._sums[name].second = torch.zeros_like(self._sums[name].second, device=on)

    def _make_room(self) -> None:
        """Pool the largest layers that can be pooled, then leave out the largest, until the limit is met."""
        sizes = {name: each.second.nbytes for name, each in self._sums.items()}
        while sum(sizes.values()) > self._limit:
            whole = [name for name, each in self._sums.items() if each.poolable]
            largest = max(whole or sizes, key=sizes.__getitem__)
            if whole:
                self._sums[largest].pool()
                sizes[largest] = self._sums[largest].second.nbytes
                continue
            del self._sums[largest]
            megabytes = sizes.pop(largest) / 2**20
            reason = f"its moments take {megabytes:,.0f} MB, which exceeds the limit of all layers together"
            self.refused[largest] = self.too_large[largest] = reason

    def layers(self) -> dict[str, LayerMoments]:
        """Return the moments. No more rows can be added afterwards."""
        return {name: each.moments() for name, each in self._sums.items() if each.rows}


def precise_device(device: torch.device) -> torch.device:
    """Return the device for float64 sums: the given one, or the CPU instead of MPS, which has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def precise(tensor: Tensor) -> Tensor:
    """Return a tensor as float64 on its `precise_device`."""
    return tensor.to(precise_device(tensor.device)).double()
