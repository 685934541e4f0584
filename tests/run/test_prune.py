"""A flow from the dense model to the saved one: budget, passes, kills, resumes, and refusals."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.errors import AutopruneError, CheckpointError, ConfigError, StudyError
from autoprune.exporting import read_recipe
from autoprune.run import FlowResult
from autoprune.support.events import EpochDone, Event, Stage
from autoprune.training import weights_hash
from tests.children import run_child
from tests.flow.killing import config, prune_until
from tests.flow.nets import DATA, net, settings


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> FlowResult:
    """A flow of two passes with all stages."""
    folder = tmp_path_factory.mktemp("flow")
    return autoprune.prune(net(), DATA, settings(folder, flow={"passes": 2}))


def folder_of(result: FlowResult) -> Path:
    return result.folder.parent


def test_the_budget_is_met_in_equal_steps_of_the_logarithm(flow: FlowResult) -> None:
    dense = float(flow.dense_cost.macs)
    after = [entry.cost["macs"] / dense for entry in flow.stages if entry.stage == "rebuild"]
    assert 0.5 < after[0] <= 0.5**0.5
    assert after[1] == float(flow.cost.macs) / dense <= 0.5


def test_the_plan_in_the_recipe_cuts_the_original_dense_model(flow: FlowResult) -> None:
    plan = read_recipe(flow.folder).plan
    prunable = autoprune.trace(net(), torch.zeros(1, 1, 8, 8))
    assert prunable.cost(plan.widths).macs == flow.cost.macs
    assert prunable.cost(plan.widths).params == sum(each.numel() for each in flow.model.parameters())


def test_the_saved_folder_holds_the_model_of_the_result(flow: FlowResult) -> None:
    loaded = autoprune.load_pruned(flow.folder, net)
    assert weights_hash(loaded) == weights_hash(flow.model)
    assert flow.test_score is not None
    assert flow.stages[-1].score == flow.val_score


def test_the_card_of_the_folder_names_the_stages_and_how_the_budget_is_met(flow: FlowResult) -> None:
    text = (flow.folder / "README.md").read_text("utf-8")
    share = flow.cost.macs / flow.dense_cost.macs
    assert f"| {share:.1%} | at most 50.0%, met |" in text
    assert f"| the validation part | {DATA.val.samples} | {flow.val_score:.4f} | not known |" in text
    assert "stages: sparsify (pass 1," in text
    assert "# The model and the data were passed in Python: autoprune prune settings.toml" in text


def test_a_finished_flow_is_not_repeated(flow: FlowResult) -> None:
    events: list[Event] = []
    changed = settings(folder_of(flow), flow={"passes": 2})
    again = autoprune.prune(net(), DATA, changed, watch=events.append)
    assert not any(isinstance(event, EpochDone) for event in events)
    assert dataclasses.replace(again, model=flow.model) == flow
    assert weights_hash(again.model) == weights_hash(flow.model)


def test_a_flow_that_stopped_before_the_card_completes_its_folder(flow: FlowResult) -> None:
    card = flow.folder / "README.md"
    text = card.read_text("utf-8")
    card.unlink()
    autoprune.prune(net(), DATA, settings(folder_of(flow), flow={"passes": 2}))
    assert card.read_text("utf-8") == text


def test_another_config_or_model_is_refused_with_the_way_to_start_over(flow: FlowResult) -> None:
    changed = settings(folder_of(flow), flow={"passes": 2}, finetune={"epochs": 3})
    with pytest.raises(StudyError, match=r"done with finetune.epochs = 2, now 3\. .*remove .*start over"):
        autoprune.prune(net(), DATA, changed)
    other = net()
    next(other.parameters()).data.mul_(2)
    with pytest.raises(StudyError, match=r"done with another model \(its weights\)"):
        autoprune.prune(other, DATA, settings(folder_of(flow), flow={"passes": 2}))


def test_a_record_of_an_earlier_version_goes_on_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    given = settings(tmp_path, flow={"stages": ["select"]}, select={"by": "uniform"}, repair=None)
    whole = autoprune.prune(net(), DATA, given)
    path = whole.folder / "flow.json"
    values = json.loads(path.read_text())
    del values["config"]["flow"]["checkpoints"]
    del values["config"]["repair"]
    path.write_text(json.dumps(values))
    assert autoprune.prune(net(), DATA, given).val_score == whole.val_score
    values["stages"][0]["seconds"] = "long"
    path.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"flow.json: stages.0.seconds: got 'long', .* to start over"):
        autoprune.prune(net(), DATA, given)


def test_the_dense_model_is_not_changed_and_settings_without_a_stage_are_reported(tmp_path: Path) -> None:
    dense = net()
    before = weights_hash(dense)
    events: list[Event] = []
    given = settings(tmp_path, flow={"stages": ["select", "finetune"]}, search={"low": 0.5, "divisor": 4})
    autoprune.prune(dense, DATA, given, watch=events.append)
    assert weights_hash(dense) == before
    lines = [event.text for event in events if isinstance(event, Stage)]
    assert '[sparsify] is set, but flow.stages has no "sparsify"' in lines
    (line,) = [line for line in lines if line.startswith("search.low and search.divisor are set, but")]
    assert 'select.by = "global-threshold" cuts channels one by one' in line


def test_a_penalty_on_the_channels_of_a_plan_trains_before_they_are_cut(tmp_path: Path) -> None:
    changes = {
        "flow": {"stages": ["select", "sparsify", "finetune"]},
        "sparsify": {"penalty": "growing", "strength": [0.1, 1.0]},
        "select": {"by": "uniform"},
    }
    lines: list[str] = []
    config = settings(tmp_path, **changes)
    result = autoprune.prune(net(), DATA, config, watch=lambda event: lines.append(str(event)))
    assert [entry.stage for entry in result.stages] == ["select", "sparsify", "rebuild", "finetune"]
    chosen = result.stages[1].facts["strength"]
    assert any(f"strength {chosen:g} was trained in full" in line for line in lines)


WORDS = ("EpochDone", "select", "channels kept", "rebuild", "measuring moments", "finetune", "EpochDone")
"""Words of the events at which a flow is killed, one after the other."""


@pytest.mark.parametrize(
    ("by", "words"),
    [
        ("library", ("EpochDone",)),
        pytest.param("library", WORDS, marks=pytest.mark.slow),
        pytest.param(
            "mask", ("pass 1 of 2: finetune", "EpochDone", "pass 2", "EpochDone"), marks=pytest.mark.slow
        ),
        pytest.param("search", ("warm starts", "number=0", "rebuild"), marks=pytest.mark.slow),
    ],
    ids=["one", "all", "masks", "search"],
)
def test_a_killed_flow_ends_with_the_weights_of_one_that_was_not(
    tmp_path: Path, by: str, words: tuple[str, ...]
) -> None:
    for word in words:
        code, printed = run_child(prune_until, word, tmp_path / "broken", by, cwd=tmp_path)
        assert code == -signal.SIGKILL, printed
    ends = [autoprune.prune(net(), DATA, config(tmp_path / name, by)) for name in ("whole", "broken")]
    assert weights_hash(ends[0].model) == weights_hash(ends[1].model)
    assert [entry.score for entry in ends[0].stages] == [entry.score for entry in ends[1].stages]
    assert list((tmp_path / "broken" / "flow").glob("*.training")) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flow": {"stages": ["select", "repare"]}}, r'flow.stages: unknown .*"repair"'),
        ({"flow": {"stages": ["repair", "select"]}}, r'"rebuild" must come before "repair"'),
        ({"flow": {"stages": ["sparsify"]}}, r'expected "select" or "mask" among them'),
        (
            {"flow": {"stages": ["select", "finetune", "sparsify"]}},
            r'"sparsify" must come before "finetune"',
        ),
        (
            {"flow": {"stages": ["select", "repair", "sparsify", "finetune"]}},
            r'"sparsify" must come before "repair"',
        ),
        ({"select": {"by": "treshold"}}, "select.by: unknown"),
        ({"select": {"share": 0.5}}, r"got \[budget\] and select.share, expected one of"),
        ({"select": {"by": "library", "share": 0.5}}, "select.share: select.by = .library. does not read it"),
        ({"budget": {"tolerance": 0.1}}, "budget.tolerance: only `autoprune search` moves the budget"),
        ({"budget": None}, "got no amount to cut, expected one of"),
        ({"select": {"criterion": "l3"}}, "select.criterion: unknown"),
        ({"repair": {"mode": "open"}}, "repair.mode: unknown"),
        ({"flow": {"method": "slimming"}}, r'flow.method: unknown .*"network-slimming"'),
        ({"sparsify": {"penalty": "l1"}}, "sparsify.penalty: unknown"),
        ({"sparsify": {"penalty": "growing"}}, r"in a flow stages = .\"select\", \"sparsify\""),
    ],
)
def test_a_mistake_is_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        autoprune.prune(net(), DATA, settings(tmp_path / "out", **changes))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "sparsify.penalty: .bn-l1. acts on BatchNorm scales, but Sequential does not fit"),
        (
            {"flow": {"method": "network-slimming"}},
            "needs a BatchNorm that scales .*, but Sequential has none",
        ),
        (
            {
                "flow": {"stages": ["select"]},
                "select": {"threshold": 9.0, "floor": 0, "criterion": "l2"},
                "budget": None,
            },
            "the threshold 9 would cut all 8 channels",
        ),
        (
            {"flow": {"stages": ["select"]}, "select": {"criterion": None}},
            'select.by: "global-threshold" compares BatchNorm scales, .* Set select.criterion, such as',
        ),
        (
            {"sparsify": {"penalty": "group-lasso"}, "select": {"share": 0.95}, "budget": None},
            "share: got 0.95, but the floor leaves 14 of 16 channels to cut",
        ),
    ],
)
def test_a_model_that_does_not_fit_is_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(AutopruneError, match=message):
        autoprune.prune(net(norm=False), DATA, settings(tmp_path / "out", **changes))
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_is_refused_while_a_flow_runs(tmp_path: Path) -> None:
    given = settings(tmp_path, flow={"stages": ["select"]}, select={"by": "uniform"})
    refused: list[str] = []

    def watch(event: Event) -> None:
        if "select" in str(event) and (tmp_path / "flow" / "flow.lock").exists():
            with pytest.raises(StudyError, match=r"process \d+ on .* runs this flow\. Wait for it") as caught:
                autoprune.prune(net(), DATA, given)
            refused.append(str(caught.value))

    autoprune.prune(net(), DATA, given, watch=watch)
    assert len(refused) == 1
    assert not (tmp_path / "flow" / "flow.lock").exists()


def test_settings_of_a_stage_that_has_not_begun_may_change(tmp_path: Path) -> None:
    impossible = {"select": {"threshold": 1e6, "floor": 0}, "budget": None, "repair": {"images": 64}}
    with pytest.raises(AutopruneError, match="would cut all 8 channels"):
        autoprune.prune(net(), DATA, settings(tmp_path, **impossible))
    kept = {**impossible, "select": {"threshold": 1e6, "floor": 2}}
    events: list[Event] = []
    result = autoprune.prune(net(), DATA, settings(tmp_path, **kept), watch=events.append)
    assert sum(isinstance(event, EpochDone) for event in events) == 2  # those of the finetune
    assert set(result.stages[1].facts["widths"].values()) == {2}
    record = json.loads((result.folder / "flow.json").read_text())
    assert record["config"]["select"]["floor"] == 2
    assert autoprune.prune(net(), DATA, settings(tmp_path, **kept)).val_score == result.val_score


def test_several_strengths_are_tried_shown_and_stored(tmp_path: Path) -> None:
    events: list[Event] = []
    sections = {"flow": {"stages": ["sparsify", "select"]}, "sparsify": {"strength": [1e-4, 1e-1]}}
    result = autoprune.prune(net(), DATA, settings(tmp_path, **sections), watch=events.append)
    facts = result.stages[0].facts
    best = min(facts["trials"], key=lambda trial: (-trial["cut_score"], trial["strength"]))
    assert facts["strength"] == best["strength"]
    shown = [event.text for event in events if isinstance(event, Stage) and event.text.startswith("strength")]
    chosen = f"strength {best['strength']:g} was trained in full"
    assert [line.split(":")[0] for line in shown] == ["strength 0.0001", "strength 0.1", chosen]
    table = (result.folder / "1-sparsify.csv").read_text().splitlines()
    assert {line.partition(",")[0] for line in table[1:]} >= {"0.0001", "0.1"}
    assert (result.folder / "1-sparsify.png").stat().st_size > 0


def negative_loss(outputs: Tensor, targets: Tensor) -> float:
    return -float(nn.functional.cross_entropy(outputs, targets))


@pytest.mark.slow
@pytest.mark.parametrize("is_named", [False, True])
def test_an_int8_file_of_a_flow_is_scored_by_the_metric_of_its_config(tmp_path: Path, is_named: bool) -> None:
    config = settings(
        tmp_path / "out", flow={"stages": ["select"]}, sparsify=None, repair=None, finetune=None
    )
    config["task"] = {"metric": lambda outputs, targets: negative_loss(outputs, targets)}
    if is_named:
        config["model"] = {"factory": "tests.flow.nets:net"}
        config["data"] = {"name": "digits", "batch_size": 256, "checkpoint_saw_validation": True}
    model, data = (None, None) if is_named else (net(), DATA)
    flow = autoprune.prune(model, data, config, watch=None)
    events: list[Event] = []
    found = autoprune.export_int8(flow, images=32, watch=events.append)
    assert found.float_score == pytest.approx(flow.val_score, abs=1e-3)
    assert "lambda" in found.metric
    assert any("timing" in str(event) for event in events)
