"""Trials with several objectives, in every engine: all get their costs, and none is pruned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from autoprune.config.rungs import RungScore
from autoprune.engines import TrialRunner, Workers, run_search
from autoprune.errors import ConfigError
from autoprune.graph import Cost
from autoprune.space import SHARE, ShareSpace
from autoprune.study import open_study
from autoprune.study._pareto import front_of
from tests.engines.toy import ToyScorer, make_toy, new_study, toy_runner, toy_space

OBJECTIVES = ("score", "macs", "params")


@pytest.mark.parametrize(
    ("engine", "sampler", "trials"),
    [
        ("serial", "nsga2", 24),
        # Proposals of "random" do not depend on which worker is done first.
        pytest.param("processes", "random", 14, marks=pytest.mark.slow),
        pytest.param("ray", "random", 14, marks=pytest.mark.slow),
    ],
)
def test_every_trial_climbs_all_rungs_and_gets_its_costs(
    url: str, engine: str, sampler: str, trials: int
) -> None:
    runner = toy_runner(new_study(url, OBJECTIVES), sampler, trials=trials, pruner="median")
    run_search(engine, runner, make_toy, workers=Workers(2))
    study = open_study(url, "toy")
    records = study.records()
    assert [record.state for record in records] == ["complete"] * trials
    space = ShareSpace(toy_space(OBJECTIVES), OBJECTIVES[1:])
    for record, trial in zip(records, study.optuna.trials, strict=True):
        assert len(record.scores) == 2
        assert record.value == record.scores[-1].score
        widths = np.array(list(record.widths.values()))
        cost = space.cost(widths).one()
        assert record.costs == {"macs": cost.macs, "params": cost.params}
        assert trial.values == [record.score, cost.macs, cost.params]
        (level,) = space.ladder.rows[0].of_ratio(np.array([record.ratios[SHARE]])).tolist()
        assert 0.98 <= float(space.at(level).usage(widths)[0]) <= 1
    front = front_of(records, OBJECTIVES)
    undominated = {trial.number for trial in study.optuna.best_trials}
    assert {record.number for record in front} == {n for n in undominated if records[n].reused is None}
    assert len(front) > 3


def test_a_trial_that_fails_and_one_of_known_widths(url: str) -> None:
    study = new_study(url, OBJECTIVES)
    for share in (0.4, 0.4 + 1e-6, 0.6):
        study.enqueue({SHARE: share, **{f"conv{i}": 0.5 for i in range(4)}}, origin="by hand")
    scored: list[Mapping[str, int]] = []

    def fails(widths: Mapping[str, int], seed: int) -> Iterator[RungScore]:
        scored.append(widths)
        if len(scored) == 2:
            raise ValueError("no data")
        yield from ToyScorer()(widths, seed)

    run_search("serial", toy_runner(study, trials=3), lambda: fails)
    first, again, failed = study.records()
    assert (again.reused, again.value, again.costs) == (0, first.value, first.costs)
    assert study.optuna.trials[1].values == study.optuna.trials[0].values
    assert (failed.state, failed.failure) == ("failed", "ValueError: no data")
    assert failed.costs.keys() == {"macs", "params"}
    assert [record.number for record in front_of(study.records(), OBJECTIVES)] == [0]


def test_a_sampler_of_one_objective_is_refused_before_any_trial(url: str) -> None:
    study = new_study(url, OBJECTIVES)
    with pytest.raises(ConfigError, match=r'"evolution" takes one objective, and search\.objectives names 3'):
        toy_runner(study, "evolution")
    assert study.records() == []


def test_records_hold_more_costs_than_the_space_limits(url: str) -> None:
    study = new_study(url)
    space = toy_space()

    def cost(widths: np.ndarray) -> Cost:
        return space.cost(widths).plus(size_bytes=4 * widths.sum(axis=1))

    runner = TrialRunner(study, space, sampler="random", trials=2, rungs=2, cost=cost)
    run_search("serial", runner, make_toy)
    for record in study.records():
        assert record.costs["size_bytes"] == 4 * sum(record.widths.values())
        assert record.costs.keys() == {"macs", "params", "size_bytes"}
