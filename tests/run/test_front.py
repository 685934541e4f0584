"""A real search with several objectives: its Pareto front, its resume, and the finetune of a chosen trial."""

from __future__ import annotations

import dataclasses
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import autoprune
from autoprune import run
from autoprune.config import load_config
from autoprune.config.settings import RunConfig
from autoprune.errors import ConfigError, StudyError
from autoprune.reporting import StudySummary, cost_table, front_table, plot_study, summary_notes
from autoprune.run import Event, Stage, TrialDone
from autoprune.run._resolving.dense import load_dense
from autoprune.run._resolving.problem import build_problem, trace_dense
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._results.savings import stored_savings
from autoprune.space import SHARE, ShareSpace
from autoprune.study import open_study
from autoprune.zoo import make_model
from tests.records import comparable
from tests.run.dense import trained_checkpoint

CONFIG: dict[str, dict[str, Any]] = {
    "model": {"name": "digits_resnet"},
    "data": {"name": "digits", "batch_size": 64, "val_fraction": 0.2},
    "train": {"epochs": 5},
    "search": {
        "objectives": ["score", "flops"],
        "trials": 15,
        "study": "front",
        "setting": "float32 contiguous",
        "warm_starts": ["uniform", "l1"],
    },
    "score": {"rungs": ["calibrate"], "calibration_batches": 2},
    "finetune": {"epochs": 1},
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dense model that has learnt enough for a front."""
    return trained_checkpoint(CONFIG, tmp_path_factory.mktemp("dense"))


@dataclasses.dataclass(frozen=True)
class Searched:
    """A finished search and its events."""

    folder: Path
    url: str
    summary: StudySummary
    told: list[Event]


@pytest.fixture(scope="module")
def searched(checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    folder = tmp_path_factory.mktemp("front")
    told: list[Event] = []
    result = run.search(config=placed(folder, checkpoint), watch=told.append)
    return Searched(folder, result.storage, result.summary, told)


def placed(folder: Path, checkpoint: str, *overrides: str) -> RunConfig:
    places = [f"search.storage='journal:///{folder}/front.log'", f"output.folder='{folder}'"]
    return load_config(CONFIG, [*places, f"model.checkpoint='{checkpoint}'", *overrides])


def space_of(config: RunConfig) -> ShareSpace:
    spec = RunSpec.of(config)
    space = build_problem(trace_dense(load_dense(spec), spec), spec).space
    assert isinstance(space, ShareSpace)
    return space


def test_trials_fill_shares_from_small_to_whole_without_a_budget(searched: Searched, checkpoint: str) -> None:
    space = space_of(placed(searched.folder, checkpoint))
    shares = []
    for record in searched.summary.records:
        widths = np.array([record.widths[name] for name in space.groups])
        (level,) = space.ladder.rows[0].of_ratio(np.array([record.ratios[SHARE]])).tolist()
        assert 0.98 <= float(space.at(level).usage(widths)[0]) <= 1
        assert set(record.costs) == {"macs", "params", "size_bytes", "peak_memory_bytes"}
        shares.append(searched.summary.share(record, "macs"))
    assert min(shares) < 0.2
    assert max(shares) > 0.8


def test_the_front_is_the_result(searched: Searched) -> None:
    summary = searched.summary
    assert len(summary.front) >= 4
    scores = [record.score or 0.0 for record in summary.front]
    macs = [record.macs or 0 for record in summary.front]
    assert scores == sorted(scores)
    assert macs == sorted(macs)
    assert summary.best == summary.front[-1]
    ends = [event for event in searched.told if isinstance(event, TrialDone)]
    assert ends[-1].front == len(summary.front)
    assert ends[-1].best == (scores[-1], summary.share(summary.front[-1], "macs"))
    stages = [event.text for event in searched.told if isinstance(event, Stage)]
    assert any("objectives score, flops: the share of the budget is searched from" in text for text in stages)


def test_the_page_of_the_search_shows_the_front_and_the_savings_of_each_of_its_groups(
    searched: Searched, tmp_path: Path
) -> None:
    page = (searched.folder / "report.html").read_text("utf-8")
    assert f"has {len(searched.summary.front)} trials: pick one by a limit" in page
    savings = stored_savings(open_study(searched.url, "front"))
    assert savings.keys() == {record.number for record in searched.summary.front}
    for record in searched.summary.front:
        for cost, dense in searched.summary.dense_costs.items():
            saved = sum(each[cost] for each in savings[record.number].values())
            assert saved == pytest.approx(dense - record.costs[cost])
    again = run.report("front", searched.url, tmp_path / "again.html")
    assert (again.page, again.plot) == (tmp_path / "again.html", None)
    assert (tmp_path / "again.html").read_text("utf-8").count("on the front") == len(searched.summary.front)
    with pytest.raises(ConfigError, match=r"--output page\.png: expected a name that ends in \.html\."):
        run.report("front", searched.url, "page.png", html=True)


def test_heuristics_fill_several_shares_in_a_third_of_the_trials(searched: Searched) -> None:
    records = searched.summary.records
    warm = [record for record in records if record.origin != "sampler"]
    assert [record.number for record in warm] == [0, 1, 2, 3, 4]
    assert all(record.origin.startswith("uniform at ") for record in warm)
    shares = [searched.summary.share(record, "macs") for record in warm]
    np.testing.assert_allclose(shares, [0.1, 0.3, 0.5, 0.7, 0.9], atol=0.03)


def test_a_killed_search_goes_on_as_it_would_have(
    searched: Searched, checkpoint: str, tmp_path: Path
) -> None:
    """Ctrl-C in the middle of a trial, as its score is reported."""

    def interrupt(event: Event) -> None:
        if isinstance(event, TrialDone) and event.done in (3, 9):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.search(config=placed(tmp_path, checkpoint), watch=interrupt)
    url = f"journal:///{tmp_path}/front.log"
    with pytest.raises(KeyboardInterrupt):
        run.resume("front", url, watch=interrupt)
    resumed = run.resume("front", url)
    assert list(map(comparable, resumed.summary.records)) == list(map(comparable, searched.summary.records))


def test_other_objectives_are_another_search(searched: Searched) -> None:
    with pytest.raises(ConfigError, match=r"--set search\.objectives: this key cannot change during a study"):
        run.resume("front", searched.url, overrides=["search.objectives=['score', 'params']"])
    study = open_study(searched.url, "front")
    assert study.objectives == ("score", "macs")
    with pytest.raises(StudyError, match="objectives is score, params here and score, macs in the study"):
        study.require({**study.identity, "objectives": "score, params"})


def test_the_best_within_limits_is_picked_without_new_trials(searched: Searched) -> None:
    records = searched.summary.records
    before = len(open_study(searched.url, "front").records())
    picked = run.best("front", searched.url)
    assert picked.trial == searched.summary.best
    for limits, fits in (
        ({"flops": "50%"}, lambda each: searched.summary.share(each, "macs") <= 0.5),
        ({"macs": "500k"}, lambda each: each.costs["macs"] <= 500_000),
        ({"flops": "500k"}, lambda each: each.costs["macs"] <= 250_000),
        ({"params": "40%", "size": "60 kB"}, lambda each: each.costs["params"] <= 0.4 * 42_938),
        ({"peak_memory": "70%"}, lambda each: searched.summary.share(each, "peak_memory_bytes") <= 0.7),
    ):
        picked = run.best("front", searched.url, limits)
        within = [each for each in records if fits(each)]
        assert fits(picked.trial)
        if "size" in limits:
            within = [each for each in within if each.costs["size_bytes"] <= 60_000]
        assert picked.trial.score == max(each.score or 0.0 for each in within)
    assert (
        picked.command == f"autoprune finetune front --storage {searched.url} --trial {picked.trial.number}"
    )
    assert len(open_study(searched.url, "front").records()) == before


def test_nothing_within_the_limits_names_the_least_there_is(searched: Searched) -> None:
    least = min(searched.summary.records, key=lambda each: each.macs or 0)
    share = searched.summary.share(least, "macs")
    with pytest.raises(
        StudyError,
        match=rf"front: no complete trial is within --flops 0\.5% and --params 1\. The smallest: "
        rf".* k FLOPs \({share:.1%}, trial {least.number}\), .* parameters \(.*%, trial \d+\)\.$",
    ):
        run.best("front", searched.url, {"flops": "0.5%", "params": "1"})
    with pytest.raises(StudyError, match="this search neither limited nor minimised latency, so --latency"):
        run.best("front", searched.url, {"latency": "3ms"})
    with pytest.raises(ConfigError, match=r"--latency: got '30%', but the dense model's cost is not known"):
        run.best("front", searched.url, {"latency": "30%"})


def test_exactly_the_picked_trial_is_finetuned(searched: Searched) -> None:
    picked = run.best("front", searched.url, {"flops": "40%"}).trial
    tuned = autoprune.finetune("front", searched.url, trial=picked.number)
    assert tuned.trial == picked.number
    assert tuned.cost.macs == picked.macs
    assert tuned.folder == searched.folder / f"trial-{picked.number}"
    small = autoprune.load_pruned(tuned.folder, lambda: make_model("digits_resnet", 10, 1))
    assert sum(each.numel() for each in small.parameters()) == picked.params
    written = os.path.getmtime(tuned.folder / "model.safetensors")
    again = autoprune.finetune("front", searched.url, trial=picked.number)
    assert again == tuned
    assert os.path.getmtime(tuned.folder / "model.safetensors") == written
    assert not (searched.folder / "best").exists()  # where the best trial's own goes
    with pytest.raises(StudyError, match=r"--trial 99: front has trials 0 to 14"):
        autoprune.finetune("front", searched.url, trial=99)


def test_tables_sentences_and_picture_show_the_front(searched: Searched, tmp_path: Path) -> None:
    summary = searched.summary
    console = Console(file=io.StringIO(), width=120)
    console.print(front_table(summary), cost_table(summary, summary.front[0]))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "accuracy against MACs" in text
    assert all(f"{summary.share(record, 'macs'):.1%}" in text for record in summary.front)
    assert "memory" in text
    assert any(f"The Pareto front has {len(summary.front)} trials" in note for note in summary_notes(summary))
    assert plot_study(summary, tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    three = dataclasses.replace(summary, objectives=("score", "macs", "peak_memory_bytes"))
    assert plot_study(three, tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")


def test_limits_bound_the_shares_and_costs_beside_macs_are_minimised(checkpoint: str, tmp_path: Path) -> None:
    config = placed(
        tmp_path,
        checkpoint,
        "search.objectives=['score', 'peak_memory', 'size']",
        "search.sampler=nsga2",
        "search.trials=6",
        "budget.flops=60%",
        "budget.size=50%",
    )
    result = run.search(config=config)
    space = space_of(config)
    assert space.budget.limits.keys() == {"macs", "size_bytes", "peak_memory_bytes"}
    for record in result.summary.records:
        assert result.summary.share(record, "macs") <= 0.6
        assert result.summary.share(record, "size_bytes") <= 0.5
        values = open_study(result.storage, "front").optuna.trials[record.number].values
        assert values == [record.score, record.costs["peak_memory_bytes"], record.costs["size_bytes"]]


@pytest.mark.slow
def test_a_supernet_is_trained_over_the_whole_range_of_shares(checkpoint: str, tmp_path: Path) -> None:
    supernet = ("score.rungs=['supernet']", "score.supernet.epochs=2", "search.trials=6")
    result = run.search(config=placed(tmp_path, checkpoint, *supernet))
    assert [record.state for record in result.summary.records] == ["complete"] * 6
    assert result.front == result.summary.front != ()
