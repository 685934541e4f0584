"""CMA-ES: its first generation lies around the best warm start."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import optuna
import pytest

from autoprune.samplers import SamplerContext
from autoprune.samplers._past_trials import feasible, places, ratios_at
from autoprune.support.arrays import FloatArray
from tests.samplers.search import Proposals, Search, space_of

SPREAD = 1 / 6
"""The standard deviation of the first generation, of a variable's range."""

POPULATION = 8


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def brief_of(variables: int) -> SamplerContext:
    return SamplerContext(seed=0, search_seed=0, trials=60, space=space_of(variables))


def warm_starts(context: SamplerContext) -> FloatArray:
    """Ratios [3, k] of plans that cut the first layers, the last ones, and all alike."""
    rising = np.linspace(0, 1, context.variables)
    return feasible(context, ratios_at(context, np.array([rising, 1 - rising, np.full_like(rising, 0.5)])))


def first_generation(variables: int, scores: list[float], late: float = 0.0) -> FloatArray:
    """Return the places [8, k] of proposals after warm starts of these scores. One is queued half-way."""
    context = brief_of(variables)
    warm = warm_starts(context)[: len(scores)]
    search = Search("cmaes", variables, 60, queued=[named(context, ratios) for ratios in warm])
    told = {**dict(enumerate(scores)), 6: late}
    for n in range(12):
        if n == 6:
            search.study.enqueue_trial(named(context, context.space.ladder.high))
        trial = search.ask()
        search.suggest(trial)
        search.study.tell(trial, told.get(n, 0.0))
    trials = search.study.get_trials(deepcopy=False)
    drawn = [trial for trial in trials if any("generation" in key for key in trial.system_attrs)]
    return places(context, np.array([list(trial.params.values()) for trial in drawn[:POPULATION]]))


class Hostile:
    """Its pickle makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str, str], object], tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize(
    "damage", ["hostile", "a program", "not hexadecimal", "another class", "a missing part"]
)
def test_a_stored_state_runs_no_code_and_its_damage_ends_no_search(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    search = Search("cmaes", 3, 30)
    search.run()
    key = next(key for trial in search.study.trials for key in trial.system_attrs if ":optimizer:" in key)
    prefix = key.rpartition(":")[0]
    text = {
        "hostile": pickle.dumps(Hostile(tmp_path / "hacked")).hex(),
        "a program": b"cnumpy.f2py.__main__\nndarray\n.".hex(),  # numpy's, which ends the process
        "not hexadecimal": "xyz",
        "another class": pickle.dumps({"mean": 3}).hex(),
        "a missing part": "80",
    }[damage]
    for trial in search.study.trials:
        if any(key.startswith(prefix) for key in trial.system_attrs):
            index = 1 if damage == "a missing part" else 0
            stored = search.storage._get_trial(trial._trial_id)  # type: ignore[attr-defined]  # it has ended
            stored.system_attrs = {f"{prefix}:{index}": text}
    asked = search.ask()
    search.suggest(asked)
    assert asked.params.keys() == search.space.keys()
    assert not (tmp_path / "hacked").exists()
    assert ("its state of CMA-ES is left out" in caplog.text) == (damage != "another class")


def named(context: SamplerContext, ratios: FloatArray) -> dict[str, float]:
    names = [variable.name for variable in context.space.variables]
    return dict(zip(names, ratios.tolist(), strict=True))


def distance(drawn: FloatArray, centre: FloatArray) -> float:
    """Root mean square, of a variable's range."""
    return float(np.sqrt(np.mean((drawn - centre) ** 2)))


@pytest.mark.parametrize("variables", [4, 60])  # above 50 it is separable
@pytest.mark.parametrize("best", [0, 1, None])
def test_the_first_generation_lies_around_the_best_warm_start(variables: int, best: int | None) -> None:
    """Around the centre if there is none, whatever the random first trial was. Bounds only draw nearer."""
    context = brief_of(variables)
    starts = places(context, warm_starts(context))
    scores = [] if best is None else [float(n == best) for n in range(len(starts))]
    drawn = first_generation(variables, scores)
    centre = np.full(variables, 0.5) if best is None else starts[best]
    noise = 4 / math.sqrt(2 * drawn.size)  # four standard deviations of a root mean square
    assert distance(drawn, centre) < SPREAD * (1 + noise)
    others = [start for n, start in enumerate(starts) if n != best]
    assert min(distance(drawn, other) for other in others) > 1.2 * distance(drawn, centre)


def test_a_warm_start_that_ends_on_another_worker_does_not_shift_the_start() -> None:
    """The best of them still runs when the first trial is drawn."""
    context = brief_of(4)
    warm = warm_starts(context)

    def run(*, late: bool) -> Proposals:
        search = Search("cmaes", 4, 60, queued=[named(context, ratios) for ratios in warm])
        begun = [search.ask() for _ in warm]
        for trial, score in zip(begun, [0.5, 0.2, 1.0], strict=True):
            search.suggest(trial)
            if score < 1.0:
                search.study.tell(trial, score)
        for n in range(POPULATION):
            if n == POPULATION // 2 and late:
                search.study.tell(begun[-1], 1.0)
            trial = search.ask()
            search.suggest(trial)
            search.study.tell(trial, 0.0)
        return search.proposals()

    assert run(late=True) == run(late=False)


def test_a_trial_that_is_queued_later_does_not_shift_the_start() -> None:
    poor, great = (first_generation(4, [1.0, 0.5, 0.2], late) for late in (0.0, 9.0))
    np.testing.assert_array_equal(poor, great)
