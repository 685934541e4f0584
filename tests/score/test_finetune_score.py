"""Scores of candidates: equal to the steps done by hand, the same for the same seed, failures reported."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoprune.criteria import importance, plan_from_importance
from autoprune.data import endless, load, seeded
from autoprune.data._randomness import stream_seed
from autoprune.errors import ConfigError, PlanError, TrialError
from autoprune.execution import Setting
from autoprune.rebuilding import rebuild
from autoprune.reconstruction import Moments, moments, repair
from autoprune.score import FinetuneScore, Rung
from autoprune.space import Candidate
from autoprune.tracing import trace
from autoprune.training import Schedule, Task, Trainer, evaluate, fit, recalibrate
from autoprune.zoo import make_model

DATA = load("digits", batch_size=64)
SETTING = Setting()
RUNGS = (Rung("calibrate"), Rung("10 steps", steps=10), Rung("1 epoch", epochs=1))


def dense_model() -> nn.Module:
    with seeded(0):
        model = make_model("digits_resnet", 10, 1)
    fit(model, DATA, Schedule(epochs=3), SETTING, Task(), seed=0)
    return model.eval()


DENSE = dense_model()
PRUNABLE = trace(DENSE, torch.zeros(1, *DATA.input_shape))
L1 = importance(PRUNABLE, "l1")
HALF = {group.name: group.width // 2 for group in PRUNABLE.groups if group.frozen is None}


def scorer(
    rungs: tuple[Rung, ...] = RUNGS,
    *,
    schedule: Schedule | None = None,
    teacher: nn.Module | None = None,
    moments: Moments | None = None,
) -> FinetuneScore:
    return FinetuneScore(
        PRUNABLE,
        L1,
        DATA,
        Task(),
        SETTING,
        rungs,
        schedule=schedule,
        calibration_batches=4,
        teacher=teacher,
        moments=moments,
    )


def scores(score: FinetuneScore, seed: int = 5) -> list[float]:
    return [rung.score for rung in score(HALF, seed)]


def test_equals_the_same_steps_by_hand() -> None:
    model = rebuild(PRUNABLE, plan_from_importance(PRUNABLE, HALF, L1))
    recalibrate(model, DATA.train, 4, SETTING, seed=5)
    expected = [evaluate(model, DATA.val, Task(), SETTING)]
    batches = endless(DATA.train, 5)
    for index, steps in enumerate((10, len(DATA.train)), start=1):
        schedule = Schedule(steps=steps, learning_rate=0.02)
        with seeded(stream_seed(5, index)):
            Trainer(model, schedule, SETTING, Task(), total_steps=steps).run(batches, steps)
        expected.append(evaluate(model, DATA.val, Task(), SETTING))
    assert scores(scorer()) == expected


def test_a_candidate_ranks_each_group_by_its_own_criterion() -> None:
    rankings = {"random": importance(PRUNABLE, "random", seed=1)}
    chosen = {"conv1": "random", "layer2.0.conv1": "l1"}
    mixture = {**L1, "conv1": rankings["random"]["conv1"]}
    rungs = (Rung("calibrate"),)
    by_choice = FinetuneScore(PRUNABLE, L1, DATA, Task(), SETTING, rungs, rankings=rankings)
    by_hand = FinetuneScore(PRUNABLE, mixture, DATA, Task(), SETTING, rungs)
    found = [next(score(Candidate(HALF.items(), chosen), 5)).score for score in (by_choice, by_hand)]
    assert found[0] == found[1] != next(by_choice(HALF, 5)).score


@pytest.mark.parametrize("follower", [None, "calibrate"])
def test_a_repair_equals_the_same_steps_by_hand(follower: str | None) -> None:
    """If "calibrate" follows, the refit alone is scored first."""
    measured = moments(PRUNABLE, DATA.unchanged_train, images=200)
    plan = plan_from_importance(PRUNABLE, HALF, L1)
    model = repair(PRUNABLE, plan, rebuild(PRUNABLE, plan), measured)
    expected = [evaluate(model, DATA.val, Task(), SETTING)] if follower else []
    recalibrate(model, DATA.train, 4, SETTING, seed=5)
    expected.append(evaluate(model, DATA.val, Task(), SETTING))
    with seeded(stream_seed(5, len(expected))):
        trainer = Trainer(model, Schedule(steps=3, learning_rate=0.02), SETTING, Task(), total_steps=3)
        trainer.run(endless(DATA.train, 5), 3)
    expected.append(evaluate(model, DATA.val, Task(), SETTING))
    rungs = [Rung("repair"), *([Rung(follower)] if follower else []), Rung("3 steps", steps=3)]
    assert scores(scorer(tuple(rungs), moments=measured)) == expected
    calibrated = scores(scorer((Rung("calibrate"),)))[0]
    assert expected[-2] > calibrated


def test_a_repair_without_moments_is_refused() -> None:
    with pytest.raises(ConfigError, match=r'score.rungs: "repair" needs the moments of the dense model'):
        scorer((Rung("repair"),))


def test_names_indices_and_seconds() -> None:
    got = list(scorer()(HALF, 0))
    assert [(rung.index, rung.name) for rung in got] == [(0, "calibrate"), (1, "10 steps"), (2, "1 epoch")]
    assert all(rung.seconds > 0 for rung in got)


def test_the_seed_decides_and_nothing_outside_does() -> None:
    score = scorer()
    first = scores(score, 1)
    torch.rand(5)
    assert scores(score, 1) == first
    assert len({tuple(scores(score, seed)) for seed in range(4)}) > 1


def test_dense_model_and_random_states_stay() -> None:
    before = {name: tensor.clone() for name, tensor in DENSE.state_dict().items()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    for _ in scorer(teacher=DENSE)(HALF, 0):
        assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(tensor, before[name]) for name, tensor in DENSE.state_dict().items())
    assert all(parameter.grad is None for parameter in DENSE.parameters())


def test_finetuning_helps_and_full_width_scores_as_the_dense_model() -> None:
    calibrated, _, finetuned = scores(scorer())
    assert finetuned > calibrated
    full = next(scorer()({}, 0)).score
    assert full == pytest.approx(evaluate(DENSE, DATA.val, Task(), SETTING), abs=0.05)


def test_a_teacher_changes_the_finetune() -> None:
    schedule = Schedule(steps=1, distill_weight=0.9, temperature=2.0)
    assert scores(scorer(schedule=schedule, teacher=DENSE)) != scores(scorer(schedule=schedule))


def test_no_rung_runs_before_it_is_requested() -> None:
    diverging = (Rung("calibrate"), Rung("wild", steps=60))
    climbing = scorer(diverging, schedule=Schedule(steps=1, learning_rate=1e30))(HALF, 0)
    assert next(climbing).name == "calibrate"
    with pytest.raises(TrialError, match=r"diverged: the loss is (nan|inf) by step .* of 60"):
        next(climbing)


def test_widths_that_do_not_fit() -> None:
    with pytest.raises(PlanError):
        next(scorer()({"no_such_group": 3}, 0))


def test_rungs_are_checked() -> None:
    with pytest.raises(ConfigError, match=r'score.rungs: "both" has both steps and epochs'):
        Rung("both", steps=1, epochs=1)
    with pytest.raises(ConfigError, match=r'"none": got length 0, expected at least 1'):
        Rung("none", steps=0)
    with pytest.raises(ConfigError, match=r"score.rungs: empty"):
        scorer(())
