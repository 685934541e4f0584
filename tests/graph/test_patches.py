from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from autoprune.errors import PlanError
from autoprune.graph.patches import PATCH_RULES, Patch, apply_patches, patches_for, read_patches


def own_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


PAIRS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "conv1d": (lambda: nn.Conv1d(6, 8, 3), lambda: nn.Conv1d(3, 5, 3)),
    "conv2d": (lambda: nn.Conv2d(6, 8, 3), lambda: nn.Conv2d(3, 5, 3)),
    "conv3d": (lambda: nn.Conv3d(6, 8, 3), lambda: nn.Conv3d(3, 5, 3)),
    "depthwise": (lambda: nn.Conv2d(16, 16, 3, groups=16), lambda: nn.Conv2d(7, 7, 3, groups=7)),
    "depthwise, multiplier 2": (lambda: nn.Conv2d(8, 16, 3, groups=8), lambda: nn.Conv2d(3, 6, 3, groups=3)),
    "grouped": (lambda: nn.Conv2d(8, 12, 3, groups=4), lambda: nn.Conv2d(6, 9, 3, groups=3)),
    "grouped, one group left": (lambda: nn.Conv2d(8, 12, 3, groups=4), lambda: nn.Conv2d(2, 3, 3)),
    "few wide groups": (lambda: nn.Conv2d(8, 12, 3, groups=2), lambda: nn.Conv2d(6, 10, 3, groups=2)),
    "transposed 1d": (lambda: nn.ConvTranspose1d(6, 8, 3), lambda: nn.ConvTranspose1d(4, 5, 3)),
    "transposed 2d": (lambda: nn.ConvTranspose2d(6, 8, 3), lambda: nn.ConvTranspose2d(4, 5, 3)),
    "transposed 3d": (lambda: nn.ConvTranspose3d(6, 8, 3), lambda: nn.ConvTranspose3d(4, 5, 3)),
    "transposed, grouped": (
        lambda: nn.ConvTranspose2d(8, 12, 3, groups=4),
        lambda: nn.ConvTranspose2d(6, 9, 3, groups=3),
    ),
    "transposed, few wide groups": (
        lambda: nn.ConvTranspose2d(8, 12, 3, groups=2),
        lambda: nn.ConvTranspose2d(6, 10, 3, groups=2),
    ),
    "linear": (lambda: nn.Linear(6, 8), lambda: nn.Linear(3, 5)),
    "bilinear": (lambda: nn.Bilinear(6, 7, 8), lambda: nn.Bilinear(3, 4, 5)),
    "batch norm 1d": (lambda: nn.BatchNorm1d(8), lambda: nn.BatchNorm1d(5)),
    "batch norm 2d": (lambda: nn.BatchNorm2d(8), lambda: nn.BatchNorm2d(5)),
    "batch norm 3d": (lambda: nn.BatchNorm3d(8), lambda: nn.BatchNorm3d(5)),
    "batch norm without scale": (
        lambda: nn.BatchNorm2d(8, affine=False),
        lambda: nn.BatchNorm2d(5, affine=False),
    ),
    "sync batch norm": (lambda: nn.SyncBatchNorm(8), lambda: nn.SyncBatchNorm(5)),
    "instance norm": (lambda: nn.InstanceNorm2d(8, affine=True), lambda: nn.InstanceNorm2d(5, affine=True)),
    "group norm": (lambda: nn.GroupNorm(2, 8), lambda: nn.GroupNorm(2, 6)),
    "layer norm": (lambda: nn.LayerNorm(8), lambda: nn.LayerNorm(5)),
    "layer norm over two axes": (lambda: nn.LayerNorm((8, 4)), lambda: nn.LayerNorm((5, 4))),
    "rms norm": (lambda: nn.RMSNorm(8), lambda: nn.RMSNorm(5)),
    "prelu": (lambda: nn.PReLU(8), lambda: nn.PReLU(5)),
    "prelu of one slope": (lambda: nn.PReLU(), lambda: nn.PReLU()),
    "embedding": (lambda: nn.Embedding(10, 8), lambda: nn.Embedding(10, 5)),
    "embedding bag": (lambda: nn.EmbeddingBag(10, 8), lambda: nn.EmbeddingBag(10, 5)),
    "attention": (lambda: nn.MultiheadAttention(8, 2), lambda: nn.MultiheadAttention(6, 2)),
    "attention, keys apart": (
        lambda: nn.MultiheadAttention(8, 2, kdim=5, vdim=7),
        lambda: nn.MultiheadAttention(6, 2, kdim=3, vdim=4),
    ),
    "weight norm": (lambda: weight_norm(nn.Conv2d(6, 8, 3)), lambda: weight_norm(nn.Conv2d(3, 5, 3))),
    "spectral norm": (lambda: spectral_norm(nn.Linear(6, 8)), lambda: spectral_norm(nn.Linear(3, 5))),
}


@pytest.mark.parametrize("case", PAIRS)
def test_a_wide_module_given_narrow_shapes_gets_the_narrow_modules_numbers(case: str) -> None:
    wide, narrow = (make() for make in PAIRS[case])
    expected = {patch.attribute: patch.value for patch in read_patches(narrow) if patch.module == ""}
    assert expected
    assert patches_for(wide, own_shapes(narrow)) == expected


@pytest.mark.parametrize("case", PAIRS)
def test_unchanged_shapes_give_unchanged_numbers(case: str) -> None:
    wide = PAIRS[case][0]()
    current = {patch.attribute: patch.value for patch in read_patches(wide) if patch.module == ""}
    assert patches_for(wide, own_shapes(wide)) == current


def test_depthwise_by_hand() -> None:
    conv = nn.Conv2d(16, 16, 3, groups=16)
    assert patches_for(conv, {"weight": (8, 1, 3, 3)}) == {"out_channels": 8, "groups": 8, "in_channels": 8}


def test_numbers_that_match_no_tensor_are_left_out() -> None:
    assert patches_for(nn.LayerNorm(8, elementwise_affine=False), {}) == {}
    assert patches_for(nn.InstanceNorm2d(8), {}) == {}
    assert patches_for(nn.ReLU(), {}) == {}


def test_torchvision_subclasses_and_names() -> None:
    convnext = pytest.importorskip("torchvision.models.convnext")
    transformers = pytest.importorskip("torchvision.models.vision_transformer")
    assert patches_for(convnext.LayerNorm2d(8), {"weight": (5,), "bias": (5,)}) == {"normalized_shape": (5,)}
    vit = transformers.VisionTransformer(8, 4, 1, 2, 12, 24, num_classes=3)
    assert patches_for(vit, {"class_token": (1, 1, 10)}) == {"hidden_dim": 10}
    assert Patch("", "hidden_dim", 12) in read_patches(vit)


def test_wide_groups_must_stay_alike() -> None:
    with pytest.raises(
        PlanError, match=r"2 groups of 6 channels: 9 channels are not the same number in each group"
    ):
        patches_for(nn.Conv2d(8, 12, 3, groups=2), {"weight": (9, 3, 3, 3)})


def test_parts_of_a_group_cannot_be_lost() -> None:
    with pytest.raises(PlanError, match=r"4 groups of 3 channels: 8 channels .* Keep a multiple of 3"):
        patches_for(nn.Conv2d(8, 12, 3, groups=4), {"weight": (8, 2, 3, 3)})
    with pytest.raises(PlanError, match="an embedding of 7 does not divide by its 2 heads"):
        patches_for(nn.MultiheadAttention(8, 2), {"in_proj_weight": (21, 7)})


def test_a_user_adds_a_module_with_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    class Scale(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.dim = dim
            self.gain = nn.Parameter(torch.ones(1, dim))

    monkeypatch.setitem(PATCH_RULES, (Scale, "dim"), lambda module, shapes: shapes["gain"][1])
    assert patches_for(Scale(8), {"gain": (1, 5)}) == {"dim": 5}
    assert read_patches(nn.Sequential(Scale(8))) == [Patch("0", "dim", 8)]


def test_read_then_apply_makes_a_wide_model_of_the_same_class_run_like_the_narrow_one() -> None:
    def build(width: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(3, width, 3),
            nn.Conv2d(width, width, 3, groups=width),
            nn.GroupNorm(2, width),
            nn.PReLU(width),
        ).eval()

    wide, narrow = build(8), build(4)
    before = copy.deepcopy(read_patches(wide))
    apply_patches(wide, read_patches(narrow))
    assert read_patches(wide) == read_patches(narrow) != before
    for name, tensor in narrow.named_parameters():
        path, _, leaf = name.rpartition(".")
        setattr(wide.get_submodule(path), leaf, tensor)
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(wide(images), narrow(images))


def test_lists_from_json_become_tuples() -> None:
    norm = nn.LayerNorm(8)
    apply_patches(norm, [Patch("", "normalized_shape", [5])])
    assert norm.normalized_shape == (5,)


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (Patch("9", "out_channels", 2), r"Patch 9.out_channels = 2: the model has no such module"),
        (Patch("0", "num_heads", 2), r"Conv2d has no number of that name"),
        (Patch("0", "forward", 2), r"Conv2d has no number of that name"),
        (Patch("0", "training", 2), r"Conv2d has no number of that name"),
        (Patch("0", "out_channels", "2"), r"expected a value like the old one, 4"),
        (Patch("0", "out_channels", [2]), r"expected a value like the old one, 4"),
    ],
)
def test_a_patch_that_does_not_fit_is_refused_and_nothing_is_set(patch: Patch, message: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(PlanError, match=message):
        apply_patches(model, [Patch("0", "in_channels", 2), patch])
    assert isinstance(model[0], nn.Conv2d)
    assert model[0].in_channels == 3
