"""The lifecycle of trials in the serial engine: how trials end, and that searches resume."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from optuna.trial import Trial

from autoprune.config.rungs import RungScore
from autoprune.engines import TrialEvent, TrialRunner, run_search
from autoprune.errors import ConfigError, StudyError, TrialError
from autoprune.samplers import EvolutionRates
from autoprune.space import Budget, Candidate, ChoiceSpace, ShareSpace, SpaceSpec, build_space
from autoprune.space._choices import CRITERION
from autoprune.study import SearchStudy, open_study
from tests.engines.toy import ToyScorer, Troubled, make_toy, new_study, toy_runner, toy_space
from tests.space.costs import chain, dense_macs


@pytest.mark.parametrize("scheme", ["sqlite", "journal"])
def test_a_search_ends_with_all_its_trials_and_a_resume_adds_none(scheme: str, tmp_path: Path) -> None:
    url = f"{scheme}:///{tmp_path}/study"
    events: list[TrialEvent] = []
    run_search("serial", toy_runner(new_study(url), on_event=events.append), make_toy)
    records = open_study(url, "toy").records()
    assert [record.number for record in records] == list(range(12))
    assert {record.state for record in records} <= {"complete", "pruned"}
    finished = [event.record for event in events if event.kind == "finished"]
    assert finished == records
    assert sum(event.kind == "rung" for event in events) == sum(
        len(record.scores) for record in records if record.reused is None
    )
    run_search("serial", toy_runner(open_study(url, "toy")), make_toy)
    assert open_study(url, "toy").records() == records


TROUBLES = {
    "diverges": "diverged: the loss is nan",
    "out of memory": "RuntimeError: CUDA out of memory. Tried to allocate 20 GiB",
    "not finite": "the score of rung rung1 is nan",
    "too few rungs": "the scorer gave 1 scores, expected 2",
}


@pytest.mark.parametrize(
    ("engine", "trouble"),
    [
        *(("serial", trouble) for trouble in TROUBLES),
        ("processes", "out of memory"),
        pytest.param("processes", "not finite", marks=pytest.mark.slow),
        pytest.param("processes", "diverges", marks=pytest.mark.slow),
        pytest.param("processes", "too few rungs", marks=pytest.mark.slow),
    ],
)
def test_a_failed_trial_is_recorded_and_the_search_goes_on(
    url: str, tmp_path: Path, trouble: str, engine: str
) -> None:
    calls = tmp_path / "calls"
    calls.mkdir()
    runner = toy_runner(new_study(url), sampler="random", pruner="none", trials=6)
    run_search(engine, runner, TroubledMaker(calls, trouble), workers=1)
    records = open_study(url, "toy").records()
    assert [record.state for record in records] == ["complete"] * 3 + ["failed"] + ["complete"] * 2
    assert records[3].failure is not None
    assert TROUBLES[trouble] in records[3].failure
    assert records[3].value is None


def test_a_search_ends_after_a_trial_that_lost_the_gpu_and_resumes_with_the_next_one(
    url: str, tmp_path: Path
) -> None:
    """Later trials of that process would all fail."""
    calls = tmp_path / "calls"
    calls.mkdir()
    words = r"trial 3 failed, and CUDA cannot be used .* autoprune resume toy --storage"
    with pytest.raises(StudyError, match=words):
        run_search("serial", toy_runner(new_study(url), trials=6), TroubledMaker(calls, "loses the GPU"))
    run_search("serial", toy_runner(open_study(url, "toy"), trials=6), TroubledMaker(calls, "none"))
    states = [record.state for record in open_study(url, "toy").records()]
    assert states.count("failed") == 1
    assert states[3] == "failed"
    assert len(states) == 6


class TroubledMaker:
    """Makes `Troubled` scorers; picklable."""

    def __init__(self, folder: Path, trouble: str) -> None:
        self.folder, self.trouble = folder, trouble

    def __call__(self) -> Troubled:
        return Troubled(self.folder, self.trouble)


@pytest.mark.parametrize("ratio", ["half", math.inf, math.nan])
@pytest.mark.parametrize("sampler", ["gp", "tpe", "evolution"])
def test_a_queued_trial_that_cannot_be_proposed_fails_alone(url: str, sampler: str, ratio: object) -> None:
    """Also if the search continues in another process."""
    study = new_study(url)
    for _ in range(2):
        study.optuna.enqueue_trial({"conv0": ratio})
    events: list[TrialEvent] = []

    def interrupt(event: TrialEvent) -> None:
        events.append(event)
        if event.number == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_search("serial", toy_runner(study, sampler, pruner="none", on_event=interrupt), make_toy)
    run_search("serial", toy_runner(open_study(url, "toy"), sampler, pruner="none"), make_toy)
    records = open_study(url, "toy").records()
    assert [record.state for record in records] == ["failed"] * 2 + ["complete"] * 10
    assert all("queued with ratios that cannot be used" in (record.failure or "") for record in records[:2])
    assert [event.record for event in events[:2]] == records[:2]


def test_a_fault_of_the_samplers_is_not_taken_for_a_failed_trial(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise ValueError("a bug in the sampler")

    monkeypatch.setattr("autoprune.samplers._per_trial.PerTrialSampler.sample_relative", broken)
    with pytest.raises(ValueError, match="a bug in the sampler"):
        run_search("serial", toy_runner(new_study(url)), make_toy)
    assert [record.state for record in open_study(url, "toy").records()] == ["waiting"]


def test_a_search_whose_every_trial_fails_ends_early(url: str, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    calls.mkdir()
    with pytest.raises(StudyError, match=r"the first 5 trials all failed\. The last: ValueError: a bug"):
        run_search("serial", toy_runner(new_study(url)), TroubledMaker(calls, "always fails"))
    assert [record.state for record in open_study(url, "toy").records()] == ["failed"] * 5


def test_widths_seen_before_reuse_their_scores(url: str) -> None:
    study = new_study(url)
    calls: list[Mapping[str, int]] = []

    def count(widths: Mapping[str, int], seed: int) -> Iterator[RungScore]:
        calls.append(widths)
        yield from ToyScorer()(widths, seed)

    runner = toy_runner(study, sampler="random", pruner="none", trials=4)
    for shift in (0.0, 1e-6, 0.1, 2e-6):
        study.enqueue({f"conv{i}": 0.5 + shift * i for i in range(4)}, origin="by hand")
    run_search("serial", runner, lambda: count)
    records = study.records()
    assert [record.reused for record in records] == [None, 0, None, 0]
    assert len(calls) == 2
    assert records[1].scores == records[3].scores == records[0].scores
    assert records[1].value == records[0].value


def test_the_same_widths_by_another_criterion_are_another_candidate(url: str) -> None:
    study, space = new_study(url), ChoiceSpace(toy_space(), ("l1", "obs"))
    calls: list[Candidate] = []

    def count(widths: Candidate, seed: int) -> Iterator[RungScore]:
        calls.append(widths)
        yield from ToyScorer()(widths, seed)

    runner = TrialRunner(study, space, sampler="random", pruner="none", trials=3, rungs=2)
    half = {variable.name: 0.5 for variable in space.variables}
    for choice in (0.5, 0.9, 0.95):
        study.enqueue(half | {f"conv1{CRITERION}": choice}, origin="by hand")
    run_search("serial", runner, lambda: count)
    first, second, third = open_study(url, "toy").records()
    assert first.widths == second.widths == third.widths
    assert [each.criteria["conv1"] for each in (first, second, third)] == ["l1", "obs", "obs"]
    assert [each.reused for each in (first, second, third)] == [None, None, 1]
    assert [each.criteria for each in calls] == [first.criteria, second.criteria]


def test_ctrl_c_requeues_the_running_trial(url: str) -> None:
    def interrupted(widths: Mapping[str, int], seed: int) -> Iterator[RungScore]:
        rungs = ToyScorer()(widths, seed)
        yield next(rungs)
        if len(open_study(url, "toy").records()) == 3:
            raise KeyboardInterrupt
        yield from rungs

    with pytest.raises(KeyboardInterrupt):
        run_search("serial", toy_runner(new_study(url), pruner="none"), lambda: interrupted)
    states = [record.state for record in open_study(url, "toy").records()]
    assert states == ["complete", "complete", "waiting"]


def test_faults_of_our_own_are_not_taken_for_failed_trials(url: str) -> None:
    def broken(event: TrialEvent) -> None:
        raise TypeError("a bug in the display")

    with pytest.raises(TypeError, match="a bug in the display"):
        run_search("serial", toy_runner(new_study(url), on_event=broken), make_toy)
    assert [record.state for record in open_study(url, "toy").records()] == ["waiting"]


@pytest.mark.parametrize(
    ("engine", "kind", "left"),
    [
        ("serial", "started", ["waiting"]),
        ("serial", "rung", ["waiting"]),
        ("serial", "finished", ["complete"]),
        pytest.param("processes", "finished", ["complete"], marks=pytest.mark.slow),
        pytest.param("processes", "rung", ["waiting"], marks=pytest.mark.slow),
    ],
)
def test_errors_of_a_watcher_are_never_the_trials(url: str, engine: str, kind: str, left: list[str]) -> None:
    """Not even if they look like a scorer's: ended trials stay, and running ones are queued again."""

    def broken(event: TrialEvent) -> None:
        if event.kind == kind:
            raise TrialError("from the watcher")

    runner = toy_runner(new_study(url), sampler="random", pruner="none", on_event=broken)
    with pytest.raises(TrialError, match="from the watcher"):
        run_search(engine, runner, make_toy)
    assert [record.state for record in open_study(url, "toy").records()] == left


def test_a_storage_that_is_locked_in_mid_search_gets_one_line(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db?timeout=0.1"
    study = new_study(url)
    runner = toy_runner(study, sampler="random")
    blocker = sqlite3.connect(tmp_path / "study.db")

    def lock_once_claimed(event: TrialEvent) -> None:
        if event.kind == "finished":
            claim = study.ask

            def claim_and_lock(target: int) -> Trial | None:
                trial = claim(target)
                blocker.execute("BEGIN EXCLUSIVE")
                return trial

            study.ask = claim_and_lock  # type: ignore[method-assign]  # locks between two writes

    runner = toy_runner(study, sampler="random", on_event=lock_once_claimed)
    with pytest.raises(StudyError, match="locked by another process"):
        run_search("serial", runner, make_toy)
    blocker.rollback()
    assert study.release() == [1]


def test_unknown_names_suggest_the_nearest(url: str) -> None:
    study = new_study(url)
    with pytest.raises(ConfigError, match=r'search\.engine: unknown name "serail"\. Did you mean "serial"'):
        run_search("serail", toy_runner(study), make_toy)
    with pytest.raises(ConfigError, match=r'search\.pruner: unknown name "medain"\. Did you mean "median"'):
        toy_runner(study, pruner="medain")
    with pytest.raises(ConfigError, match=r'search\.sampler: unknown name "cma"\. Did you mean "cmaes"'):
        toy_runner(study, sampler="cma")
    assert study.records() == []


@pytest.mark.parametrize("sampler", ["evolution", "ddpg", "policy_gradient", "importance", "kl"])
def test_samplers_of_our_own_run_a_search(url: str, sampler: str) -> None:
    study = new_study(url)
    space = toy_space()
    values = {variable.name: float(i) for i, variable in enumerate(space.variables)}
    runner = TrialRunner(
        study,
        space,
        sampler=sampler,
        trials=12,
        rungs=2,
        statistics={"importance": values, "kl": values},
        rates=EvolutionRates(population=3),
    )
    run_search("serial", runner, make_toy)
    records = study.records()
    assert len(records) == 12
    assert len({tuple(record.widths.values()) for record in records}) == 12
    pruned = [record for record in records if len(record.scores) == 1]
    assert pruned
    assert {record.state for record in pruned} == {"pruned"}


def test_a_sampler_without_its_statistic_is_refused_before_any_trial(url: str) -> None:
    study = new_study(url)
    with pytest.raises(ConfigError, match=r'"kl" draws by the statistic "kl" of each variable, and none is'):
        TrialRunner(study, toy_space(), sampler="kl")
    assert study.records() == []


def small_runner(study: SearchStudy, trials: int, *, several: bool = False) -> TrialRunner:
    """Run trials on a space of few plans; a random sampler would try most of them again and again."""
    net = chain([16] * (2 if several else 4))
    base = build_space(*net, Budget(macs=dense_macs(net) // 2), SpaceSpec(divisor=4))
    space = ShareSpace(base, ["macs"]) if several else base
    return TrialRunner(study, space, sampler="random", pruner="none", trials=trials, rungs=2, seed=5)


@pytest.mark.parametrize(
    ("engine", "several"),
    [
        ("serial", False),
        ("serial", True),
        pytest.param("processes", False, marks=pytest.mark.slow),
        pytest.param("ray", False, marks=pytest.mark.slow),
    ],
)
def test_a_search_ends_when_every_plan_is_tried(url: str, engine: str, several: bool) -> None:
    objectives = ("score", "macs") if several else ("score",)
    study = new_study(url, objectives)
    runner = small_runner(study, 30, several=several)
    assert runner.space.plans is not None
    plans = {tuple(widths) for widths in runner.space.plans.tolist()}
    assert 1 < len(plans) < 30
    assert not runner.has_tried_all
    run_search(engine, runner, make_toy, workers=2)
    records = open_study(url, "toy").records()
    assert {tuple(record.widths.values()) for record in records} == plans
    assert len(records) == len(plans)
    resumed = small_runner(open_study(url, "toy"), 40, several=several)
    assert resumed.has_tried_all
    assert resumed.left() == 0
    run_search(engine, resumed, make_toy)
    assert len(open_study(url, "toy").records()) == len(plans)


def test_as_many_plans_as_trials_are_all_tried(url: str) -> None:
    runner = small_runner(new_study(url), 30)
    assert runner.space.plans is not None
    exact = small_runner(runner.study, len(runner.space.plans))
    run_search("serial", exact, make_toy)
    records = runner.study.records()
    assert len({tuple(record.widths.values()) for record in records}) == len(records) == exact.trials
