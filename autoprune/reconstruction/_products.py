"""Products of a dense layer's outputs and inputs, computed once for each dense model from its moments.

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
from autoprune.reconstruction._second_moments import Moments


@dataclass(frozen=True, eq=False)
class Product:
    """Second moments of a dense layer's outputs y, without the constant, and its inputs x.

    With pooled positions there is one output for each position, as `LayerMoments.pooled` splits weights.

    Attributes:
        cross: [groups, outputs, m], mean of y x^T, in the type of the weights.
        power: float64 [groups, outputs], mean of y^2.
        mean: float64 [groups, outputs], mean of y. Even with pooled positions it is that of whole outputs.
    """

    cross: Tensor
    power: Tensor
    mean: Tensor


@dataclass(eq=False)
class Products:
    """The products of one dense model. They are cached, since the repair of every candidate needs them.

    Attributes:
        model: the dense model.
        moments: its moments, on `device`.
        device: device of the products and of the fits of candidates.
    """

    model: nn.Module
    moments: Moments
    device: torch.device
    _known: dict[tuple[str, bool, int], Product] = field(default_factory=dict)

    def __call__(self, name: str, *, centred: bool) -> Product:
        """Return the product of one layer.

        Args:
            name: name of the weight.
            centred: whether the moments are about the mean.
        """
        weight = self.model.get_parameter(name)
        key = (name, centred, weight._version)
        if key not in self._known:
            self._known[key] = self._compute(name, weight.detach(), centred)
        return self._known[key]

    def _compute(self, name: str, weight: Tensor, centred: bool) -> Product:
        layer = self.moments.layers[name]
        matrices = to_matrices(weight, layer.groups, transposed=layer.transposed)
        matrices = matrices.to(layer.second.device).double()
        mean = (matrices @ layer.mean[..., None])[..., 0]
        pooled = layer.pooled(matrices)
        cross = pooled @ layer.second
        if centred:
            # This avoids a centred copy of the second moment, which is the largest tensor.
            means = layer.pooled(layer.mean[:, None])
            cross -= (pooled @ means.mT) @ means / layer.span
        power = (cross * pooled).sum(dim=2)
        return Product(cross.to(weight.dtype), power, mean)


_PRODUCTS: WeakKeyDictionary[Moments, Products] = WeakKeyDictionary()


def products_of(model: nn.Module, moments: Moments, device: torch.device) -> Products:
    """Return the products of a dense model on a device. They are cached as long as its moments live."""
    known = _PRODUCTS.get(moments)
    if known is None or known.model is not model or known.device != device:
        # `to` returns a new object: a weak table whose value held its own key would never free it.
        known = _PRODUCTS[moments] = Products(model, moments.to(device), device)
    return known
