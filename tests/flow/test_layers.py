"""Filter pruning in flows: rules of the selection, sensitive groups, and passes that go layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import autoprune
from autoprune.criteria import Rule, make_plan
from autoprune.errors import ConfigError, PlanError
from autoprune.execution import Setting
from autoprune.exporting import read_recipe
from autoprune.flow._units import units
from autoprune.graph import Prunable
from autoprune.support.events import Counted, Event, Stage
from autoprune.training import Schedule, Task, fit, weights_hash
from autoprune.zoo import make_model
from tests.flow.nets import DATA, net, settings

FINETUNE = {"epochs": 1, "learning_rate": 0.05}


def pruning(folder: Path, **sections: Any) -> dict[str, Any]:
    changes: dict[str, Any] = {
        "flow": {"stages": ["select", "finetune"]},
        "select": {"by": "uniform"},
        "finetune": FINETUNE,
    }
    for name, keys in sections.items():
        changes[name] = None if keys is None else {**changes.get(name, {}), **keys}
    return settings(folder, **changes)


@pytest.fixture(scope="module")
def resnet() -> Prunable:
    return autoprune.trace(make_model("digits_resnet", 10, 1), torch.zeros(1, 1, 8, 8))


def test_units_are_groups_or_stages_in_the_order_of_execution(resnet: Prunable) -> None:
    widths = {"layer2.1.conv1": 8, "conv1": 8, "layer1.0.conv1": 16, "layer2.0.conv2": 8}
    assert units(resnet, "group", widths) == (("conv1",), ("layer2.0.conv2",), ("layer2.1.conv1",))
    assert units(resnet, "stage", widths) == (("conv1",), ("layer2.0.conv2", "layer2.1.conv1"))


@pytest.mark.parametrize("rule", [Rule("greedy"), Rule(remove="most")], ids=["greedy", "most"])
def test_a_flow_keeps_the_channels_that_its_rule_chooses(tmp_path: Path, rule: Rule) -> None:
    select = {"ranking": rule.ranking, "remove": rule.remove}
    result = autoprune.prune(net(), DATA, pruning(tmp_path, select=select, finetune={"epochs": 0}))
    plan = read_recipe(result.folder).plan
    prunable = autoprune.trace(net(), torch.zeros(1, 1, 8, 8))
    assert plan == make_plan(prunable, plan.widths, "l1", rule=rule)
    assert plan != make_plan(prunable, plan.widths, "l1")


def test_channel_pruning_chooses_by_lasso_from_images_without_labels(tmp_path: Path) -> None:
    config = settings(tmp_path, finetune=FINETUNE)
    del config["sparsify"], config["select"]
    config["flow"] = {"method": "channel-pruning"}
    result = autoprune.prune(net(), DATA, config)
    plan = read_recipe(result.folder).plan
    prunable = autoprune.trace(net(), torch.zeros(1, 1, 8, 8))
    images = [inputs for inputs, _ in DATA.unchanged_train.batches(0, 0)]
    expected = make_plan(prunable, plan.widths, "lasso", images, rule=Rule("greedy"))
    for name, index in plan.items():
        np.testing.assert_array_equal(index, expected[name])
    assert [entry.stage for entry in result.stages] == ["select", "rebuild", "repair", "finetune"]


def test_sensitive_groups_stay_whole(tmp_path: Path) -> None:
    seen: list[str] = []

    def watch(event: Event) -> None:
        if isinstance(event, Stage):
            seen.append(event.text)

    dense = net()
    with torch.no_grad():  # the second convolution reads the first six channels of the first alone
        dense.get_parameter("3.weight")[:, 6:] = 0
        dense.get_parameter("0.weight")[6:] = 1e-3
    config = pruning(tmp_path, budget={"macs": "80%"}, select={"skip_fall": 0.0, "skip_at": 0.75})
    result = autoprune.prune(dense, DATA, config, watch=watch)
    whole = next(text for text in seen if text.startswith("groups that stay whole"))
    widths = result.stages[0].facts["widths"]
    assert (widths["3"] == 8) == ("3" in whole)
    assert widths["0"] < 8


def test_a_budget_that_sensitive_groups_forbid_names_them(tmp_path: Path) -> None:
    dense = net()
    fit(dense, DATA, Schedule(epochs=3, learning_rate=0.1), Setting(), Task(), seed=0)
    tight = pruning(tmp_path / "tight", budget={"macs": "5%"}, select={"skip_fall": 0.0, "skip_at": 0.13})
    with pytest.raises(
        PlanError, match=r"no group is left .* Or raise select\.skip_fall, which leaves 0, 3 whole\."
    ):
        autoprune.prune(dense, DATA, tight)


def test_passes_go_layer_by_layer_and_each_trains(tmp_path: Path) -> None:
    result = autoprune.prune(net(), DATA, pruning(tmp_path, flow={"narrow": "group"}))
    selected = [entry for entry in result.stages if entry.stage == "select"]
    target = selected[0].facts["target"]
    assert [list(entry.cut or {}) for entry in selected] == [["0"], ["3"]]
    assert [entry.stage for entry in result.stages] == ["select", "rebuild", "finetune"] * 2
    plan = read_recipe(result.folder).plan
    assert plan.widths == {name: width for name, width in target.items() if width < 8}
    once = autoprune.prune(net(), DATA, pruning(tmp_path / "once"))
    assert result.cost.macs == once.cost.macs


def test_a_stopped_flow_by_layers_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole, broken = (pruning(tmp_path / name, flow={"narrow": "stage"}) for name in ("whole", "broken"))
    for word in ("pass 1 of 2: finetune", "pass 2 of 2: rebuild"):

        def watch(event: Event, word: str = word) -> None:
            if word in str(event):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            autoprune.prune(striding(), DATA, broken, watch=watch)
    ends = [autoprune.prune(striding(), DATA, config) for config in (whole, broken)]
    assert weights_hash(ends[0].model) == weights_hash(ends[1].model)


def test_a_flow_by_layers_with_nothing_to_narrow_trains_the_whole_model(tmp_path: Path) -> None:
    config = pruning(tmp_path, flow={"narrow": "group"}, select={"share": 0.01}, budget=None)
    result = autoprune.prune(net(), DATA, config)
    assert [entry.stage for entry in result.stages] == ["select", "rebuild", "finetune"]
    assert result.cost.macs == result.dense_cost.macs


def striding() -> torch.nn.Module:
    """Return the net with a second map size."""
    made = net()
    made[3].stride = (2, 2)  # type: ignore[index]  # a convolution
    return made


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"select": {"residual": "shortcut"}}, 'got "shortcut", but Sequential has no residual stream'),
        (
            {"select": {"criterion": "taylor", "residual": "shortcut"}},
            'select.residual = "shortcut": criterion "taylor" reads more',
        ),
        (
            {"select": {"by": "global-threshold", "ranking": "greedy"}},
            r'select.ranking: select.by = "global-threshold" does not follow it\. .*"uniform"',
        ),
        ({"flow": {"narrow": "stage", "passes": 2}}, 'got 2, but flow.narrow = "stage" has one pass'),
        ({"flow": {"narrow": "layer"}}, 'flow.narrow: got .layer., expected one of "all", "group", "stage"'),
        ({"flow": {"method": "filter-pruning-residual"}}, "needs residual blocks.*Sequential has none"),
    ],
)
def test_rules_that_do_not_fit_are_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        autoprune.prune(net(), DATA, pruning(tmp_path / "out", **changes))
    assert list(tmp_path.iterdir()) == []


def test_a_ranking_by_layers_shows_its_progress(tmp_path: Path) -> None:
    counted: list[Counted] = []

    def watch(event: Event) -> None:
        if isinstance(event, Counted) and event.what == "groups ranked":
            counted.append(event)

    select = {"criterion": "lasso", "ranking": "greedy"}
    autoprune.prune(net(), DATA, pruning(tmp_path, select=select, finetune={"epochs": 0}), watch=watch)
    assert [(each.done, each.total) for each in counted] == [(1, 2), (2, 2)]
