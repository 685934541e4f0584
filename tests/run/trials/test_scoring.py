"""The score of a real model, wherever it is made: engines with processes of their own, and on a resume."""

from __future__ import annotations

from pathlib import Path

import pytest

import autoprune
from autoprune.config import load_config
from autoprune.data import load
from autoprune.study import TrialRecord
from autoprune.zoo import make_model

QUICK = (
    "search.sampler=random",
    "search.pruner=none",
    "search.warm_starts=[]",  # as many as a third of the trials, so not those of a shorter search
    "search.setting=float32 contiguous",
    "train.epochs=2",
    "race.entrants=1",
)


def scored(records: tuple[TrialRecord, ...]) -> list[tuple[object, ...]]:
    return [
        (each.widths, each.seed, each.state, [(rung.name, rung.score) for rung in each.scores])
        for each in records
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "foot"), [("processes", "calibrate"), ("processes", "repair"), ("ray", "repair")]
)
def test_workers_score_as_one_process_does_and_it_goes_on(
    engine: str, foot: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four trials on two workers, two more in this process: the same as six in this process."""
    quick = [*QUICK, f"score.rungs=['{foot}', '3 steps']"]
    if engine == "ray":
        pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)
    alone = autoprune.search(config=load_config("digits", [*quick, "search.trials=6"]))
    spread = [f"search.engine={engine}", "search.study=spread", "search.trials=4"]
    begun = autoprune.search(config=load_config("digits", [*quick, *spread]))
    assert [record.state for record in begun.summary.records] == ["complete"] * 4
    more = ("search.engine=serial", "search.trials=6")
    whole = autoprune.resume("spread", overrides=more)
    assert scored(whole.summary.records[:4]) == scored(begun.summary.records)
    assert scored(whole.summary.records) == scored(alone.summary.records)


@pytest.mark.slow
def test_a_study_in_memory_may_have_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They never see its storage, only the process that made it does."""
    monkeypatch.chdir(tmp_path)
    settings = {
        "budget": {"flops": "50%"},
        "search": {
            "trials": 3,
            "engine": "processes",
            "storage": "sqlite:///:memory:",
            "sampler": "random",
            "setting": "float32 contiguous",
            "warm_starts": [],
        },
        "score": {"rungs": ["calibrate"], "calibration_batches": 1},
        "race": {"entrants": 1},
    }
    result = autoprune.search(make_model("digits_resnet", 10, 1), load("digits", batch_size=64), settings)
    assert [record.state for record in result.summary.records] == ["complete"] * 3
    assert list(tmp_path.rglob("*.db")) == []
