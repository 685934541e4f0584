"""Rules and the check of shapes on nets that a naive rule narrows wrongly. Each was once a fault."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.graph import Plan
from autoprune.graph.context import OpContext, Value
from autoprune.graph.labels import LabelStore
from autoprune.graph.modules import MODULE_TIES, AxisLabels
from autoprune.graph.patches import PATCH_RULES, read_patches
from autoprune.graph.rules import LAYER_RULES
from autoprune.rebuilding import rebuild, verify
from autoprune.rebuilding._proof import TOLERANCE
from autoprune.tracing import trace
from tests.cost.test_formula import counted, random_plan
from tests.models import CASES
from tests.topologies import Normed


class Net(nn.Module):
    """A convolution, a function in the middle, two heads."""

    def __init__(self, middle: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 5, 1)
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.conv(x)))  # type: ignore[no-any-return]  # modules return Any


MIDDLES: dict[str, Callable[[Tensor], Tensor]] = {
    "roll": lambda x: x.roll(1, 1),
    "channel_shuffle": lambda x: torch.nn.functional.channel_shuffle(x, 2),
    "float_cast": lambda x: x.float().relu(),
    "divide_by_width": lambda x: x / x.shape[1],
    "halves_by_width": lambda x: torch.cat([x[:, x.shape[1] // 2 :], x[:, : x.shape[1] // 2]], 1),
    "steps": lambda x: torch.cat([x[:, ::2], x[:, 1::2]], 1),
    "in_place_on_a_slice": lambda x: x[:, :, :2].mul_(2.0).new_zeros(1) + x,
    "middle_run": lambda x: x * x[:, 2:4].sum(1, keepdim=True),
    "middle_channel": lambda x: x * x[:, x.shape[1] // 2].unsqueeze(1),
    "contraction_of_one_operand": lambda x: torch.einsum("bchw,bc->bchw", x, x.mean((2, 3))),
}


@pytest.mark.parametrize("name", MIDDLES)
def test_rebuilt_equals_reference_and_counts(name: str) -> None:
    inputs = torch.zeros(1, 3, 8, 8)
    prunable = trace(Net(MIDDLES[name]), inputs)
    for seed in range(6):
        plan = random_plan(prunable, seed, crossing=False)
        small = rebuild(prunable, plan)
        assert verify(prunable, plan, small) <= TOLERANCE
        cost = prunable.cost(plan.widths)
        assert (cost.macs, cost.params) == counted(small, (inputs,))


@pytest.mark.parametrize("name", ["channel_shuffle", "float_cast", "divide_by_width"])
def test_stays_free(name: str) -> None:
    assert trace(Net(MIDDLES[name]), torch.zeros(1, 3, 8, 8)).group("conv").frozen is None


def test_a_tensor_made_without_a_device_freezes_nothing() -> None:
    prunable = trace(Net(lambda x: x + torch.zeros(1)), torch.zeros(1, 3, 8, 8))
    assert prunable.group("conv").frozen is None


def test_a_number_that_follows_the_width_crosses() -> None:
    group = trace(Net(MIDDLES["divide_by_width"]), torch.zeros(1, 3, 8, 8)).group("conv")
    assert group.crosses is not None
    assert "div" in group.crosses


def test_frozen_transposed_convolution_keeps_its_outputs() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ConvTranspose2d(8, 6, 2, bias=False), nn.Conv2d(6, 5, 1))
    prunable = trace(model, torch.zeros(1, 3, 8, 8), frozen=["1"])
    assert prunable.group("1").frozen == "1: frozen by the user"
    assert prunable.group("0").frozen is None


def test_train_only_view_is_tried_and_nested_inputs_are_followed() -> None:
    class Trained(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head, self.aux = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 5, 1), nn.Linear(512, 2)

        def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, ...]:
            x = self.conv(batch["image"])
            self.last = x
            head: Tensor = self.head(x)
            return (head, self.aux(x.reshape(-1, 512))) if self.training else (head,)

    model = Trained()
    prunable = trace(model, ({"image": torch.zeros(4, 3, 8, 8)},))
    assert not hasattr(model, "last")
    assert "512" in str(prunable.group("conv").frozen)
    assert rebuild(prunable, Plan({"conv": np.arange(8)})) is not model


NORMS = ("weight_norm", "spectral_norm", "weight_norm_by_hook", "spectral_norm_by_hook")


@pytest.mark.parametrize("name", NORMS)
def test_computed_weights_are_proved_with_all_narrowed_and_train(name: str) -> None:
    case = CASES[name]
    prunable = trace(case.make(), case.inputs)
    assert str(prunable.group("up").crosses).startswith("up (")
    plan = Plan({"conv": np.array([1, 4, 6]), "up": np.array([0, 5]), "fc": np.arange(3)})
    small = rebuild(prunable, plan)
    assert verify(prunable, plan, small) <= TOLERANCE
    assert isinstance(small, Normed)
    numbers = {patch.attribute: patch.value for patch in read_patches(small) if patch.module == "deep"}
    assert numbers == {"in_channels": 3, "out_channels": 3, "groups": 3}
    before = [parameter.detach().clone() for parameter in small.parameters()]
    small.train()(torch.randn(2, 3, 8, 8)).square().sum().backward()
    torch.optim.SGD(small.parameters(), 0.1).step()
    assert not all(torch.equal(a, b) for a, b in zip(before, small.parameters(), strict=True))
    small.load_state_dict(rebuild(prunable, plan).state_dict())


class _AutocastRegion(nn.Module):
    """Half precision switched off in the middle, as losses and norms often do."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        with torch.autocast("cpu", enabled=False):
            inner = self.b(x.float()).relu()
            doubled = inner * 2
        return self.c(inner + doubled)  # type: ignore[no-any-return]  # modules return Any


def test_operators_in_an_autocast_region_are_counted_and_free() -> None:
    prunable = trace(_AutocastRegion(), torch.zeros(1, 3, 8, 8))
    assert {group.name for group in prunable.searchable} == {"a", "b"}
    assert prunable.cost().macs == 64 * (3 * 8 + 8 * 6 + 6 * 5)
    plan = Plan({"a": np.arange(3), "b": np.arange(2)})
    assert verify(prunable, plan, rebuild(prunable, plan)) <= TOLERANCE


@torch.library.custom_op("autoprune_tests::gain", mutates_args=())
def gain(x: Tensor, weight: Tensor, heads: int) -> Tensor:
    """Scale each channel by its weight, and each head by what it holds on average."""
    blocks = (x * weight).reshape(*x.shape[:-1], heads, -1)
    return (blocks * blocks.sum(-1, keepdim=True)).flatten(-2)


@gain.register_fake
def _(x: Tensor, weight: Tensor, heads: int) -> Tensor:
    return torch.empty_like(x)


class Gain(nn.Module):
    """A layer of a user's own: an operator of its own, and numbers in addition to its weight."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        self.weight = nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.width:
            raise ValueError(f"expected {self.width} channels, got {x.shape[-1]}")
        return gain(x, self.weight, self.heads)  # type: ignore[no-any-return]  # custom operators return Any


def gain_rule(op: OpContext) -> Value:
    source, weight = op.tensor("x"), op.tensor("weight")
    op.tie(source.labels[-1], weight.labels[0], source)
    return op.output(source.labels)


def tie_heads(module: nn.Module, labels_of: AxisLabels, store: LabelStore, path: str) -> None:
    assert isinstance(module, Gain)
    channels = labels_of("weight", 0)
    assert channels is not None
    store.tie(channels, np.tile(channels.reshape(module.heads, -1)[0], module.heads), path)


@pytest.fixture
def own_layer() -> Iterator[nn.Module]:
    yield nn.Sequential(nn.Linear(4, 12), Gain(12, 3), nn.Linear(12, 5))
    LAYER_RULES.pop("autoprune_tests::gain", None)
    PATCH_RULES.pop((Gain, "width"), None)
    MODULE_TIES.pop(Gain, None)


def test_a_layer_of_the_users_own_joins_by_one_row_a_table(own_layer: nn.Module) -> None:
    inputs = torch.zeros(1, 4)
    assert "1 (autoprune_tests::gain): has no rule" in str(trace(own_layer, inputs).group("0").frozen)

    LAYER_RULES["autoprune_tests::gain"] = gain_rule
    assert "expected 12 channels" in str(trace(own_layer, inputs).group("0").frozen)

    PATCH_RULES[Gain, "width"] = lambda module, shapes: shapes["weight"][0]
    MODULE_TIES[Gain] = tie_heads
    prunable = trace(own_layer, inputs)
    assert prunable.group("0").frozen is None
    assert prunable.group("0").width == 4  # a channel of each head
    plan = Plan({"0": np.array([0, 3])})
    small = rebuild(prunable, plan)
    assert small.get_submodule("1").width == 6
    assert verify(prunable, plan, small) <= TOLERANCE
    cost = prunable.cost(plan.widths)
    assert (cost.macs, cost.params) == counted(small, inputs)
