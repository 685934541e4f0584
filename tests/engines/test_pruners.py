"""Early stopping: the promise of each pruner, and its verdicts after a kill."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.pruners import HyperbandPruner, MedianPruner, SuccessiveHalvingPruner
from optuna.trial import TrialState

from autoprune.config.rungs import RungScore
from autoprune.engines import PRUNERS, TrialRunner
from autoprune.engines._pruners import rung_step
from autoprune.samplers._pruned_trials import PENALTY, as_climbed
from autoprune.study import SearchStudy
from autoprune.study._queue import store_score
from tests.engines.toy import new_study, toy_space

NAMES = [name for name in PRUNERS if name != "asha"]


@pytest.fixture
def study(tmp_path: Path) -> SearchStudy:
    return new_study(f"journal:///{tmp_path}/study.log")


def test_asha_is_the_asynchronous_halving() -> None:
    assert PRUNERS["asha"].make is PRUNERS["halving"].make


def make_runner(study: SearchStudy, pruner: str, sampler: str = "random") -> TrialRunner:
    return TrialRunner(study, toy_space(), sampler=sampler, pruner=pruner, trials=200, rungs=3, seed=1)


def climb(runner: TrialRunner, scores: list[float]) -> int:
    """Run one trial; return how many rungs it climbed."""
    job = runner.ask()
    assert job is not None
    climbed = 0
    for index, score in enumerate(scores):
        climbed += 1
        if not runner.report(job, RungScore(index, str(index), score, 0.0)):
            break
    runner.finish(job)
    return climbed


@pytest.mark.parametrize("name", NAMES)
def test_the_best_trial_always_climbs_to_the_top(study: SearchStudy, name: str) -> None:
    runner = make_runner(study, name)
    for n in range(12):
        assert climb(runner, [0.5 + 0.01 * n] * 3) == 3
    assert all(record.state == "complete" for record in study.records())


@pytest.mark.parametrize("name", [name for name in NAMES if name != "none"])
def test_poor_trials_stop_early(study: SearchStudy, name: str) -> None:
    runner = make_runner(study, name)
    for n in range(12):
        climb(runner, [0.5 + 0.01 * n] * 3)
    rungs = [climb(runner, [0.1 - 0.001 * n] * 3) for n in range(8)]
    assert min(rungs) == 1
    stopped = [record for record in study.records()[12:] if record.pruned]
    assert {record.state for record in stopped} == {"pruned"}
    assert all(record.score == record.value for record in stopped)


IN_REACH = np.random.default_rng(4).uniform(0.3, 0.7, 23).tolist()
"""Scores of the sampler's trials."""


def enqueue_warm_starts(study: SearchStudy, count: int) -> None:
    rng = np.random.default_rng(0)
    for n in range(count):
        ratios = {variable.name: float(rng.uniform(0.2, 0.9)) for variable in toy_space().variables}
        study.enqueue(ratios, f"heuristic {n}")


def run_with_warm_starts(folder: Path, pruner: str, warm: list[float], sampler: str = "random") -> list[int]:
    """Run warm starts of these scores, then the sampler's trials. Return the rungs that each climbed."""
    study = new_study(f"journal:///{folder}/{len(warm)}.log")
    runner = make_runner(study, pruner, sampler)
    enqueue_warm_starts(study, len(warm))
    return [climb(runner, [score] * 3) for score in [*warm, *IN_REACH]]


@pytest.mark.parametrize(("name", "level"), [("median", 0.9), ("median", 0.1), ("percentile", 0.9)])
def test_warm_starts_are_no_bar_to_the_samplers_trials(tmp_path: Path, name: str, level: float) -> None:
    """Whatever they scored, the sampler's trials end as they would without them; they climb to the top."""
    expected = run_with_warm_starts(tmp_path, name, [])
    assert run_with_warm_starts(tmp_path, name, [level - 0.01 * n for n in range(7)]) == [3] * 7 + expected


def kept_by_quantile(scores: list[float], start_up: int, quantile: float) -> list[int]:
    """Return the rungs climbed by trials of one score each if all that reached a rung are compared."""
    reached: list[list[float]] = [[], [], []]
    climbed = []
    for number, score in enumerate(scores):
        rung = 0
        while rung < 2 and (number < start_up or score >= np.quantile(reached[rung], quantile)):
            reached[rung].append(score)
            rung += 1
        reached[rung].append(score)
        climbed.append(rung + 1)
    return climbed


@pytest.mark.parametrize("sampler", ["random", "evolution"])
@pytest.mark.parametrize(("name", "start_up", "quantile"), [("median", 5, 0.5), ("percentile", 8, 0.75)])
def test_a_rung_is_compared_with_all_that_reached_it(
    tmp_path: Path, name: str, start_up: int, quantile: float, sampler: str
) -> None:
    """Pruned trials count too, whether the sampler sees them as pruned (random) or complete (evolution)."""
    expected = kept_by_quantile(IN_REACH, start_up, quantile)
    assert 1 in expected[start_up:]
    assert 3 in expected[start_up:]
    assert run_with_warm_starts(tmp_path, name, [], sampler) == expected


@pytest.mark.parametrize("name", ["median", "percentile"])
def test_a_rung_is_judged_by_its_own_score_if_finetunes_cost_accuracy(study: SearchStudy, name: str) -> None:
    """Its first score would be above all that the others have on the second rung."""
    runner = make_runner(study, name)
    for n in range(10):
        assert climb(runner, [0.90 + 0.001 * n, 0.80 + 0.001 * n, 0.85 + 0.001 * n]) == 3
    assert climb(runner, [0.95, 0.70, 0.90]) == 2


@pytest.mark.parametrize("name", NAMES)
def test_warm_starts_climb_to_the_top_under_every_pruner(tmp_path: Path, name: str) -> None:
    """Each worse than the one before, after which halving alone would let the first one climb."""
    warm = [0.5 - 0.01 * n for n in range(12)]
    assert run_with_warm_starts(tmp_path, name, warm)[:12] == [3] * 12


def test_a_pruned_trial_is_shown_to_its_sampler_on_the_scale_of_the_last_rung(study: SearchStudy) -> None:
    """The storage keeps the score that it reached, as anyone who opens it in Optuna expects."""
    runner = make_runner(study, "median", "evolution")
    for n in range(6):
        climb(runner, [0.2 + 0.02 * n, 0.5, 0.90 + 0.01 * n])
    assert climb(runner, [0.21, 0.5, 0.9]) == 1
    stored = study.optuna.get_trials()[-1]
    assert (stored.state, stored.value, stored.intermediate_values) == (TrialState.PRUNED, 0.21, {1: 0.21})
    record = study.records()[-1]
    assert (record.state, record.pruned, record.score, record.value) == ("pruned", True, 0.21, 0.21)
    shown = as_climbed(study.optuna.get_trials(), runner.rungs)[stored.number]
    assert shown.state == TrialState.COMPLETE
    assert shown.value == pytest.approx(0.905 - 2 * PENALTY * 0.05)


def test_optunas_median_alone_would_stop_all_that_follow_good_warm_starts(study: SearchStudy) -> None:
    """`AmongSampled` is there because of this."""
    bare = make_runner(study, "median")
    bare.early.pruner = MedianPruner(n_startup_trials=5)
    enqueue_warm_starts(study, 7)
    climbed = [climb(bare, [score] * 3) for score in [*[0.9] * 7, *IN_REACH]]
    assert climbed == [3] * 7 + [1] * 23


def test_a_warm_start_that_runs_again_is_not_judged_by_later_trials(study: SearchStudy) -> None:
    """A worker died with it; by then the sampler's trials are many, and better."""
    runner = make_runner(study, "median")
    enqueue_warm_starts(study, 1)
    lost = runner.ask()
    assert lost is not None
    for n in range(8):
        climb(runner, [0.5 + 0.01 * n] * 3)
    runner.requeue(lost)
    assert climb(runner, [0.1] * 3) == 3
    assert study.record(lost.number).origin == "heuristic 0"


def test_scores_that_were_taken_over_count_once(study: SearchStudy) -> None:
    """Copies of the best trial would raise the median: here above all that comes later."""
    runner = make_runner(study, "median")
    for n in range(6):
        climb(runner, [0.4 + 0.1 * n] * 3)
    best = study.record(5)
    for _ in range(12):
        study.optuna.enqueue_trial(dict(best.ratios))  # by hand, so without an origin
    assert climb(runner, [0.75] * 3) == 3
    assert [record.reused for record in study.records()[6:18]] == [5] * 12


def test_none_stops_nothing(study: SearchStudy) -> None:
    runner = make_runner(study, "none")
    assert [climb(runner, [1.0 - 0.05 * n] * 3) for n in range(12)] == [3] * 12


def test_halving_keeps_a_third_of_each_rung(study: SearchStudy) -> None:
    runner = make_runner(study, "halving")
    order = [(7 * n) % 27 for n in range(27)]
    climbed = {rank: climb(runner, [rank / 27] * 3) for rank in order}
    assert 9 <= sum(rungs >= 2 for rungs in climbed.values()) <= 15
    assert climbed[26] == 3


OPTUNAS = {
    "halving": SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
    "hyperband": HyperbandPruner(min_resource=1, max_resource=10, reduction_factor=3),
}


def judged_by_optuna(name: str, scores: list[list[float]]) -> list[int]:
    """Return how many rungs each trial climbs in `Study.optimize`, which nothing interrupts."""
    climbed = []

    def objective(trial: optuna.Trial) -> float:
        for index, score in enumerate(scores[trial.number]):
            trial.report(score, rung_step(index))
            if index < 2 and trial.should_prune():
                climbed.append(index + 1)
                raise optuna.TrialPruned
        climbed.append(3)
        return scores[trial.number][-1]

    study = optuna.create_study(study_name="toy", direction="maximize", pruner=OPTUNAS[name])
    study.optimize(objective, n_trials=len(scores))
    return climbed


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("name", ["halving", "hyperband"])
def test_rungs_are_those_of_an_uninterrupted_study_of_optunas(
    study: SearchStudy, name: str, killed: bool
) -> None:
    """There are three rungs. If killed, each trial dies once after one, two or three, and runs again."""
    scores = [
        [0.3 + 0.5 * ((11 * n) % 29) / 29 + 0.1 * ((7 * n * rung) % 5) for rung in range(3)]
        for n in range(24)  # no widths come twice among so many
    ]
    expected = judged_by_optuna(name, scores)
    assert set(expected) == {1, 2, 3}
    climbed = []
    for number, each in enumerate(scores):
        if killed:
            victim = make_runner(study, name)
            job = victim.ask()
            assert job is not None
            for index, score in enumerate(each[: 1 + number % 3]):
                if not victim.report(job, RungScore(index, str(index), score, 0.0)):
                    break
            study.release()
        climbed.append(climb(make_runner(study, name), each))
    assert climbed == expected
    assert all(record.reused is None for record in study.records())


def ordinary(number: int) -> list[float]:
    """Scores of three rungs, of which the first has a scale of its own, as recalibration has."""
    quality = ((11 * number) % 29) / 29
    return [0.2 + 0.2 * quality, 0.7 + 0.2 * quality, 0.8 + 0.15 * quality]


@pytest.mark.parametrize("before", NAMES)
def test_halving_judges_by_the_scores_that_another_pruner_left(study: SearchStudy, before: str) -> None:
    """As after a resume with another pruner: only the third of the first rung's scores climb."""
    runner = make_runner(study, before)
    for n in range(20):
        climb(runner, ordinary(n))
    first_rung = [record.scores[0].score for record in study.records()]
    runner = make_runner(study, "halving")
    for n in range(20, 29):
        scores = ordinary(n)
        first_rung.append(scores[0])
        promoted = scores[0] >= sorted(first_rung, reverse=True)[len(first_rung) // 3 - 1]
        assert (climb(runner, scores) > 1) == promoted
    assert climb(runner, [0.1, 0.95, 0.99]) == 1
    assert climb(runner, [0.5, 0.95, 0.99]) == 3


@pytest.mark.parametrize("before", [name for name in NAMES if name != "halving"])
def test_hyperband_judges_by_the_scores_that_another_pruner_left(study: SearchStudy, before: str) -> None:
    """Newcomers are the worst of all: each stops where its bracket first judges, on any of the rungs.

    Halving leaves too few on the second rung to be the worst of.
    """
    runner = make_runner(study, before)
    for n in range(20):
        climb(runner, ordinary(n))
    runner = make_runner(study, "hyperband")
    poor = [[0.1 - 0.001 * n, 0.3, 0.4] for n in range(30)]
    climbed = [climb(runner, scores) for scores in poor]
    assert set(climbed) == {1, 2, 3}
    assert climbed == judged_by_optuna("hyperband", [*map(ordinary, range(20)), *poor])[20:]


@pytest.mark.parametrize("name", NAMES)
def test_scores_of_a_killed_attempt_change_no_verdict(tmp_path: Path, name: str) -> None:
    """Each trial is killed once, at its last rung, with all it had stored, then runs again."""
    whole, killed = (new_study(f"journal:///{tmp_path}/{each}.log") for each in ("whole", "killed"))
    scores = [[0.3 + 0.5 * ((11 * n) % 17) / 17 + 0.05 * rung for rung in range(3)] for n in range(14)]
    runner = make_runner(whole, name)
    expected = [climb(runner, each) for each in scores]
    rungs = []
    for each in scores:
        victim = make_runner(killed, name)
        job = victim.ask()
        assert job is not None
        for index, score in enumerate(each):
            if not victim.report(job, RungScore(index, str(index), score, 0.0)):
                break
        killed.release()
        rungs.append(climb(make_runner(killed, name), each))
    assert rungs == expected
    assert [r.value for r in killed.records()] == [r.value for r in whole.records()]


def test_steps_are_powers_that_halving_knows() -> None:
    assert [rung_step(index) for index in range(4)] == [1, 3, 9, 27]


def test_scores_overwrite_those_of_an_earlier_attempt(study: SearchStudy) -> None:
    trial = study.ask(1)
    assert trial is not None
    for score in (0.1, 0.2):
        store_score(study.optuna, trial.number, 1, score)
    assert study.optuna.get_trials()[0].intermediate_values == {1: 0.2}
