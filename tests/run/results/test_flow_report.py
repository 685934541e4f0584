"""Flows in a folder are ranked by their scores, and so are the settings in which they differ."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import autoprune
from autoprune.cli import main
from autoprune.errors import StudyError
from autoprune.run import compare_flows, holds_flows
from tests.flow.nets import DATA, masked, net


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The record of a finished flow of masks."""
    folder = tmp_path_factory.mktemp("flow")
    result = autoprune.prune(net(), DATA, masked(folder, finetune={"epochs": 0}))
    read: dict[str, Any] = json.loads((result.folder / "flow.json").read_text())
    return read


def write(folder: Path, record: Mapping[str, Any], score: float, **sections: Mapping[str, Any]) -> None:
    """Write a copy of a record with other settings and another score."""
    config = {name: {**keys, **sections.get(name, {})} for name, keys in record["config"].items()}
    copy = {**record, "config": config, "result": {**record["result"], "val_score": score}}
    folder.mkdir(parents=True)
    (folder / "flow.json").write_text(json.dumps(copy))


def test_settings_are_ranked_where_all_others_are_equal(tmp_path: Path, record: dict[str, Any]) -> None:
    for number, (schedule, seed, score) in enumerate(
        [("cubic", 0, 0.9), ("cubic", 1, 0.8), ("one-shot", 0, 0.7), ("one-shot", 1, 0.8)]
    ):
        mask, finetune = {"schedule": schedule}, {"seed": seed}
        unread = {"penalty": f"penalty {number}"}
        write(tmp_path / str(number), record, score, mask=mask, finetune=finetune, sparsify=unread)
    write(tmp_path / "more", record, 0.95, mask={"schedule": "cubic", "sparsity": 0.5})
    (compared,) = compare_flows(tmp_path)
    assert [flow.folder.name for flow in compared.flows] == ["more", "0", "1", "3", "2"]
    assert compared.flows[1].settings.keys() == {"mask.schedule", "mask.sparsity", "finetune.seed"}
    rounded = {
        key: [(value, round(score, 6)) for value, score in each] for key, each in compared.rankings.items()
    }
    assert rounded == {
        "mask.schedule": [("cubic", 0.85), ("one-shot", 0.75)],
        "mask.sparsity": [("0.5", 0.95), ("0.75", 0.9)],  # both with seed 0
    }
    assert compared.flows[0].share < 0.5  # the multiply-adds of masked weights do not count


def test_flows_that_differ_outside_the_sections_of_their_stages_are_no_repetitions(
    tmp_path: Path, record: dict[str, Any]
) -> None:
    for number, (criterion, sparsity, score) in enumerate(
        [("l1", 0.5, 0.9), ("l2", 0.5, 0.7), ("l1", 0.75, 0.8)]
    ):
        search, output = {"criterion": criterion, "study": f"study {number}"}, {"folder": f"folder {number}"}
        mask = {"sparsity": sparsity}
        write(tmp_path / str(number), record, score, mask=mask, search=search, output=output)
    (compared,) = compare_flows(tmp_path)
    assert compared.rankings == {
        "mask.sparsity": [("0.5", 0.9), ("0.75", 0.8)],
        "search.criterion": [("l1", 0.9), ("l2", 0.7)],
    }


def test_a_value_measured_under_other_settings_alone_is_left_out(
    tmp_path: Path, record: dict[str, Any]
) -> None:
    for number, (score, sparsity, seed, result) in enumerate(
        [
            ("magnitude", 0.5, 0, 0.9),
            ("magnitude", 0.5, 1, 0.5),
            ("gradient", 0.5, 0, 0.8),
            ("magnitude", 0.75, 0, 0.7),
            ("gradient", 0.75, 0, 0.5),
            ("activation", 0.9, 0, 0.99),
        ]
    ):
        mask = {"score": score, "sparsity": sparsity}
        write(tmp_path / str(number), record, result, mask=mask, finetune={"seed": seed})
    (compared,) = compare_flows(tmp_path)
    ranking = [(value, round(mean, 6)) for value, mean in compared.rankings["mask.score"]]
    assert ranking == [("magnitude", 0.8), ("gradient", 0.65)]


def test_flows_of_other_models_are_not_mixed_and_unfinished_ones_are_left_out(
    tmp_path: Path, record: dict[str, Any]
) -> None:
    assert not holds_flows(tmp_path)
    write(tmp_path / "a", record, 0.5)
    other = {**record, "identity": {**record["identity"], "model (its weights)": "another"}}
    write(tmp_path / "deep" / "b", other, 0.6)
    assert holds_flows(tmp_path)
    assert [[flow.folder.name for flow in each.flows] for each in compare_flows(tmp_path)] == [["a"], ["b"]]
    path = tmp_path / "deep" / "b" / "flow.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "result": None}))
    with pytest.raises(StudyError, match=r"deep: no flow is finished\. Run `autoprune prune`"):
        compare_flows(tmp_path / "deep")


def test_the_command_prints_the_ranking(
    tmp_path: Path,
    record: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(tmp_path / "a", record, 0.5)
    write(tmp_path / "b", record, 0.6, mask={"score": "gradient"})
    monkeypatch.setattr(sys, "argv", ["autoprune", "report", str(tmp_path), "--html"])
    with pytest.raises(SystemExit):
        main()
    assert "holds flows, which have no plot and no page. Leave these options out" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["autoprune", "report", str(tmp_path)])
    with pytest.raises(SystemExit):
        main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == (
        "mask.score, by the mean score with all other settings equal: gradient 0.6000, magnitude 0.5000."
    )
