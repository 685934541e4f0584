"""What a dense model's layers give out, as the moments of their inputs have it: computed once a dense model.

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
    """A dense layer's outputs y, without the constant, beside its inputs x.

    With pooled positions each output counts once for each position, as `LayerMoments.pooled` splits it.

    Attributes:
        cross: [groups, outputs, m], the mean of y x^T, in the type of the weights.
        power: float64 [groups, outputs], the mean of y^2.
        mean: float64 [groups, outputs], the mean of y; of whole outputs, also with pooled positions.
    """

    cross: Tensor
    power: Tensor
    mean: Tensor


@dataclass(eq=False)
class Products:
    """The products of one dense model; each is kept, since every candidate asks for it.

    Attributes:
        model: the dense model.
        moments: its moments, on `device`.
        device: where products are computed, and candidates are refitted.
    """

    model: nn.Module
    moments: Moments
    device: torch.device
    _known: dict[tuple[str, bool, int], Product] = field(default_factory=dict)

    def __call__(self, name: str, *, centred: bool) -> Product:
        """Return the product of one layer.

        Args:
            name: of the weight.
            centred: whether moments are about the mean.
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
            # Without a copy of the second moment, the largest tensor that there is.
            means = layer.pooled(layer.mean[:, None])
            cross -= (pooled @ means.mT) @ means / layer.span
        power = (cross * pooled).sum(dim=2)
        return Product(cross.to(weight.dtype), power, mean)


_PRODUCTS: WeakKeyDictionary[Moments, Products] = WeakKeyDictionary()


def products_of(model: nn.Module, moments: Moments, device: torch.device) -> Products:
    """Return the products of a dense model, computed on a device; they live as long as its moments."""
    known = _PRODUCTS.get(moments)
    if known is None or known.model is not model or known.device != device:
        # Not the moments themselves but a twin: a table must not keep its own key alive.
        known = _PRODUCTS[moments] = Products(model, moments.to(device), device)
    return known
