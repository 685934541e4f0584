"""Products and factors of a dense layer's moments, computed once for each dense model.

Example:
    given = products_of(model, moments, torch.device("cpu"))
    given("conv1.weight", centred=True).cross      # [groups, outputs, inputs], mean of y x^T
"""

from __future__ import annotations

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from autoprune.reconstruction._contractions import to_matrices
from autoprune.reconstruction._factors import Factor, factorise
from autoprune.reconstruction._second_moments import LIMIT_BYTES, Moments


@dataclass(frozen=True, eq=False)
class Product:
    """Second moments of a dense layer's outputs y, without the constant, and its inputs x.

    With pooled positions there is one output for each position, as `LayerMoments.pooled` splits weights.

    Attributes:
        cross: [groups, outputs, m], mean of y x^T, in the type of the weights.
        power: float64 [groups, outputs], mean of y^2.
    """

    cross: Tensor
    power: Tensor


@dataclass(eq=False)
class Products:
    """The products and factors of one dense model. They are cached, since every candidate needs them.

    Attributes:
        model: the dense model.
        moments: its moments, on `device`.
        device: device of the products and of the fits of candidates.
        limit_bytes: largest memory of moments and factors together.
    """

    model: nn.Module
    moments: Moments
    device: torch.device
    limit_bytes: int = LIMIT_BYTES
    _known: dict[tuple[str, bool, int], Product] = field(default_factory=dict)
    _means: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    _factors: dict[tuple[object, ...], Factor] = field(default_factory=dict)
    _chosen: dict[int, set[str]] = field(default_factory=dict)

    def __call__(self, name: str, *, centred: bool) -> Product:
        """Return the product of one layer.

        Args:
            name: name of the weight.
            centred: whether the moments are about the mean.
        """
        # PyTorch increments `_version` at each change in place, so further training gives new products.
        key = (name, centred, self.model.get_parameter(name)._version)
        if key not in self._known:
            self._known[key] = self._compute(name, centred)
        return self._known[key]

    def mean(self, name: str) -> Tensor:
        """Return the mean of a layer's outputs without the constant, float64 [channels]."""
        key = (name, self.model.get_parameter(name)._version)
        if key not in self._means:
            means = self._matrices(name) @ self.moments.layers[name].mean[..., None]
            self._means[key] = means.flatten()
        return self._means[key]

    def factor(
        self, name: str, order: Tensor, strength: float, *, centred: bool, dtype: torch.dtype
    ) -> Factor | None:
        """Return the factor of a layer without groups, or None if the memory limit leaves it out.

        Beyond the limit, the factors that were not used for longest are dropped.

        Args:
            name: name of the weight.
            order: int64 [m], the inputs, the most important first.
            strength: strength of the ridge.
            centred: whether the moments are about the mean.
            dtype: type of the factor.
        """
        if name not in self._factorised(dtype.itemsize):
            return None
        version = self.model.get_parameter(name)._version
        key = (name, centred, version, strength, dtype, order.cpu().numpy().tobytes())
        known = self._factors.pop(key, None)
        if known is None:
            layer = self.moments.layers[name]
            self._make_room(self._factor_bytes(name, dtype.itemsize))
            moment = layer.ordered(order, centred=centred, dtype=dtype)
            known = factorise(moment, layer.pooled(self._matrices(name))[0], order, strength)
        self._factors[key] = known
        return known

    def _make_room(self, needed: int) -> None:
        """Drop the factors that were not used for longest."""
        sizes = {key: factor.nbytes for key, factor in self._factors.items()}
        # `factor` moves each key that it uses to the end, so the oldest come first.
        for key in sizes:
            if sum(sizes[each] for each in self._factors) + needed > self._room:
                del self._factors[key]

    @property
    def _room(self) -> int:
        """Memory for factors."""
        return self.limit_bytes - sum(layer.second.nbytes for layer in self.moments.layers.values())

    def _factorised(self, itemsize: int) -> set[str]:
        """Return the layers whose factors fit in memory together, the largest first.

        They depend on the moments alone. Otherwise the rounding of a repair would depend on those before it.
        """
        if itemsize not in self._chosen:
            self._chosen[itemsize] = self._choose(itemsize)
        return self._chosen[itemsize]

    def _choose(self, itemsize: int) -> set[str]:
        room, chosen = self._room, set()
        layers = {name: layer for name, layer in self.moments.layers.items() if layer.groups == 1}
        for name in sorted(layers, key=lambda name: -layers[name].second.nbytes):
            needed = self._factor_bytes(name, itemsize)
            if needed <= room:
                room -= needed
                chosen.add(name)
        return chosen

    def _factor_bytes(self, name: str, itemsize: int) -> int:
        """Return the size of the factor of a layer, which has a part for each weight."""
        weight = self.model.get_parameter(name)
        return (self.moments.layers[name].second[0].numel() + weight.numel()) * itemsize

    def _matrices(self, name: str) -> Tensor:
        """Return the weight of a layer as float64 matrices."""
        layer = self.moments.layers[name]
        weight = self.model.get_parameter(name).detach()
        matrices = to_matrices(weight, layer.groups, transposed=layer.transposed)
        return matrices.to(layer.second.device).double()

    def _compute(self, name: str, centred: bool) -> Product:
        layer = self.moments.layers[name]
        pooled = layer.pooled(self._matrices(name))
        cross = pooled @ layer.second
        if centred:
            # This avoids a centred copy of the second moment, which is the largest tensor.
            means = layer.pooled(layer.mean[:, None])
            cross -= (pooled @ means.mT) @ means / layer.span
        power = (cross * pooled).sum(dim=2)
        return Product(cross.to(self.model.get_parameter(name).dtype), power)


_PRODUCTS: WeakKeyDictionary[Moments, Products] = WeakKeyDictionary()


def products_of(model: nn.Module, moments: Moments, device: torch.device) -> Products:
    """Return the products of a dense model on a device. They are cached as long as its moments live."""
    known = _PRODUCTS.get(moments)
    if known is None or known.model is not model or known.device != device:
        # `to` returns a new object: a weak table whose value held its own key would never free it.
        known = _PRODUCTS[moments] = Products(model, moments.to(device), device)
    return known
