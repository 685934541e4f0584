"""Masks against oracles: the share of zeros, the shape of the units, torch's own pruning, scores by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from autoprune.errors import MaskError
from autoprune.masks import GRANULARITIES, MaskRule, Masks, make_masks
from tests.masks.nets import DATA, net, traced

LAYERS = ["stem.weight", "inner.weight", "outer.weight", "head.weight"]


def units(mask: torch.Tensor, granularity: str) -> torch.Tensor:
    """Return the mask with an axis of the weights of each unit at its end."""
    shape = {"weight": mask.shape, "filter": mask.shape[:1], "kernel": mask.shape[:2]}
    vectors = mask.shape[:-1] if mask.ndim > 2 else mask.shape
    return mask.reshape(*{**shape, "vector": vectors}[granularity], -1)


@pytest.mark.parametrize("granularity", ["weight", "vector", "kernel", "filter"])
@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.75])
def test_each_layer_drops_its_share_of_whole_units_the_smallest(granularity: str, sparsity: float) -> None:
    model = net()
    masks = make_masks(model, sparsity, granularity=granularity)
    assert list(masks) == LAYERS
    for name, mask in masks.items():
        kept = units(mask, granularity)
        assert bool((kept.all(-1) | ~kept.any(-1)).all())
        alive = kept.all(-1)
        assert int((~alive).sum()) == round(sparsity * alive.numel())
        sizes = units(model.get_parameter(name).detach().abs(), granularity).mean(-1)
        if sparsity:
            assert float(sizes[~alive].max()) <= float(sizes[alive].min())


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_weights_by_magnitude_equal_torchs_pruning(scope: str) -> None:
    model, theirs = net(), net()
    masks = make_masks(model, 0.6, scope=scope)
    modules = [(theirs.get_submodule(name.rpartition(".")[0]), "weight") for name in LAYERS]
    if scope == "global":
        prune.global_unstructured(modules, pruning_method=prune.L1Unstructured, amount=0.6)
    else:
        for module, name in modules:
            prune.L1Unstructured.apply(module, name, amount=0.6)  # type: ignore[no-untyped-call]  # torch's
    for name in LAYERS:
        assert torch.equal(masks[name], theirs.get_buffer(f"{name}_mask").bool()), name


def test_a_global_ranking_counts_weights_and_leaves_no_layer_empty() -> None:
    model = net()
    with torch.no_grad():
        model.inner.weight.mul_(1e-3)
    masks = make_masks(model, 0.7, granularity="kernel", scope="global")
    assert int(masks["inner.weight"].flatten(2).all(-1).sum()) == 1
    largest_unit = 9
    total = sum(mask.numel() for mask in masks.values())
    assert 0.7 - largest_unit / total < masks.sparsity <= 0.7


def test_two_of_every_four_inputs_stay_the_largest() -> None:
    model = net()
    masks = make_masks(model, 0.5, granularity="2:4", skip=["stem"])
    assert list(masks) == LAYERS[1:]
    for name, mask in masks.items():
        fours = mask.movedim(1, -1).reshape(-1, 4)
        assert bool((fours.sum(1) == 2).all())
        sizes = model.get_parameter(name).detach().abs().movedim(1, -1).reshape(-1, 4)
        dropped, kept = sizes.masked_fill(fours, 0).amax(1), sizes.masked_fill(~fours, torch.inf).amin(1)
        assert bool((dropped <= kept).all())


def test_two_of_four_on_widths_that_do_not_divide_is_one_line() -> None:
    with pytest.raises(MaskError, match=r'does not in stem.weight \(1 inputs\)\. .* skip=\["stem"\]'):
        make_masks(net(), 0.5, granularity="2:4")
    with pytest.raises(MaskError, match=r'sparsity: got 0.8, but "2:4" keeps half of the weights'):
        make_masks(net(), 0.8, granularity="2:4", skip=["stem"])


def test_activation_scores_a_linear_weight_by_the_norm_of_its_input() -> None:
    with torch.no_grad():
        model = nn.Sequential(nn.Linear(6, 4))
        inputs = torch.randn(5, 3, 6) * torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
        wanda = model.get_parameter("0.weight").abs() * inputs.flatten(0, 1).norm(dim=0)
    data = [(inputs[:2], torch.zeros(2)), (inputs[2:], torch.zeros(3))]
    mask = make_masks(model, 0.5, score="activation", data=data)["0.weight"]
    assert torch.equal(mask.flatten(), wanda.flatten() >= wanda.flatten().sort().values[12])


def test_activation_scores_a_grouped_convolution_by_its_own_inputs() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1, groups=2, bias=False))
    nn.init.ones_(model.get_parameter("0.weight"))
    inputs = torch.randn(3, 4, 5, 5) * torch.tensor([1.0, 5.0, 9.0, 3.0]).reshape(4, 1, 1)
    mask = make_masks(model, 0.5, score="activation", data=[(inputs, torch.zeros(3))])["0.weight"]
    assert mask.flatten(1).tolist() == [[False, True]] * 2 + [[True, False]] * 2


def test_gradient_scores_by_weight_times_gradient() -> None:
    model = net().eval()
    batches = list(DATA.val)[:2]
    mask = make_masks(model, 0.5, score="gradient", data=batches)["head.weight"]
    sum(nn.functional.cross_entropy(model(x), y) for x, y in batches).backward()  # type: ignore[union-attr]
    weight = model.head.weight
    assert weight.grad is not None
    scores = (weight * weight.grad).abs().flatten()
    assert torch.equal(mask.flatten(), scores >= scores.sort().values[160])


def test_what_scores_read_leaves_model_and_modes() -> None:
    model = net().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for score in ("gradient", "activation"):
        make_masks(model, 0.5, score=score, data=DATA.val)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.head._forward_pre_hooks


def test_growing_masks_keep_the_masked_weights() -> None:
    rule, model = MaskRule("kernel"), net()
    first = rule.masks(model, 0.3, None, nn.functional.cross_entropy)
    with torch.no_grad():
        for name, mask in first.items():
            model.get_parameter(name).masked_fill_(~mask, 100.0)
    second = rule.masks(model, 0.6, None, nn.functional.cross_entropy, before=first)
    assert all(not bool((second[name] & ~mask).any()) for name, mask in first.items())
    assert second.sparsity == pytest.approx(0.6, abs=0.01)


def test_skipped_modules_stay_dense() -> None:
    assert list(make_masks(traced(), 0.5, skip=["inner", "head"])) == ["stem.weight", "outer.weight"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"granularity": "kernels"}, r'mask.granularity: unknown name "kernels"\. Did you mean "kernel"'),
        ({"scope": "all"}, 'mask.scope: unknown name "all"'),
        ({"score": "magnitud"}, 'mask.score: unknown name "magnitud". Did you mean "magnitude"'),
        ({"skip": ["heat"]}, 'mask.skip: unknown module "heat". Did you mean "head"'),
        ({"score": "activation"}, 'score "activation": needs images. Give data'),
        ({"sparsity": 1.0}, r"sparsity: got 1.0, expected the share of weights to drop, in \[0, 1\)"),
        ({"sparsity": float("nan")}, "sparsity: got nan"),
    ],
)
def test_bad_arguments_are_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(MaskError, match=message):
        make_masks(net(), **{"sparsity": 0.5, **arguments})


def test_a_model_without_layers_is_one_line() -> None:
    with pytest.raises(MaskError, match="ReLU has no convolution or linear layer to mask"):
        make_masks(nn.ReLU(), 0.5)


def test_every_granularity_describes_its_units() -> None:
    assert list(GRANULARITIES) == ["weight", "vector", "kernel", "filter", "2:4"]
    assert all(row.about for row in GRANULARITIES.values())
    assert repr(Masks({"a": torch.tensor([True, False])})) == (
        "<Masks of 1 parameters, 50.0% of their weights are zero>"
    )
