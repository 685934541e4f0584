"""Each operator of torch's vision layers: free groups are proved, and frozen ones have a reason."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import DeformConv2d, roi_align  # type: ignore[import-untyped]  # it ships no hints

from autoprune.graph import Prunable
from autoprune.rebuilding import rebuild, verify
from autoprune.rebuilding._proof import TOLERANCE
from autoprune.tracing import trace
from tests.cost.test_formula import counted, random_plan

Middle = Callable[[Tensor], Tensor]

FREE, CROSSES = "free", "crosses"


class Net(nn.Module):
    """A convolution of 8 channels, a function in the middle, a head that reads the channels it gives."""

    def __init__(self, middle: Middle, channels: int = 8) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(channels, 5, 1)
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.conv(x)))  # type: ignore[no-any-return]  # modules return Any


def _assigned(x: Tensor, index: object, value: Tensor | float) -> Tensor:
    out = x.clone()
    out[index] = value  # type: ignore[index]  # any index that torch takes
    return out


def _multiplied_by(reduce: Middle) -> Middle:
    return lambda x: x * reduce(x)


MAPS: dict[str, tuple[Middle, str]] = {
    # Activations.
    **{
        name: (getattr(functional, name), FREE)
        for name in (
            *("relu", "relu6", "elu", "celu", "selu", "gelu", "hardshrink", "hardsigmoid", "hardswish"),
            *("hardtanh", "leaky_relu", "logsigmoid", "mish", "rrelu", "sigmoid", "silu", "softplus"),
            *("softshrink", "softsign", "tanh", "tanhshrink", "alpha_dropout"),
        )
    },
    "threshold": (lambda x: functional.threshold(x, 0.1, 0.3), FREE),
    "softmax": (lambda x: x.softmax(1), CROSSES),
    "softmin": (lambda x: functional.softmin(x, 1), CROSSES),
    "log_softmax": (lambda x: x.log_softmax(1), CROSSES),
    "clamp": (lambda x: x.clamp(x.mean((2, 3), keepdim=True) - 0.1, 1 + x.sum(1, keepdim=True).exp()), FREE),
    "where": (lambda x: torch.where(x > 0, x, 0.1 * x), FREE),
    "masked_fill": (lambda x: x.masked_fill(x > 0, 0.5), FREE),
    "lerp": (lambda x: x.lerp(x.flip(2), 0.3), FREE),
    # Pooling and resizing.
    "avg_pool": (lambda x: functional.avg_pool2d(x, 3, 1, 1), FREE),
    "lp_pool": (lambda x: functional.lp_pool2d(x, 2, 2), FREE),
    "adaptive_max": (lambda x: functional.adaptive_max_pool2d(x, 3, return_indices=True)[0], FREE),
    "unpool": (
        lambda x: functional.max_unpool2d(*functional.max_pool2d(x, 2, return_indices=True), [2, 2]),
        FREE,
    ),
    "fractional": (lambda x: functional.fractional_max_pool2d(x, 2, output_size=3), "rand"),
    "nearest": (lambda x: functional.interpolate(x, scale_factor=2), FREE),
    "nearest_exact": (lambda x: functional.interpolate(x, size=5, mode="nearest-exact"), FREE),
    "bilinear": (lambda x: functional.interpolate(x, size=(5, 6), mode="bilinear"), FREE),
    "bilinear_smooth": (lambda x: functional.interpolate(x, size=5, mode="bilinear", antialias=True), FREE),
    "bicubic": (lambda x: functional.interpolate(x, size=(5, 6), mode="bicubic"), FREE),
    "bicubic_smooth": (lambda x: functional.interpolate(x, size=5, mode="bicubic", antialias=True), FREE),
    "area": (lambda x: functional.interpolate(x, size=(5, 6), mode="area"), FREE),
    "linear": (lambda x: functional.interpolate(x.flatten(2), size=9, mode="linear").unsqueeze(-1), FREE),
    "nearest_line": (
        lambda x: functional.interpolate(x.flatten(2), size=9, mode="nearest-exact").unsqueeze(-1),
        FREE,
    ),
    "trilinear": (
        lambda x: functional.interpolate(x.unsqueeze(2), size=(2, 4, 4), mode="trilinear").mean(2),
        FREE,
    ),
    "nearest_volume": (
        lambda x: functional.interpolate(x.unsqueeze(2), size=(2, 4, 4), mode="nearest-exact").mean(2),
        FREE,
    ),
    "grid_sample": (
        lambda x: functional.grid_sample(
            x, functional.affine_grid(torch.eye(2, 3)[None], [1, 1, 4, 4], False), align_corners=False
        ),
        FREE,
    ),
    "local_response_norm": (lambda x: functional.local_response_norm(x, 3), "pooled"),
    "unfold_method": (lambda x: x.unfold(2, 3, 1).mean(-1), FREE),
    **{
        f"pad_{mode}": (partial(functional.pad, pad=(1, 2, 0, 1), mode=mode), FREE)
        for mode in ("constant", "reflect", "replicate", "circular")
    },
    # Layout.
    "flip": (lambda x: x.flip(1), FREE),
    "rot90": (lambda x: x.rot90(1, (2, 3)), FREE),
    "roll_space": (lambda x: x.roll((1, 2), (2, 3)), FREE),
    "transposed_matrices": (lambda x: x.mT, FREE),
    "view_as": (lambda x: x.flatten(2).view_as(x), FREE),
    "broadcast_to": (lambda x: x.mean(1, keepdim=True).broadcast_to(x.shape) + x, CROSSES),
    "unsafe_split": (lambda x: torch.cat(torch.unsafe_split(x, 4, 2), 2), FREE),
    "dsplit": (lambda x: torch.cat(x.dsplit(2), 2), FREE),
    "unbind_space": (lambda x: torch.stack(x.unbind(2), 2), FREE),
    "index_space": (lambda x: x[:, :, [0, 2, 3]], FREE),
    "transposed_in_place": (lambda x: x.clone().transpose_(2, 3) * 2, FREE),
    "diff_space": (lambda x: x.diff(dim=2), FREE),
    "tril": (lambda x: x.tril(), FREE),
    "diagonal": (lambda x: x.diagonal(dim1=2, dim2=3).unsqueeze(-1), FREE),
    "select_scatter": (lambda x: x.select_scatter(x[:, :, 0], 2, 1), FREE),
    "slice_scatter": (lambda x: x.slice_scatter(x[:, :, :2] * 2, 2, 2, 4), FREE),
    "strided": (lambda x: x.as_strided((1, 8, 4, 4), (512, 64, 8, 1)), "as_strided"),
    # Indices and order.
    "sort_space": (lambda x: x.sort(2)[0], FREE),
    "topk_space": (lambda x: x.topk(3, 2)[0], FREE),
    "gather_space": (lambda x: x.gather(2, x.argsort(2)), FREE),
    "take_along_space": (lambda x: torch.take_along_dim(x, x.mean(1, keepdim=True).argsort(2), 2), CROSSES),
    "scatter_space": (lambda x: torch.zeros_like(x).scatter(2, x.argsort(2), x), FREE),
    "scatter_add_space": (lambda x: x.scatter_add(2, x.argsort(2), x), FREE),
    "scatter_reduce_space": (lambda x: x.scatter_reduce(2, x.argsort(2), x, "amax"), FREE),
    "index_add": (lambda x: x.index_add(2, torch.tensor([1]), x[:, :, :1]), FREE),
    "index_copy": (lambda x: x.index_copy(2, torch.tensor([1]), x[:, :, :1]), FREE),
    "index_fill": (lambda x: x.index_fill(2, torch.tensor([1]), 0.5), FREE),
    "assigned_mask": (lambda x: _assigned(x, x > 0, 0.5), FREE),
    "assigned_row": (lambda x: _assigned(x, (slice(None), slice(None), 0), 0.5), FREE),
    "assigned_rows": (lambda x: _assigned(x, (slice(None), slice(None), [0, 2]), x[:, :, 1:3] * 2), FREE),
    "computed_index": (lambda x: x[:, :, x.mean((0, 1, 3)).argsort()], CROSSES),
    "kthvalue_space": (lambda x: x.kthvalue(2, 2, keepdim=True)[0], FREE),
    "argmax_space": (lambda x: x.argmax(2, keepdim=True).to(x.dtype), FREE),
    "bucketize": (lambda x: torch.bucketize(x, torch.tensor([0.0, 0.5])).to(x.dtype), FREE),
    "sort_channels": (lambda x: x.sort(1)[0], "sort"),
    "argsort_channels": (lambda x: x.argsort(1).to(x.dtype), "argsort"),
    "topk_channels": (lambda x: x.topk(3, 1)[0].mean(1, keepdim=True) + x, "topk"),
    "gather_channels": (lambda x: x.gather(1, x.argsort(1)), "argsort"),
    "argmax_channels": (lambda x: x * x.argmax(1, keepdim=True), "argmax"),
    "max_position": (lambda x: x * x.max(1, keepdim=True)[1], "position of a channel"),
    "max_value": (lambda x: x * x.max(1, keepdim=True)[0], CROSSES),
    "picked_channels": (lambda x: x * x[:, [0, 2, 4]].mean(1, keepdim=True), "picks positions by an index"),
    "middle_channel": (lambda x: x * x[:, x.shape[1] // 2].unsqueeze(1), "select"),
    "middle_run": (lambda x: x * x[:, 2:4].sum(1, keepdim=True), "slice"),
    "unbound_channels": (lambda x: torch.stack(x.unbind(1), 1), "unbind"),
    "roll_channels": (lambda x: x.roll(1, 1), "roll"),
    "diff_channels": (lambda x: x * x.diff(dim=1).sum(1, keepdim=True), "diff"),
    # Reductions.
    **{
        name: (_multiplied_by(reduce), kind)
        for name, reduce, kind in (
            ("sum", lambda x: x.sum(1, keepdim=True), FREE),
            ("mean", lambda x: x.mean(1, keepdim=True), CROSSES),
            ("prod", lambda x: x.prod(1, keepdim=True), CROSSES),
            ("var_mean", lambda x: torch.var_mean(x, 1, keepdim=True)[0], CROSSES),
            ("std_mean", lambda x: torch.std_mean(x, 1, keepdim=True)[1], CROSSES),
            ("logsumexp", lambda x: x.logsumexp(1, keepdim=True), CROSSES),
            ("amax", lambda x: x.amax(1, keepdim=True), CROSSES),
            ("aminmax", lambda x: torch.aminmax(x, dim=1, keepdim=True)[0], CROSSES),
            ("norm", lambda x: x.norm(dim=1, keepdim=True), FREE),
            ("linalg_norm", lambda x: torch.linalg.norm(x, dim=1, keepdim=True), FREE),
            ("smallest_norm", lambda x: torch.linalg.norm(x, -np.inf, dim=1, keepdim=True), CROSSES),
            ("matrix_norm", lambda x: torch.linalg.matrix_norm(x, keepdim=True), FREE),
            ("any", lambda x: (x > 0).any(1, keepdim=True), FREE),
            ("all", lambda x: (x > 0).all(1, keepdim=True), CROSSES),
            ("count_nonzero", lambda x: x.relu().count_nonzero(1).unsqueeze(1), FREE),
            ("nansum", lambda x: x.nansum(1, keepdim=True), FREE),
            ("nanmean", lambda x: x.nanmean(1, keepdim=True), CROSSES),
            ("median", lambda x: x.median(1, keepdim=True)[0], CROSSES),
            ("quantile", lambda x: x.quantile(0.3, dim=1, keepdim=True), CROSSES),
            ("cosine", lambda x: functional.cosine_similarity(x, x.flip(2), 1).unsqueeze(1), FREE),
            ("vecdot", lambda x: torch.linalg.vecdot(x, x.flip(2), dim=1).unsqueeze(1), FREE),
            ("normalised", lambda x: functional.normalize(x, dim=1), FREE),
            ("scaled_up", lambda x: x / x.numel(), CROSSES),
        )
    },
    "mean_subtracted": (lambda x: x - x.mean(1, keepdim=True), CROSSES),
    "cumsum": (lambda x: x.cumsum(1), FREE),
    "cumprod": (lambda x: x.cumprod(1), CROSSES),
    "cummax": (lambda x: x.cummax(1)[0], CROSSES),
    "logcumsumexp": (lambda x: x.logcumsumexp(2), FREE),
    # Fourier transforms and complex numbers.
    "filtered": (lambda x: torch.fft.irfft2(torch.fft.rfft2(x, norm="ortho") * 2, s=(8, 8)), FREE),
    "spectrum": (lambda x: torch.fft.fft2(x).abs(), FREE),
    "fftshift": (lambda x: torch.fft.fftshift(x, (2, 3)), FREE),
    "fft_conj": (lambda x: torch.fft.ifft(torch.fft.fft(x, dim=2).conj(), dim=2).real, FREE),
    "polar": (lambda x: torch.polar(x.exp(), x).imag, FREE),
    "complex_pairs": (
        lambda x: torch.view_as_real(torch.view_as_complex(x.reshape(1, -1, 8, 4, 2)) * 2).flatten(3),
        FREE,
    ),
    "fft_channels": (lambda x: torch.fft.fft(x, dim=1).real, "mixes all positions"),
}
"""{operator: (a function of maps that keeps their 8 channels, FREE, CROSSES or a part of the reason)}."""

OTHERS: dict[str, tuple[Middle, int, str]] = {
    "glu": (lambda x: functional.glu(x, 1), 4, FREE),
    "unfold": (lambda x: functional.unfold(x, 2).view(1, -1, 7, 7), 32, FREE),
    "fold": (lambda x: functional.fold(x.flatten(2)[:, :, :16], (5, 5), 2), 2, FREE),
    "pixel_shuffle": (lambda x: functional.pixel_shuffle(x, 2), 2, FREE),
    "pixel_unshuffle": (lambda x: functional.pixel_unshuffle(x, 2), 32, FREE),
    "hstack": (lambda x: torch.hstack([x, x]), 16, FREE),
    "repeat_interleave": (lambda x: x.repeat_interleave(2, 1), 16, FREE),
    "hsplit": (lambda x: torch.mul(*x.hsplit(2)), 4, FREE),
    "inner": (lambda x: torch.inner(x.movedim(1, -1), torch.ones(3, 8)).movedim(-1, 1), 3, "the tensor that"),
    "tensordot": (lambda x: torch.tensordot(x, x, ([1], [1])).flatten(3).mean(0), 8, FREE),
    "cdist": (lambda x: torch.cdist(x[..., 0].mT, 2 * x[..., 1].mT).unsqueeze(1), 1, FREE),
    "gram": (
        lambda x: torch.einsum("...chw,...dhw->...cd", x, x).mean((1, 2))[:, None, None, None],
        1,
        CROSSES,
    ),
    "three_operands": (lambda x: torch.einsum("bchw,bchw,bchw->bhw", x, x, x)[:, None], 1, FREE),
    "no_arrow": (lambda x: torch.einsum("bchw,bchv", x, x)[None, None], 1, FREE),
    "outer": (lambda x: torch.outer(x.mean((0, 2, 3)), x.mean((0, 1, 2)))[None, :, None], 8, CROSSES),
    "dot": (lambda x: torch.dot(x.mean((0, 2, 3)), x.mean((0, 2, 3))).reshape(1, 1, 1, 1), 1, CROSSES),
    "bmm": (lambda x: torch.addbmm(x[0, 0], x[0], x[0])[None, None], 1, "select"),
    "one_hot": (lambda x: functional.one_hot(x.argmax(2), 8).to(x.dtype), 8, FREE),
    "mask_picks": (lambda x: x[x > 0].mean().reshape(1, 1, 1, 1), 1, "mask"),
    "renorm": (lambda x: x.renorm(2, 1, 1.0), 8, "has no rule"),
    "inverse": (lambda x: torch.linalg.inv(x + torch.eye(8)), 8, "function of a whole matrix"),
}
"""{operator: (function, channels that it gives, as above)}."""

ALL = {**{name: (middle, 8, kind) for name, (middle, kind) in MAPS.items()}, **OTHERS}


def traced(name: str) -> Prunable:
    middle, channels, _ = ALL[name]
    torch.manual_seed(0)
    return trace(Net(middle, channels), torch.zeros(1, 3, 8, 8))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ALL)
def test_operator_keeps_channels_free_or_gives_the_reason(name: str) -> None:
    prunable = traced(name)
    kind = ALL[name][2]
    groups = [group for group in prunable.groups if group.members[0].parameter.startswith("conv.")]
    outputs = [group for group in groups if group.frozen != "conv (conv2d): meets the model's input"]
    if kind in (FREE, CROSSES):
        assert [group.frozen for group in outputs] == [None]
        assert (outputs[0].crosses is not None) == (kind == CROSSES)
    else:
        assert any(kind in str(group.frozen) for group in outputs)
    for seed in range(3):
        plan = random_plan(prunable, seed, crossing=False)
        small = rebuild(prunable, plan)
        assert verify(prunable, plan, small, seed=seed) <= TOLERANCE
        plan = random_plan(prunable, seed)
        small = rebuild(prunable, plan)
        assert np.isfinite(verify(prunable, plan, small, seed=seed))
        if name != "mask_picks":  # whose size is not known on the meta device
            cost = prunable.cost(plan.widths)
            with torch.device("meta"):
                assert (cost.macs, cost.params) == counted(small, (torch.zeros(1, 3, 8, 8),))


class Steps(nn.Module):
    """A recurrent cell that takes two steps, from states of its own."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.embed, self.cell, self.head = nn.Linear(4, 6), cell, nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for _ in range(2):
            state = self.cell(self.embed(x), state)
        return self.head(state[0] if isinstance(state, tuple) else state)  # type: ignore[no-any-return]  # as above


class Deformed(nn.Module):
    """A deformable convolution: its offsets are channels of another kind, which stay."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.offset = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 18, 1)
        self.deform, self.head = DeformConv2d(8, 6, 3, padding=1), nn.Conv2d(6, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.head(self.deform(x, self.offset(x)))  # type: ignore[no-any-return]  # modules return Any


class Regions(nn.Module):
    """Boxes cut from a map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 5, 1)
        self.register_buffer("boxes", torch.tensor([[0.0, 1, 1, 6, 6]]))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(roi_align(self.conv(x), self.boxes, 4))  # type: ignore[no-any-return]  # modules return Any


class Bags(nn.Module):
    """A bag of embedded words, and a single picture without a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.conv, self.head = nn.EmbeddingBag(9, 6), nn.Conv2d(3, 6, 1), nn.Linear(6, 5)

    def forward(self, words: Tensor, picture: Tensor) -> Tensor:
        shown = self.conv(picture).amax((1, 2))
        return self.head(self.words(words) + shown)  # type: ignore[no-any-return]  # modules return Any


class FewGroups(nn.Module):
    """Two wide groups, there and back: each is narrowed, its inputs apart from its outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.halves = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 16, 3, padding=1, groups=2)
        self.back, self.head = nn.ConvTranspose2d(16, 10, 2, 2, groups=2), nn.Conv2d(10, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.back(self.halves(self.conv(x)).relu()))  # type: ignore[no-any-return]  # as above


class ChannelsOnAnAxis(nn.Module):
    """A convolution over three maps, laid side by side, whose channels lie on its spatial axis."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 1), nn.Linear(8, 5)
        self.mix, self.last = nn.Conv1d(3, 4, kernel, padding=kernel // 2), nn.Conv1d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.conv(x).mean(3)[:, :, :3].transpose(1, 2)
        return self.head(self.last(self.mix(rows)))  # type: ignore[no-any-return]  # modules return Any


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...], dict[str, int]]] = {
    **{
        name: (partial(Steps, cell), (torch.zeros(1, 4),), {"embed": 6})
        for name, cell in (
            ("lstm_cell", nn.LSTMCell(6, 5)),
            ("gru_cell", nn.GRUCell(6, 5)),
            ("rnn_cell", nn.RNNCell(6, 5, nonlinearity="relu")),
        )
    },
    "deform": (Deformed, (torch.zeros(1, 3, 8, 8),), {"conv": 8, "deform": 6}),
    "few_groups": (FewGroups, (torch.zeros(1, 3, 8, 8),), {"conv": 6, "halves": 8, "back": 5}),
    "pointwise_across": (partial(ChannelsOnAnAxis, 1), (torch.zeros(1, 3, 8, 8),), {"conv": 8, "mix": 4}),
    "roi_align": (Regions, (torch.zeros(1, 3, 8, 8),), {"conv": 8}),
    "bag": (Bags, (torch.zeros(1, 4, dtype=torch.long), torch.zeros(3, 8, 8)), {"words": 6}),
}
"""{layer: (a net with it, its inputs, the free groups)}."""


@pytest.mark.parametrize("name", LAYERS)
def test_layer_shows_its_groups_and_is_proved(name: str) -> None:
    make, inputs, free = LAYERS[name]
    prunable = trace(make(), inputs)
    assert {group.name: group.width for group in prunable.searchable} == free
    for seed in range(3):
        plan = random_plan(prunable, seed)
        small = rebuild(prunable, plan)
        assert verify(prunable, plan, small, seed=seed) <= TOLERANCE
        cost = prunable.cost(plan.widths)
        with torch.device("meta"):
            assert (cost.macs, cost.params) == counted(small, inputs)


def test_a_convolution_along_the_channels_is_crossed() -> None:
    prunable = trace(ChannelsOnAnAxis(3), torch.zeros(1, 3, 8, 8))
    assert {group.name: group.crosses for group in prunable.searchable} == {
        "conv": "mix (conv1d)",
        "mix": None,
    }
    for seed in range(3):
        plan = random_plan(prunable, seed, crossing=False)
        assert verify(prunable, plan, rebuild(prunable, plan), seed=seed) <= TOLERANCE
        plan = random_plan(prunable, seed)
        assert np.isfinite(verify(prunable, plan, rebuild(prunable, plan), seed=seed))


def test_a_convolution_that_drops_borders_freezes() -> None:
    model = ChannelsOnAnAxis(3)
    model.mix, model.head = nn.Conv1d(3, 4, 3), nn.Linear(6, 5)
    group = trace(model, torch.zeros(1, 3, 8, 8)).group("conv")
    assert group.frozen == "mix (conv1d): channels lie on a spatial axis of a convolution"
