"""Every weight that reads fewer channels is refitted, or left with the true reason."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.graph import Plan, Prunable
from autoprune.rebuilding import keep_positions
from autoprune.reconstruction import Repaired, moments, repair_closed, repair_sequential
from autoprune.reconstruction._uses import cut_of, read_fewer, why_not
from tests.models import CASES

UNUSED = "the model does not use it in eval mode"
MADE = "the layer's weight is computed from it"

LEFT: dict[str, dict[str, str]] = {
    "twice": {"same.weight": "the model calls it more than once"},
    "train_only_head": {"aux.weight": UNUSED, "aux_head.weight": UNUSED},
    "bilinear": {"both.weight": "it is read by bilinear"},
    "recurrent": {
        "lstm.weight_ih_l0": "it is read by lstm",
        "lstm.weight_ih_l0_reverse": "it is read by lstm",
    },
    "ellipsis": {"mix": "it is read by einsum"},
    "weight_norm": {
        f"{name}.parametrizations.weight.original{number}": MADE
        for name, number in (("up", 0), ("up", 1), ("fc", 1))
    },
    "spectral_norm": {
        f"{name}.parametrizations.weight.original": MADE for name in ("conv", "deep", "up", "fc")
    },
    "weight_norm_by_hook": dict.fromkeys(("up.weight_g", "up.weight_v", "fc.weight_v"), MADE),
    "spectral_norm_by_hook": {f"{name}.weight_orig": MADE for name in ("conv", "deep", "up", "fc")},
}
"""{net: {weight: how the reason begins}}; the other nets have none."""

ONE_INPUT = [name for name, case in CASES.items() if isinstance(case.inputs, tuple)]


def traced(name: str) -> tuple[Prunable, Tensor]:
    """Return a net of tests.models in float64, traced, and random images for it."""
    torch.manual_seed(0)
    case = CASES[name]
    assert isinstance(case.inputs, tuple)
    prunable = autoprune.trace(case.make().double().eval(), tuple(each.double() for each in case.inputs))
    generator = torch.Generator().manual_seed(1)
    return prunable, torch.randn(48, *case.inputs[0].shape[1:], generator=generator, dtype=torch.float64)


def repaired_both_ways(prunable: Prunable, plan: Plan, batch: Tensor) -> list[Repaired]:
    small = autoprune.rebuild(prunable, plan)
    measured = moments(prunable, [batch])
    return [
        repair_closed(prunable, plan, small, measured),
        repair_sequential(prunable, plan, small, [batch]),
    ]


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("name", ONE_INPUT)
def test_all_that_reads_fewer_channels_is_refitted_or_left_with_a_reason(name: str) -> None:
    prunable, batch = traced(name)
    plan = autoprune.make_plan(prunable, 0.6)
    expected = LEFT.get(name, {})
    for repaired in repaired_both_ways(prunable, plan, batch):
        assert repaired.left.keys() == expected.keys()
        assert all(repaired.left[weight].startswith(reason) for weight, reason in expected.items())
        # Behind a layer that stays as it was cut, inputs may be far from all that the dense layer has seen.
        most = 1.0 if not repaired.left else float("inf")
        assert all(0 <= error < most for error in repaired.errors.values())
        assert run(repaired.model, batch).isfinite().all()
        for weight in read_fewer(prunable, keep_positions(prunable, plan)):
            whole_groups_go = name == "transposed" and weight in ("deep.weight", "grouped.weight")
            assert (weight in repaired.errors) != (weight in repaired.left) or whole_groups_go


def run(model: nn.Module, batch: Tensor) -> Tensor:
    """Return the first tensor that a model gives."""
    with torch.no_grad():
        outputs = model.eval()(batch)
    first: Tensor = next(iter(outputs.values())) if isinstance(outputs, dict) else outputs
    return first


def test_attention_projections_are_the_least_squares_solution() -> None:
    prunable, batch = traced("attention")
    with torch.no_grad():
        prunable.model.get_parameter("attention.in_proj_bias").uniform_(-1, 1)
        prunable.model.get_parameter("attention.out_proj.bias").uniform_(-1, 1)
    plan = autoprune.make_plan(prunable, 0.5)
    small = autoprune.rebuild(prunable, plan)
    measured = moments(prunable, [batch], positions=10**6)
    repaired = repair_closed(prunable, plan, small, measured, ridge=1e-13).model
    axes = keep_positions(prunable, plan)["attention.in_proj_weight"]
    weight, bias = (prunable.model.get_parameter(f"attention.in_proj_{each}") for each in ("weight", "bias"))
    with torch.no_grad():
        tokens = prunable.model.get_submodule("embed")(batch).flatten(0, 1)
        projected = (tokens @ weight.T + bias)[:, torch.from_numpy(axes[0])]
        inputs = torch.cat([tokens[:, torch.from_numpy(axes[1])], torch.ones(len(tokens), 1)], dim=1)
    expected = torch.linalg.lstsq(inputs, projected).solution.T
    torch.testing.assert_close(
        repaired.get_parameter("attention.in_proj_weight"), expected[:, :-1], rtol=1e-8, atol=1e-8
    )
    torch.testing.assert_close(
        repaired.get_parameter("attention.in_proj_bias"), expected[:, -1], rtol=1e-8, atol=1e-8
    )


def test_reasons_follow_the_operator() -> None:
    prunable, _ = traced("recurrent")
    assert why_not(prunable, "conv.weight") is None
    assert why_not(prunable, "lstm.weight_ih_l0") == (
        "it is read by lstm, which is not a convolution or linear layer"
    )


@pytest.mark.parametrize(
    ("groups", "gone", "rows"),
    [(1, [1, 4], [0, 2, 3, 5]), (2, [1, 4], [0, 2, 3, 5]), (3, [2, 3], [0, 1, 4, 5])],
    ids=["one group", "in each group", "a whole group"],
)
@pytest.mark.parametrize("transposed", [False, True], ids=["convolution", "transposed"])
def test_a_cut_names_the_outputs_that_the_narrowed_layer_gives(
    groups: int, gone: list[int], rows: list[int], transposed: bool
) -> None:
    """Outputs are counted through all groups, in the order of the layer's channels."""
    make = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer = make(6, 6, 3, groups=groups, bias=False)
    stays = torch.tensor([each for each in range(6) if each not in gone])
    inputs = torch.arange(6) if groups < 3 else stays
    per_group = 6 // groups
    axes = {}
    if transposed:
        axes[0] = inputs.numpy()
        axes[1] = stays[stays < per_group].numpy() if groups < 3 else torch.arange(per_group).numpy()
    else:
        axes[0] = stays.numpy()
    cut = cut_of(layer.weight.shape, axes, groups, transposed=transposed)
    assert cut.rows.tolist() == rows
    assert len(cut.kept) == per_group * 9
