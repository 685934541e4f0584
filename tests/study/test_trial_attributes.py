"""Damaged trials: each kind of damage is named, reported once, and left out of all that reads a study."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from autoprune.cost import COSTS
from autoprune.engines import run_search
from autoprune.errors import StudyError
from autoprune.reporting._agreement import agreements
from autoprune.samplers import PROPOSED, SAMPLERS, distributions, fact_key
from autoprune.study import SearchStudy, create_study, open_study
from autoprune.study._pareto import front_of
from autoprune.study._records import read_record
from autoprune.study._trial_attributes import FACTS as FACTS_OF_TRIALS
from autoprune.study._trial_attributes import read_attributes
from tests.engines.toy import FACTS, IDENTITY, make_toy, new_study, toy_runner, toy_space

HUGE = 10**30
WIDTHS = {f"conv{i}": 16 for i in range(4)}
SOUND: dict[str, Any] = {
    "proposal": {"widths": WIDTHS, "macs": 1000, "params": 100.0, "seed": 1, "device": "cpu"},
    "scores": [{"index": rung, "name": "a", "score": 0.5, "seconds": 0.1} for rung in range(2)],
    "outcome": {"seconds": 1.0, "ended_before": 3, "reused": None, "failure": None},
    "origin": "uniform",
    "lease": {"host": "box", "pid": 7, "started": "boot:1", "claim": "c"},
    "interruptions": 1,
    "deaths": 0,
}


def changed(name: str, *path: str | int, to: Any) -> dict[str, Any]:
    """The sound attributes with one value replaced."""
    values = copy.deepcopy(SOUND)
    where: Any = values
    for key in (name, *path)[:-1]:
        where = where[key]
    where[(name, *path)[-1]] = to
    return values


NOT_COUNTS: tuple[Any, ...] = ("x", -2, 1.5, [], {}, math.nan, HUGE, True)
NOT_TEXTS: tuple[Any, ...] = (3, [], {}, math.nan, "x" * 10_000)


def at(places: str, *values: Any) -> list[tuple[str, Any]]:
    return [(place, value) for place in places.split() for value in values]


DAMAGES = [
    *at("proposal", 3, "x", [], {}, {"widths": []}, {"widths": None}),
    *at("proposal.widths.conv1", "16", 0, -1, 1.5, True, HUGE, math.nan, None, []),
    *at(" ".join(f"proposal.{cost}" for cost in COSTS), "many", -1, math.nan, math.inf, 1e300, []),
    *at("proposal.seed", *NOT_COUNTS),
    *at("proposal.device", *NOT_TEXTS),
    *at("scores", 3, "abc", {}, [], [3], [{}], [[]], [{"index": 0}]),
    *at("scores.1.score", "0.5", None, True, math.nan, math.inf, []),
    *at("scores.1.index", *NOT_COUNTS, 0, 2),
    *at("scores.1.name", *NOT_TEXTS),
    *at("scores.0.seconds", "1", -1, math.nan, None, 1e300),
    *at("outcome", 3, "x", [], {}, None),
    *at("outcome.seconds", "1", -1, math.nan, []),
    *at("outcome.ended_before", *NOT_COUNTS, None),
    *at("outcome.reused", *NOT_COUNTS),
    *at("outcome.failure", 3, [], {}),
    *at("outcome.stopped", "yes", 3, None),
    *at("origin", *NOT_TEXTS, None),
    *at("lease", 3, "x", [], {}, {"host": "box"}),
    *at("lease.pid", "7", 0, -1, 1.5, HUGE, None),
    *at("lease.host", *NOT_TEXTS, None),
    *at("interruptions deaths", *NOT_COUNTS, None),
]
"""(place of a value, what stands there)."""


def damaged(place: str, to: Any) -> dict[str, Any]:
    name, *path = [int(key) if key.isdecimal() else key for key in place.split(".")]
    return changed(str(name), *path, to=to)


def trial_with(
    attributes: dict[str, Any], state: TrialState = TrialState.COMPLETE, *, earlier: bool = False
) -> FrozenTrial:
    """A trial with its facts in system attributes, or in user attributes as earlier versions stored them."""
    facts = (
        {}
        if earlier
        else {fact_key(name): attributes[name] for name in FACTS_OF_TRIALS if name in attributes}
    )
    ranges = distributions(toy_space().variables)
    finished = state.is_finished()
    return create_trial(
        state=state,
        values=[0.5] if state == TrialState.COMPLETE else None,
        params={name: (each.low + each.high) / 2 for name, each in ranges.items()} if finished else {},
        distributions=dict(ranges) if finished else {},
        user_attrs={name: value for name, value in attributes.items() if fact_key(name) not in facts},
        system_attrs=facts,
        intermediate_values={1: 0.5, 3: 0.5} if finished else {},
    )


@pytest.mark.parametrize("earlier", [False, True])
def test_sound_attributes_read_back(earlier: bool) -> None:
    record = read_record(trial_with(SOUND, earlier=earlier))
    assert record.widths == WIDTHS
    assert record.costs == {"macs": 1000, "params": 100.0}
    assert [score.score for score in record.scores] == [0.5, 0.5]
    assert (record.seed, record.origin, record.seconds, record.reused) == (1, "uniform", 1.0, None)


def test_later_versions_may_add_attributes() -> None:
    more = changed("scores", 0, "energy", to={"joules": 3}) | {"unknown": [1]}
    more["outcome"]["weather"] = "fine"
    assert len(read_record(trial_with(more)).scores) == 2


@pytest.mark.parametrize(("place", "to"), DAMAGES, ids=lambda value: repr(value)[:30])
def test_each_damage_is_one_line_that_names_the_trial_and_the_place(place: str, to: Any) -> None:
    with pytest.raises(StudyError, match=r"^trial -1: .*\. It is left out$") as caught:
        read_attributes(trial_with(damaged(place, to)), objectives=1)
    message = str(caught.value)
    assert place.split(".")[0] in message
    assert len(message) < 300
    assert "\n" not in message


@pytest.mark.parametrize("values", [[0.5, 0.5], [math.nan], [math.inf]])
def test_a_complete_trial_has_one_finite_value_an_objective(values: list[float]) -> None:
    trial = trial_with(SOUND)
    trial.values = values
    with pytest.raises(StudyError, match="trial -1: values: got "):
        read_attributes(trial, objectives=1)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (PROPOSED, 3),
        (PROPOSED, ["x"]),
        (PROPOSED, [math.nan]),
        ("autoprune:cmaes_start", [0.5]),
        ("autoprune:cmaes_start", {"conv0": "x"}),
        ("fixed_params", ["conv0"]),
        ("fixed_params", "conv0"),
        ("NSGAIISampler:generation", "first"),
        ("cma:generation", [1]),
        ("cma:optimizer:0", 7),
        ("gp:relative_params:0", 7),
    ],
)
def test_attributes_that_samplers_store_are_checked_too(key: str, value: Any) -> None:
    trial = trial_with(SOUND)
    trial.system_attrs = {**trial.system_attrs, key: value}
    with pytest.raises(StudyError, match=r"^trial -1: .*\. It is left out$"):
        read_attributes(trial, objectives=1)


def study_with(tmp_path: Path, add: Callable[[SearchStudy], None]) -> SearchStudy:
    """A study of six sound trials, and of what `add` adds; opened again."""
    url = f"sqlite:///{tmp_path}/study.db"
    study = new_study(url)
    run_search("serial", toy_runner(study, "random", 6, "none"), make_toy)
    add(study)
    return open_study(url, "toy")


def add_damaged(study: SearchStudy) -> None:
    """Add a trial for each place of damage, in every state."""
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING)
    needs_scores = {"scores", "outcome"}
    trials = []
    for number, (place, to) in enumerate({place: to for place, to in DAMAGES}.items()):
        empty = to in ([], {}) and place in needs_scores  # what has not ended may lack them
        state = TrialState.COMPLETE if empty else states[number % len(states)]
        trials.append(trial_with(damaged(place, to), state))
    study.optuna.add_trials(trials)


@pytest.mark.parametrize(
    "sampler",
    [name if name == "gp" else pytest.param(name, marks=pytest.mark.slow) for name in SAMPLERS],
)
def test_damaged_trials_are_reported_once_and_left_out_of_everything(
    sampler: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "autoprune"):
        study = study_with(tmp_path, add_damaged)
        assert [record.number for record in study.records()] == list(range(6))
        assert study.best().number < 6
        assert study.ended() == 6
        assert len(front_of(study.records(), ("score", "macs"))) >= 1
        assert len(agreements(study.records())) == 1
        present = 6 + len({place for place, _ in DAMAGES})
        assert study.left(present) == 0
        run_search("serial", toy_runner(study, sampler, present + 3), make_toy)
        assert [record.number for record in study.records()] == [*range(6), *range(present, present + 3)]
        with pytest.raises(StudyError, match="there is no trial 6, or it is damaged"):
            study.record(6)
    told = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert [message.partition(":")[0] for message in told] == [f"trial {n}" for n in range(6, present)]


def test_pruned_trials_of_the_earlier_layout_are_read_as_pruned(tmp_path: Path) -> None:
    """They stood as complete, with the value that samplers were to learn from."""

    def add(study: SearchStudy) -> None:
        stopped = damaged("outcome.stopped", True)
        stopped["scores"] = stopped["scores"][:1]
        trial = trial_with(stopped)
        trial.values = [0.77]
        study.optuna.add_trial(trial)

    record = study_with(tmp_path, add).record(6)
    assert (record.state, record.pruned, record.value, record.score) == ("pruned", True, 0.5, 0.5)


@pytest.mark.parametrize("objectives", [("score",), ("score", "macs", "params")])
def test_who_opens_the_study_in_optuna_finds_names_and_readable_attributes(
    objectives: tuple[str, ...], tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    dense = {"macs": 10**5, "params": 10**4}
    facts = FACTS.model_copy(
        update={
            "dense_costs": dense,
            "dense_widths": dict.fromkeys(WIDTHS, 16),
            "limits": dict(toy_space().budget.limits),
        }
    )
    study = create_study(url, "toy", config={}, identity=IDENTITY, facts=facts, objectives=objectives)
    runner = toy_runner(study, "gp", trials=4)
    names = [variable.name for variable in runner.space.variables]
    study.enqueue(dict.fromkeys(names, 0.5), origin="uniform")
    run_search("serial", runner, make_toy)
    opened = optuna.load_study(storage=url, study_name="toy")
    assert opened.metric_names == list(objectives)
    for trial, record in zip(opened.trials, study.records(), strict=True):
        limits = runner.space.budget.limits
        widths = {name: f"{width}/16" for name, width in record.widths.items()}
        macs, params = (COSTS[name].unit.write(record.costs[name]) for name in ("macs", "params"))
        shares = {
            f"{COSTS[name].label}, % of dense": 100 * record.costs[name] / dense[name] for name in dense
        }
        assert trial.user_attrs == {
            "origin": record.origin,
            **{name: pytest.approx(share, abs=0.006) for name, share in shares.items()},
            "costs": f"{macs} (limit {COSTS['macs'].unit.write(limits['macs'])}), {params}",
            "widths": ", ".join(f"{name} {width}" for name, width in widths.items()),
        }
        assert trial.constraints.keys() == runner.space.budget.limits.keys()
        assert max(trial.constraints.values()) <= 0
    assert [trial.user_attrs["origin"] for trial in opened.trials] == ["uniform"] + ["sampler"] * 3


def test_a_failure_is_a_flat_value_and_a_constraint_stays_as_it_was_when_a_trial_is_queued_again(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    runner = toy_runner(new_study(f"sqlite:///{tmp_path}/study.db"), "random", trials=1)
    first = runner.ask()
    assert first is not None
    runner.requeue(first)
    second = runner.ask()
    assert second is not None
    runner.fail(second, "diverged")
    (trial,) = runner.study.optuna.trials
    assert trial.user_attrs["failure"] == "diverged"
    assert trial.constraints.keys() == {"macs"}
    assert not [warning for warning in recwarn if "constraint" in str(warning.message)]


@pytest.mark.parametrize("sampler", ["gp", "cmaes", "tpe"])
def test_constraints_change_no_proposal(
    sampler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str) -> list[dict[str, Any]]:
        study = new_study(f"sqlite:///{tmp_path}/{name}.db")
        run_search("serial", toy_runner(study, sampler, trials=8), make_toy)
        return [trial.params for trial in study.optuna.trials]

    with_constraints = run("with")
    monkeypatch.setattr(SearchStudy, "constrain", lambda self, trial, violations: None)
    assert run("without") == with_constraints


def test_a_study_of_several_objectives_wants_as_many_values(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    study = create_study(url, "toy", config={}, identity=IDENTITY, facts=FACTS, objectives=("score", "macs"))
    trial = trial_with(SOUND)
    trial.values = [0.5, 1000.0]
    study.optuna.add_trial(trial)
    assert [record.value for record in study.records()] == [0.5]
