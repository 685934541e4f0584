"""A search for the smallest model within a tolerance: winner, resume, and settings that are refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from autoprune import run
from autoprune.config import load_config
from autoprune.config.rungs import RungScore
from autoprune.config.settings import BudgetSettings, RunConfig
from autoprune.errors import AutopruneError, ConfigError, StudyError
from autoprune.reporting import StudySummary, plot_study, tolerance_notes, trial_table
from autoprune.run import Event, Stage, TrialDone, settle
from autoprune.run._checks.checks import check_names
from autoprune.run._measuring.warm_starts import moving_budget
from autoprune.run._resolving.tolerance import tolerance_of
from autoprune.space import SHARE
from autoprune.study import SearchStudy, ToleranceFacts, open_study
from autoprune.study._pareto import smallest_of
from tests.engines.toy import FACTS, moving_space, new_study
from tests.records import comparable
from tests.reporting.test_tables import RECORD, SUMMARY, drawn
from tests.run.dense import trained_checkpoint

CONFIG: dict[str, dict[str, Any]] = {
    "model": {"name": "digits_resnet"},
    "data": {"name": "digits", "batch_size": 64, "val_fraction": 0.2},
    "train": {"epochs": 5},
    "budget": {"tolerance": "3 points", "params": "90%"},
    "search": {
        "trials": 12,
        "study": "small",
        "sampler": "tpe",
        "setting": "float32 contiguous",
        "warm_starts": ["uniform", "reconstruction"],
    },
    "score": {"rungs": ["repair"], "calibration_batches": 2, "moment_images": 128},
    "finetune": {"epochs": 0},
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return trained_checkpoint(CONFIG, tmp_path_factory.mktemp("dense"))


@dataclasses.dataclass(frozen=True)
class Searched:
    """A finished search and the lines that it printed."""

    url: str
    summary: StudySummary
    lines: list[str]

    @property
    def study(self) -> SearchStudy:
        return open_study(self.url, "small")


def placed(folder: Path, checkpoint: str, *overrides: str) -> RunConfig:
    places = [f"search.storage='journal:///{folder}/small.log'", f"output.folder='{folder}'"]
    return load_config(CONFIG, [*places, f"model.checkpoint='{checkpoint}'", *overrides])


@pytest.fixture(scope="module")
def searched(checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    events: list[Event] = []
    folder = tmp_path_factory.mktemp("small")
    result = run.search(config=placed(folder, checkpoint), watch=events.append)
    return Searched(result.storage, result.summary, [e.text for e in events if isinstance(e, Stage)])


def test_the_winner_is_the_smallest_trial_within_the_tolerance(searched: Searched) -> None:
    summary = searched.summary
    least = summary.dense_score - 0.03
    assert summary.smallest == "macs"
    assert summary.least_score == pytest.approx(least)
    within = [record for record in summary.records if (record.score or 0) >= least]
    assert 1 <= len(within) < len(summary.records)
    assert summary.best is not None
    assert summary.best.macs == min(record.macs or 0 for record in within)
    assert summary.ranked()[0] == summary.best == searched.study.best()
    assert run.best("small", searched.url).trial == summary.best
    assert summary.enough_trials is None
    assert summary.importances == {}
    (note,) = tolerance_notes(summary)
    assert note.startswith(
        f"The smallest of {len(within)} trials within the tolerance, 0.0300 below the dense"
    )
    assert f"trial {summary.best.number} with {summary.macs_share(summary.best):.1%} of the MACs" in note


def test_trials_bisect_then_compare_then_sample_and_keep_the_other_limits(searched: Searched) -> None:
    records = searched.summary.records
    origins = [record.origin for record in records]
    bisected = origins.count("reconstruction")
    assert 4 <= bisected <= 6
    assert origins == ["reconstruction"] * bisected + ["sampler"] * (12 - bisected)
    assert all(record.costs["params"] <= searched.study.facts.limits["params"] for record in records)
    assert all(0 < record.ratios[SHARE] <= 1 for record in records)
    assert "the budget is bisected over plans of reconstruction, then compared with uniform" in searched.lines
    assert any("tolerance 0.03: the share of the flops moves from" in line for line in searched.lines)


def test_a_killed_search_goes_on_as_it_would_have(
    searched: Searched, checkpoint: str, tmp_path: Path
) -> None:
    """Interrupted in the bisection, and again while the sampler proposes."""

    def interrupt(event: Event) -> None:
        if isinstance(event, TrialDone) and event.done in (2, 9):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.search(config=placed(tmp_path, checkpoint), watch=interrupt)
    url = f"journal:///{tmp_path}/small.log"
    with pytest.raises(KeyboardInterrupt):
        run.resume("small", url, watch=interrupt)
    resumed = run.resume("small", url)
    assert list(map(comparable, resumed.summary.records)) == list(map(comparable, searched.summary.records))


def test_the_winner_is_finetuned_and_the_report_shows_it_first(searched: Searched, tmp_path: Path) -> None:
    events: list[Event] = []
    best = searched.summary.best
    assert best is not None
    tuned = run.finetune(
        "small", searched.url, overrides=[f"output.folder='{tmp_path}'"], watch=events.append
    )
    assert tuned.trial == best.number
    assert any("The smallest of" in event.text for event in events if isinstance(event, Stage))
    table = drawn(trial_table(searched.summary))
    numbers = [
        line.split()[0] for line in table.splitlines() if line.split()[:1] and line.split()[0].isdigit()
    ]
    assert numbers[0] == str(best.number)
    assert plot_study(searched.summary, tmp_path / "small.png").stat().st_size > 0


def test_another_tolerance_is_another_search(searched: Searched) -> None:
    with pytest.raises(ConfigError, match=r"--set budget\.tolerance: this key cannot change during a study"):
        run.resume("small", searched.url, overrides=["budget.tolerance=0.1"])
    study = searched.study
    with pytest.raises(StudyError, match=r"tolerance is 0\.01 of macs here and 0\.03 of macs in the"):
        study.require({**study.identity, "tolerance": "0.01 of macs"})


def test_without_a_trial_within_it_the_nearest_is_named() -> None:
    small = dataclasses.replace(RECORD, number=1, costs={"macs": 100}, scores=(RungScore(0, "a", 0.5, 0.0),))
    assert smallest_of([small, RECORD], "macs", least=0.95) == RECORD
    assert smallest_of([small, RECORD], "macs", least=0.4) == small
    assert smallest_of([small, RECORD], "macs", least=0.6) == RECORD
    missed = dataclasses.replace(SUMMARY, smallest="macs", least_score=0.95)
    assert tolerance_notes(missed) == [
        "No trial is within the tolerance, 0.0400 below the dense model's 0.9900: the nearest is trial 0 "
        "with 50.0% of the MACs and a score of 0.9000, 0.0500 too low."
    ]
    assert tolerance_notes(SUMMARY) == []
    close = dataclasses.replace(RECORD, scores=(RungScore(0, "a", 0.951, 0.0, 0.004),))
    (note,) = tolerance_notes(dataclasses.replace(missed, records=(close,), best=close))
    assert "0.0010 above the limit, less than its standard error: another sample of images may" in note


@pytest.mark.parametrize(
    ("tolerance", "allowed"),
    [("0.5 points", 0.005), ("1 point", 0.01), (0.25, 0.25), ("2", 2.0), (".5", 0.5)],
)
def test_points_are_hundredths_of_the_score(tolerance: str | float, allowed: float) -> None:
    found = tolerance_of(BudgetSettings(tolerance=tolerance, of="latency"))
    assert found is not None
    assert (found.allowed, found.key.cost) == (allowed, "latency_ms")


@pytest.mark.parametrize(
    ("budget", "search", "message"),
    [
        ({"tolerance": "0 points"}, {}, "budget.tolerance: got '0 points', expected points such as"),
        ({"tolerance": "half"}, {}, "budget.tolerance: got 'half', expected points such as"),
        ({"tolerance": "5%"}, {}, "budget.tolerance: got '5%', expected points such as"),
        ({"tolerance": "1 point", "of": "latencies"}, {}, 'Did you mean "latency"'),
        ({"of": "latency", "flops": "50%"}, {}, "budget.of: set without budget.tolerance"),
        (
            {"tolerance": "1 point"},
            {"objectives": ["score", "flops"]},
            "budget.tolerance: got several search.objectives as well. Leave out one",
        ),
        ({"tolerance": "1 point"}, {"pruner": "halving"}, "but budget.tolerance moves the budget, and then"),
        ({}, {}, 'latency = "4 ms" or tolerance = "0.5 points"'),
    ],
)
def test_a_tolerance_that_cannot_be_used_is_refused(
    budget: dict[str, Any], search: dict[str, Any], message: str
) -> None:
    config = load_config(
        {"model": {"name": "resnet20"}, "data": {"name": "digits"}, "budget": budget, "search": search}
    )
    with pytest.raises(AutopruneError, match=message):
        check_names(settle(config))


@pytest.mark.parametrize("rows", [[], [[1, 2]], [[0, 0, 0, 0, 999]], [[-1, 0, 0, 0, 0]]])
def test_plans_of_another_space_are_damaged(rows: list[list[int]], tmp_path: Path) -> None:
    study = new_study(f"journal:///{tmp_path}/s.log", ("tolerance",))
    assert moving_budget(study, moving_space(), 9) is not None
    tolerance = ToleranceFacts(cost="macs", allowed=0.5, plans={"uniform": rows})
    study.facts = FACTS.model_copy(update={"tolerance": tolerance})
    with pytest.raises(
        StudyError, match=r"its header is damaged: the plans of .*uniform.* are not of its space"
    ):
        moving_budget(study, moving_space(), 9)


def test_a_tolerance_reads_back_as_it_was_stored(tmp_path: Path) -> None:
    url = f"journal:///{tmp_path}/s.log"
    stored = new_study(url, ("tolerance",)).facts.tolerance
    assert open_study(url, "toy").facts.tolerance == stored
