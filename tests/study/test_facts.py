"""Facts of studies: those that an earlier version stored are read, those of a later version are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from autoprune.errors import StudyError
from autoprune.reporting import summarise
from autoprune.study import StudyFacts, WarmStart, open_study
from tests.engines.toy import FACTS

EARLIER = Path(__file__).parent / "earlier" / "no_version.log"
"""The journal of a search and its finetune, as they were before facts had a version."""


@pytest.fixture
def url(tmp_path: Path) -> str:
    shutil.copy(EARLIER, tmp_path / "study.log")
    return f"journal:///{tmp_path}/study.log"


def test_a_study_of_the_version_before_is_read(url: str) -> None:
    study = open_study(url, "earlier")
    facts = study.facts
    assert facts.version == 1
    assert facts.dense_score == 0.5
    costs = {"macs": 69264, "params": 4218, "size_bytes": 17072, "peak_memory_bytes": 24240}
    assert facts.dense_costs == costs
    assert facts.limits == {"macs": 34632}
    assert facts.setting["dtype"] == "float32"
    assert facts.dense_widths == {"0": 24, "3": 16, "5": 24}
    assert facts.ranking.keys() == facts.dense_widths.keys()
    assert facts.relaxed == {}
    assert (facts.stairs, facts.latency) == (None, None)
    assert facts.statistics is not None
    assert facts.statistics["kl"].keys() == facts.ranking.keys()
    assert [type(each) for each in facts.warm_starts.trials] == [WarmStart]
    assert facts.warm_starts.seconds.keys() == {"uniform"}
    summary = summarise(study)
    assert [record.state for record in summary.records] == ["complete"] * 4
    assert summary.macs_share(summary.records[0]) == pytest.approx(34088 / 69264)


def test_a_changed_config_leaves_the_facts_as_the_version_before_stored_them(url: str) -> None:
    study = open_study(url, "earlier")
    before = study.optuna.user_attrs["autoprune"]["chosen"]
    study.store_config({**study.config, "search": {"trials": 9}})
    assert study.optuna.user_attrs["autoprune"]["chosen"] == before
    assert open_study(url, "earlier").config["search"] == {"trials": 9}


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("version 1", r"chosen\.ranking is missing"),  # without which no search can go on
        ("version 4", "a later version of autoprune made this study"),
    ],
)
def test_a_study_that_cannot_be_read_is_refused_in_one_line(url: str, version: str, message: str) -> None:
    stored = open_study(url, "earlier").optuna
    header = stored.user_attrs["autoprune"]
    chosen = {key: value for key, value in header["chosen"].items() if key != "ranking"}
    if version == "version 4":
        chosen["version"] = 4
    stored.set_user_attr("autoprune", {**header, "chosen": chosen})
    with pytest.raises(StudyError, match=f"^earlier: .*{message}") as caught:
        open_study(url, "earlier")
    assert "\n" not in str(caught.value)


def test_facts_read_back_as_they_were_stored() -> None:
    facts = FACTS.model_copy(update={"dense_costs": {"macs": 10, "latency_ms": 1.5}, "limits": {"macs": 5}})
    stored = facts.to_json()
    assert stored["dense_macs"] == 10
    assert stored["budget_macs"] == 5
    assert "limits" not in stored
    assert StudyFacts(**stored) == facts
