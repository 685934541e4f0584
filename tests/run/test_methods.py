"""The presets: each runs on a tiny net, and each of its keys may be set by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import torch

import autoprune
from autoprune.config import load_config, presets
from autoprune.errors import ConfigError
from autoprune.flow import NEEDS, find_stage
from autoprune.run import method_notes
from autoprune.support.events import EpochDone, Event, TrialDone
from autoprune.training import weights_hash
from tests.flow.nets import DATA, net, residual, settings
from tests.guide.markdown import unknown_words

BRIEF: dict[str, Any] = {
    "search": {"setting": "float32 contiguous", "trials": 2, "warm_starts": []},
    "score": {"rungs": ["calibrate"], "calibration_batches": 1},
    "sparsify": {"epochs": 1, "strength": 1e-3},
    "finetune": {"epochs": 1},
    "repair": {"images": 64},
}


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@pytest.mark.parametrize("name", presets())
def test_a_preset_runs_within_the_budget(name: str, tmp_path: Path) -> None:
    events: list[Event] = []
    config = {
        "budget": {"macs": "60%"},
        "flow": {"method": name},
        "output": {"folder": str(tmp_path)},
        **BRIEF,
    }
    result = autoprune.prune(residual(), DATA, config, watch=events.append)
    if "mask" in presets()[name].sections:
        assert result.remaining is not None
        assert result.remaining.sparsity > 0.6
    else:
        assert float(result.cost.macs) <= 0.6 * float(result.dense_cost.macs)
    assert result.folder == tmp_path / name
    assert [entry.number for entry in result.stages] == sorted(entry.number for entry in result.stages)
    trained = [entry for entry in result.stages if find_stage(entry.stage).trains]
    assert sum(isinstance(event, EpochDone) for event in events) == len(trained)
    by_study = presets()[name].sections.get("select", {}).get("by") == "search"
    assert any(isinstance(event, TrialDone) for event in events) == by_study


@pytest.mark.parametrize("name", presets())
def test_a_preset_fills_the_keys_that_a_config_leaves_out_and_no_others(name: str) -> None:
    preset = presets()[name]
    filled = load_config({"flow": {"method": name}})
    for key, value in leaves(preset.sections):
        assert json.dumps(attrgetter(key)(filled)) == json.dumps(value)
        by_hand = attrgetter(key)(load_config({}))
        section, _, last = key.partition(".")
        values: dict[str, Any] = {"flow": {"method": name}}
        values.setdefault(section, {})[last] = by_hand
        assert attrgetter(key)(load_config(values)) == by_hand


def test_the_list_of_methods_names_paper_needs_and_a_command_that_exists() -> None:
    notes = method_notes()
    for name, preset in presets().items():
        assert f"{name}: {preset.about}" in notes
        assert any(preset.paper in note for note in notes)
        assert set(preset.needs) <= NEEDS.keys()
    commands = [note.strip() for note in notes if note.strip().startswith("autoprune ")]
    assert len(commands) == len(presets())
    assert [unknown_words(command) for command in commands] == [[]] * len(commands)


def test_a_preset_that_needs_residual_blocks_refuses_a_chain(tmp_path: Path) -> None:
    config = settings(tmp_path, flow={"method": "guided-rebuilding"})
    with pytest.raises(ConfigError, match=r"needs residual blocks, .* but Sequential has none"):
        autoprune.prune(net(), DATA, config)
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_of_a_training_are_read_with_weights_only(tmp_path: Path) -> None:
    flow = {"checkpoints": True, "stages": ["select", "finetune"]}
    result = autoprune.prune(net(), DATA, settings(tmp_path, flow=flow))
    checkpoint = torch.load(result.folder / "1-finetune.pth", weights_only=True)
    assert checkpoint["epoch"] == 2
    assert checkpoint["optimizer"]["state"]
    small = result.model.state_dict()
    assert all(torch.equal(tensor, small[name]) for name, tensor in checkpoint["state_dict"].items())


def test_a_study_in_a_flow_may_drop_the_blocks_and_go_on_without_any(tmp_path: Path) -> None:
    """Widths alone cannot meet the budget of the first pass."""
    search = {"depth": True, "criterion": ["l1", "bn"], "low": 0.8}
    config = {**BRIEF, "budget": {"macs": "40%"}, "output": {"folder": str(tmp_path)}}
    config |= {"flow": {"method": "sampling", "passes": 2}, "search": {**BRIEF["search"], **search}}
    result = autoprune.prune(residual(), DATA, config)
    assert 0 in result.stages[0].facts["widths"].values()
    assert result.cost.params == sum(each.numel() for each in result.model.parameters())
    loaded = autoprune.load_pruned(result.folder, residual)
    assert weights_hash(loaded) == weights_hash(result.model)
