from __future__ import annotations

import gc
import weakref

import torch
from torch import nn

from autoprune.reconstruction import Moments, measure_model
from autoprune.reconstruction._products import products_of
from tests.reconstruction.nets import Residual, images, trained_like

CPU = torch.device("cpu")
NAME = "second.0.weight"


def measured(positions: int = 10**6) -> tuple[nn.Module, Moments]:
    model = trained_like(Residual())
    return model, measure_model(model, [images()], positions=positions)


def test_a_product_is_that_of_the_outputs_and_inputs() -> None:
    model, moments = measured()
    products = products_of(model, moments, CPU)
    product = products(NAME, centred=False)
    with torch.no_grad():
        first = torch.relu(model.get_submodule("stem")(images()))
        inputs = torch.relu(model.get_submodule("first")(first))
        rows = nn.functional.unfold(inputs, 3, padding=1).transpose(1, 2).flatten(0, 1)
        outputs = model.get_submodule("second.0")(inputs).movedim(1, -1).flatten(0, 2)
    torch.testing.assert_close(product.cross[0], outputs.T @ rows / len(rows))
    torch.testing.assert_close(product.power[0], outputs.square().mean(dim=0))
    torch.testing.assert_close(products.mean(NAME), outputs.mean(dim=0))
    centred = products_of(model, moments, CPU)(NAME, centred=True)
    torch.testing.assert_close(centred.power[0], outputs.var(dim=0, correction=0))


def test_it_is_computed_once_until_the_weights_change() -> None:
    model, moments = measured(positions=4)
    first = products_of(model, moments, CPU)(NAME, centred=True)
    assert products_of(model, moments, CPU)(NAME, centred=True) is first
    with torch.no_grad():
        model.get_parameter(NAME).mul_(2)
    torch.testing.assert_close(products_of(model, moments, CPU)(NAME, centred=True).power, 4 * first.power)
    other = trained_like(Residual(), seed=1)
    assert not torch.equal(products_of(other, moments, CPU)(NAME, centred=True).cross, first.cross)


def test_products_go_with_their_moments() -> None:
    model, moments = measured(positions=4)
    product = weakref.ref(products_of(model, moments, CPU)(NAME, centred=True))
    assert product() is not None
    del moments
    gc.collect()
    assert product() is None
