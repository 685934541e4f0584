"""A search from an earlier study with its settings and measurements, and predictions for other budgets."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import autoprune
from autoprune.data import VisionData, load
from autoprune.errors import AutopruneError, BudgetError, ConfigError
from autoprune.reporting import BudgetCurve, budget_notes, budget_table
from autoprune.run import Event, Stage, budget_curve
from autoprune.study import SearchStudy, open_study
from autoprune.zoo import make_model
from tests.reporting.test_tables import drawn

CONFIG: dict[str, dict[str, Any]] = {
    "budget": {"flops": "50%"},
    "search": {
        "trials": 6,
        "study": "half",
        "sampler": "random",
        "setting": "float32 contiguous",
        "warm_starts": ["reconstruction", "sensitivity"],
        "sensitivity_evaluations": 5,
        "sensitivity_images": 50,
    },
    "score": {"rungs": ["repair"], "calibration_batches": 1, "moment_images": 64},
}


@dataclass(frozen=True)
class Half:
    """A finished search, in its folder, with its model and data."""

    model: nn.Module
    data: VisionData
    folder: Path
    study: SearchStudy

    def search_again(self, *overrides: str) -> tuple[SearchStudy, list[str]]:
        """Search from the study, and return the new study and the lines that were reported."""
        events: list[Event] = []
        result = autoprune.search(
            self.model, self.data, from_study="half", overrides=overrides, watch=events.append
        )
        lines = [event.text for event in events if isinstance(event, Stage)]
        return open_study(result.storage, result.name), lines


@pytest.fixture(scope="module")
def half_searched(tmp_path_factory: pytest.TempPathFactory) -> Half:
    folder = tmp_path_factory.mktemp("half")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        torch.manual_seed(0)
        model, data = make_model("digits_resnet", 10, 1), load("digits", batch_size=64, val_fraction=0.1)
        result = autoprune.search(model, data, CONFIG)
        return Half(model, data, folder, open_study(result.storage, "half"))


@pytest.fixture
def half(half_searched: Half, monkeypatch: pytest.MonkeyPatch) -> Half:
    monkeypatch.chdir(half_searched.folder)
    return half_searched


def test_another_budget_measures_nothing_again(half: Half) -> None:
    study, lines = half.search_again("budget.flops=30%")
    assert study.name == "model-data-flops30"
    assert "reused from half: ranking, error library, moments, sensitivity" in lines
    assert not [
        line for line in lines if "measur" in line or line.startswith(("error curves", "sensitivity"))
    ]
    before, after = half.study.facts, study.facts
    assert after.ranking == before.ranking
    for name in ("sensitivity", "reconstruction"):
        there, here = before.warm_starts.measured[name], after.warm_starts.measured[name]
        assert {**here, "seconds": 0} == {**there, "seconds": 0}
    assert after.limits["macs"] == pytest.approx(0.6 * before.limits["macs"], rel=1e-5)
    starts = [record.origin for record in study.records()[:2]]
    assert starts == ["reconstruction", "sensitivity"]
    assert half.study.note("autoprune:moments")["sha256"] == study.note("autoprune:moments")["sha256"]


def test_a_fresh_search_under_that_budget_has_the_same_trials(half: Half) -> None:
    """Reused measurements equal those that would be made."""
    study, _ = half.search_again("budget.flops=40%", "search.trials=3", "search.study=again")
    search = {**CONFIG["search"], "trials": 3, "study": "fresh"}
    config = {**CONFIG, "budget": {"flops": "40%"}, "search": search}
    fresh = autoprune.search(half.model, half.data, config).summary.records
    again = study.records()
    assert [each.widths for each in again] == [each.widths for each in fresh]
    assert [each.score for each in again] == [each.score for each in fresh]


def test_measurements_that_depend_on_a_changed_setting_are_made_again(half: Half) -> None:
    study, lines = half.search_again(
        "search.sensitivity_images=40", "search.trials=6", "search.study=images", "budget.flops=45%"
    )
    assert "reused from half: ranking, error library, moments" in lines
    assert (
        "not reused, and measured again if needed: sensitivity (search.sensitivity_images differs)" in lines
    )
    assert (
        study.facts.warm_starts.measured["sensitivity"]
        != half.study.facts.warm_starts.measured["sensitivity"]
    )


def test_another_criterion_or_another_model_reuses_no_ranking(half: Half) -> None:
    _, lines = half.search_again(
        "search.criterion=l2", "search.trials=1", "search.study=l2", "score.rungs=['calibrate']"
    )
    assert "reused from half: moments" in lines
    assert any("ranking (search.criterion differs), error library (search.cri" in line for line in lines)
    torch.manual_seed(1)
    other = Half(make_model("digits_resnet", 10, 1), half.data, half.folder, half.study)
    _, lines = other.search_again("search.trials=1", "search.study=other")
    assert "reused from half: nothing" in lines
    assert any("ranking (model (its weights) differs)" in line for line in lines)


def test_another_number_of_images_reuses_nothing(half: Half) -> None:
    few = ("data.most_samples=64", "search.trials=1", "search.study=few", "score.rungs=['calibrate']")
    _, lines = half.search_again(*few, "search.warm_starts=[]")
    assert "reused from half: nothing" in lines
    assert any("ranking (data.most_samples differs)" in line for line in lines)


def curve(half: Half, budget: str, *outputs: str, study: str = "half") -> BudgetCurve:
    return budget_curve(study, budget=budget, outputs=outputs, model=half.model, data=half.data)


def test_the_best_plan_of_each_budget_is_predicted_without_trials(half: Half) -> None:
    found = curve(half, "flops=20%..60%", "curve.csv", "curve.png")
    assert [point.limit for point in found.points] == [f"{share}%" for share in range(20, 65, 5)]
    errors = [point.error for point in found.points]
    assert errors == sorted(errors, reverse=True)
    for share, point in zip(range(20, 65, 5), found.points, strict=True):
        assert 0.98 * share / 100 <= found.share(point, "macs") <= share / 100
    text = drawn(budget_table(found))
    assert "20%" in text
    assert "error" in text
    assert any("is no accuracy" in note for note in budget_notes(found))
    assert found.files == (Path("curve.csv"), Path("curve.png"))
    rows = list(csv.DictReader(Path("curve.csv").read_text("utf-8").splitlines()))
    assert [row["flops"] for row in rows] == [point.limit for point in found.points]
    assert {name: int(rows[0][name]) for name in found.points[0].widths} == found.points[0].widths
    assert len(half.study.records()) == CONFIG["search"]["trials"]


def test_the_prediction_at_a_studys_budget_is_its_warm_start(half: Half) -> None:
    (point,) = curve(half, "flops=50%").points
    (trial,) = [record for record in half.study.records() if record.origin == "reconstruction"]
    assert point.widths == {name: trial.widths[name] for name in point.widths}
    assert point.costs == trial.costs


def test_any_cost_can_be_varied_and_a_missing_library_is_measured(half: Half) -> None:
    expected = curve(half, "peak_memory=60%..70%")
    study, _ = half.search_again("search.trials=1", "search.study=bare", "search.warm_starts=[]")
    assert not study.facts.warm_starts.measured
    assert curve(half, "peak_memory=60%..70%", study="bare").points == expected.points
    assert expected.share(expected.points[-1], "peak_memory_bytes") <= 0.7


@pytest.mark.parametrize(
    ("budget", "error", "message"),
    [
        ("flops", ConfigError, '--budget: got .flops., expected e.g. "flops=20%..60%"'),
        ("flops=60%..20%", ConfigError, "the smaller one first"),
        ("flops=50%..120%", ConfigError, "below the dense model's own"),
        ("flop=50%", ConfigError, '--budget: unknown cost "flop".* Did you mean "flops"'),
        ("latency=50%", ConfigError, "--budget: got .* the dense model's cost is not known"),
        ("latency=1ms", ConfigError, "half has no latency table. Limit another cost"),
        ("flops=0.01%..50%", BudgetError, r"budget.flops: 0.01% asks for .* smallest reachable"),
    ],
)
def test_a_range_that_cannot_be_used_is_refused_in_one_line(
    half: Half, budget: str, error: type[AutopruneError], message: str
) -> None:
    with pytest.raises(error, match=message):
        curve(half, budget)


def test_a_config_or_a_study_and_not_both(half: Half) -> None:
    with pytest.raises(ConfigError, match="search: got a config and from_study, expected one of them"):
        autoprune.search(half.model, half.data, CONFIG, from_study="half")
    with pytest.raises(
        ConfigError, match=r"without changes, a search from a study repeats it\. .* search.seed"
    ):
        autoprune.search(half.model, half.data, from_study="half")
    with pytest.raises(ConfigError, match="search: got overrides without from_study"):
        autoprune.search(half.model, half.data, CONFIG, overrides=["budget.flops=30%"])
