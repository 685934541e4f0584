"""Each selector meets the budget of its pass, and cuts what its rule says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import autoprune.flow
from autoprune.config import load_config
from autoprune.criteria import channel_scales, importance
from autoprune.errors import ConfigError, PlanError
from autoprune.execution import Setting
from autoprune.exporting import read_recipe
from autoprune.flow import SELECTORS, FlowState, Selection, Workbench, check_amounts, pass_limits
from autoprune.flow._selectors import check_threshold, select
from autoprune.graph import Plan
from autoprune.space import Budget, SpaceSpec
from autoprune.training import Task
from tests.flow.nets import DATA, net, settings
from tests.own_rows import install_example

PRUNABLE = autoprune.trace(net(), torch.zeros(1, 1, 8, 8))
DENSE = int(PRUNABLE.cost().macs)
with torch.no_grad():
    for number, norm in enumerate(
        each for each in PRUNABLE.model.modules() if isinstance(each, nn.BatchNorm2d)
    ):
        norm.weight.copy_(torch.linspace(0.1, 1.0, 8) * (1 + number))


def selection(folder: Path, budget: Budget | None, **select: Any) -> Selection:
    bench = Workbench(
        config=load_config(settings(folder, select=select)),
        stages=("select", "rebuild"),
        origin=PRUNABLE,
        data=DATA,
        task=Task(),
        setting=Setting(),
        space=SpaceSpec(),
        cost=lambda prunable: prunable.cost,
        known=PRUNABLE.cost,
        folder=folder,
        budget=budget,
    )
    return Selection(bench, FlowState(1, PRUNABLE))


@pytest.mark.parametrize("by", [name for name in SELECTORS if name != "search"])
@pytest.mark.parametrize("limits", [{"macs": DENSE // 2}, {"params": 400}])
def test_a_selector_meets_a_budget_of_any_cost_and_no_more(
    by: str, limits: dict[str, float], tmp_path: Path
) -> None:
    plan = select(selection(tmp_path, Budget(**limits), by=by))  # type: ignore[arg-type]
    cost = PRUNABLE.cost(plan.widths).known()
    assert all(float(cost[name]) <= limit for name, limit in limits.items())
    assert all(float(cost[name]) > 0.7 * limit for name, limit in limits.items())


def test_one_threshold_separates_what_stays_from_what_goes(tmp_path: Path) -> None:
    plan = select(selection(tmp_path, None, by="global-threshold", share=0.4))
    scales = channel_scales(PRUNABLE.model, PRUNABLE.searchable)
    kept = np.concatenate([scales[name][plan.get(name, np.arange(8))] for name in scales])
    gone = np.concatenate([np.delete(scales[name], plan.get(name, np.arange(8))) for name in scales])
    assert len(gone) == round(0.4 * 16)
    assert gone.max() <= kept.min()


def test_one_threshold_leaves_skipped_groups_whole(tmp_path: Path) -> None:
    given = selection(tmp_path, None, by="global-threshold", share=0.4)
    first, second = (group.name for group in PRUNABLE.searchable)
    bench = replace(given.bench, space=SpaceSpec(skip=(first,)))
    plan = select(Selection(bench, given.state))
    assert set(plan) == {second}
    assert len(plan[second]) == 8 - round(0.4 * 8)


def test_a_share_without_a_floor_is_cut(tmp_path: Path) -> None:
    select = {"share": 0.5, "floor": 0, "criterion": "l2"}
    config = settings(tmp_path, flow={"stages": ["select"]}, select=select, budget=None, sparsify=None)
    widths = read_recipe(autoprune.prune(net(), DATA, config).folder).plan.widths
    assert sum(8 - width for width in widths.values()) == 8


class HalfNormed(nn.Module):
    """Two searchable groups. A BatchNorm scales the first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8)
        self.second, self.head = nn.Conv2d(8, 8, 3), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(self.norm(self.first(x)).relu()).relu()
        return self.head(y.mean((2, 3)))  # type: ignore[no-any-return]  # modules return Any


SKIPPED = "select.by: the search space skips every group of Sequential. Shorten its skip."


@pytest.mark.parametrize(
    ("model", "skip", "sections", "message"),
    [
        (net(), ["*"], {}, SKIPPED),
        (net(), ["*"], {"select": {"criterion": "l2"}}, SKIPPED),
        (net(norm=False), ["*"], {"sparsify": {"penalty": "group-lasso"}}, SKIPPED),
        (
            HalfNormed(),
            ["first"],
            {},
            "select.by: the search space skips every group of HalfNormed that a BatchNorm scales. Shorten "
            'its skip, or set select.criterion, such as "lamp".',
        ),
    ],
    ids=["scales", "criterion", "penalty", "groups with a scale"],
)
def test_a_space_that_skips_all_compared_groups_is_named(
    tmp_path: Path, model: nn.Module, skip: list[str], sections: dict[str, Any], message: str
) -> None:
    config = load_config(settings(tmp_path, **sections))
    prunable = autoprune.trace(model, torch.zeros(1, 1, 8, 8))
    with pytest.raises(ConfigError) as raised:
        check_threshold(config, config.flow.stages, prunable, SpaceSpec(skip=tuple(skip)))
    assert str(raised.value) == message


def test_a_criterion_replaces_the_scales(tmp_path: Path) -> None:
    plan = select(selection(tmp_path, None, by="global-threshold", share=0.25, criterion="l2"))
    norms = importance(PRUNABLE, "l2")
    gone = np.concatenate([np.delete(norms[name], plan.get(name, np.arange(8))) for name in norms])
    assert np.sort(gone).tolist() == np.sort(np.concatenate(list(norms.values())))[:4].tolist()


def test_a_floor_is_kept_by_every_selector_of_widths(tmp_path: Path) -> None:
    budget = Budget(macs=int(0.45 * DENSE))
    for by, floor in (("uniform", 5), ("uniform", 0.6), ("library", 5), ("global-threshold", 5)):
        plan = select(selection(tmp_path, budget, by=by, floor=floor))
        assert min(plan.widths.values()) >= 5


def test_a_share_for_all_groups_follows_the_floor_and_the_space(tmp_path: Path) -> None:
    def widths(space: SpaceSpec, floor: int = 1) -> dict[str, int]:
        given = selection(tmp_path, None, by="uniform", share=0.7, floor=floor)
        return select(Selection(replace(given.bench, space=space), given.state)).widths

    assert widths(SpaceSpec()) == {"0": 2, "3": 2}
    assert widths(SpaceSpec(), floor=4) == {"0": 4, "3": 4}
    assert widths(SpaceSpec(skip=("0",), divisor=4)) == {"3": 4}


def test_a_selector_of_the_users_own_is_named_by_its_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by = f"{install_example(autoprune.flow, tmp_path, monkeypatch)}:first_half"
    plan = select(selection(tmp_path, None, by=by))
    assert plan.widths == {group.name: 4 for group in PRUNABLE.searchable}
    check_amounts(by, None, None, has_budget=False)
    with pytest.raises(PlanError, match=r"select.by: .*:nothing. gave a list, expected a Plan"):
        select(selection(tmp_path, None, by="tests.flow.test_selectors:nothing"))


class Projected(nn.Module):
    """A block whose shortcut is a projection, so its channels are named after the branch."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 8, 3, padding=1))
        self.project, self.head = nn.Conv2d(1, 8, 1), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = (self.branch(x) + self.project(x)).relu()
        return self.head(y.mean((2, 3)))  # type: ignore[no-any-return]  # modules return Any


def without_branch(given: Selection) -> Plan:
    """Drop the branch in the first pass, and half of the channels that are left in the second."""
    blocks = given.prunable.blocks
    if blocks:
        return Plan({blocks[0].name: np.empty(0, np.int64)})
    return Plan({"branch.2": np.arange(4)})


def test_a_pass_goes_on_after_one_that_dropped_the_layers_which_name_a_group(tmp_path: Path) -> None:
    config = settings(
        tmp_path,
        flow={"stages": ["select"], "passes": 2},
        select={"by": "tests.flow.test_selectors:without_branch"},
    )
    result = autoprune.prune(Projected(), DATA, config)
    assert read_recipe(result.folder).plan.widths == {"branch:branch": 0, "branch.2": 4}
    assert result.cost.params == sum(each.numel() for each in result.model.parameters()) == 8 + 50


def nothing(given: Selection) -> list[int]:
    return []


def test_costs_fall_by_the_same_factor_in_every_pass() -> None:
    limits, dense = {"macs": 1_000, "latency_ms": 2.0}, {"macs": 8_000, "latency_ms": 16.0}
    steps = [pass_limits(limits, dense, number, 3) for number in (1, 2, 3)]
    assert [each["macs"] for each in steps] == [4_000, 2_000, 1_000]
    assert [each["latency_ms"] for each in steps] == pytest.approx([8.0, 4.0, 2.0])
    assert all(isinstance(each["macs"], int) for each in steps)
