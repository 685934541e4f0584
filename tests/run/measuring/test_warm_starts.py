"""Warm starts: each fits the window, they come first, once each, and a kill loses none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.config import load_config, settings
from autoprune.data import VisionData, load
from autoprune.errors import ConfigError
from autoprune.execution import Setting
from autoprune.graph.topology import topologies
from autoprune.run import Dense, Event, Stage, Watcher, resume, silent
from autoprune.run._checks.checks import check_names
from autoprune.run._measuring.heuristics import DEPTH, WARM_STARTS, Proposer, WarmStartSpec
from autoprune.run._measuring.statistics import MeasurementContext
from autoprune.run._measuring.warm_starts import choose_warm_starts, enqueue_missing
from autoprune.run._resolving.ranking import rank_channels
from autoprune.run._resolving.resolve import trace_run
from autoprune.run._resolving.spec import RunSpec
from autoprune.space import ShareSpace
from autoprune.study import SearchStudy, TrialRecord, open_study
from autoprune.support.arrays import FloatArray, IntArray
from autoprune.training import Task
from autoprune.zoo import make_model
from tests.records import comparable

ROOT = Path(__file__).parents[3]
CONFIG: dict[str, dict[str, Any]] = {
    "budget": {"flops": "40%"},
    "search": {
        "trials": 9,
        "study": "own",
        "setting": "float32 contiguous",
        "pruner": "none",
        "sensitivity_evaluations": 7,
        "sensitivity_images": 100,
        "sensitivity_batches": 1,
    },
    "score": {"rungs": ["calibrate"], "calibration_batches": 2},
    "race": {"entrants": 1},
}


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return make_model("digits_resnet", 10, 1).eval()


def make_data() -> VisionData:
    return load("digits", batch_size=64, val_fraction=0.2)


@pytest.fixture(scope="module")
def data() -> VisionData:
    return make_data()


class Told:
    """A watcher that keeps what stages say."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, Stage):
            self.texts.append(event.text)


def make_context(
    data: VisionData, *overrides: str, model: nn.Module | None = None, told: Watcher = silent
) -> MeasurementContext:
    spec = RunSpec.of(load_config(CONFIG, overrides))
    run = trace_run(Dense(model or make_net(), data, Task(), "cpu"), spec, Setting("cpu"), watch=told)
    return MeasurementContext(run, rank_channels(run, spec.search.criteria[0]))


@pytest.mark.parametrize(("budget", "divisor"), [("60%", 1), ("25%", 4)])
def test_every_warm_start_lies_in_the_window(data: VisionData, budget: str, divisor: int) -> None:
    names = f"search.warm_starts={sorted(WARM_STARTS.keys() - {DEPTH})}"
    context = make_context(
        data, f"budget.flops={budget}", f"search.divisor={divisor}", "search.trials=60", names
    )
    space = context.run.space
    chosen = choose_warm_starts(context)
    origins = [name for entry in chosen.trials for name in entry.origin.split(", ")]
    assert sorted(origins) == sorted(chosen.seconds) == sorted(WARM_STARTS.keys() - {DEPTH})
    assert chosen.measured["sensitivity"]["evaluations"] == 7
    for entry in chosen.trials:
        widths = space.ladder.widths(np.array([entry.levels]))
        assert 0.98 <= space.usage(widths)[0] <= 1, entry.origin
        ratios = space.ladder.ratios(np.array([entry.levels]))
        np.testing.assert_array_equal(space.decode(ratios), widths)
    assert len({tuple(entry.levels) for entry in chosen.trials}) == len(chosen.trials)


@pytest.mark.parametrize(("trials", "most"), [(2, 0), (3, 1), (9, 3), (60, 8)])
def test_they_take_a_third_of_the_trials_at_most(data: VisionData, trials: int, most: int) -> None:
    told = Told()
    context = make_context(data, f"search.trials={trials}", told=told)
    chosen = choose_warm_starts(context)
    origins = [entry.origin for entry in chosen.trials]
    assert len(origins) <= min(most, trials // 3)
    assert sorted(name for origin in origins for name in origin.split(", ")) == sorted(chosen.seconds)
    assert [origin.split(", ")[0] for origin in origins[:1]] == ["uniform"][:most]
    assert any("left out, since they may take a third" in text for text in told.texts) == (trials < 60)


def test_with_several_objectives_each_heuristic_fills_shares_spread_over_the_range(data: VisionData) -> None:
    told = Told()
    overrides = (
        'search.objectives=["score", "macs"]',
        'search.warm_starts=["sensitivity", "bn", "taylor-knapsack"]',
        "search.trials=30",
    )
    context = make_context(data, *overrides, model=Plain().eval(), told=told)
    space = context.run.space
    assert isinstance(space, ShareSpace)
    chosen = choose_warm_starts(context)
    origins = [each.split(" at ") for entry in chosen.trials for each in entry.origin.split(", ")]
    middles = space.shares[0] + (space.shares[-1] - space.shares[0]) * np.array([1, 3, 5, 7, 9]) / 10
    for name in ("sensitivity", "taylor-knapsack"):
        shares = sorted(share_of(rest) for each, rest in origins if each == name)
        np.testing.assert_allclose(shares, middles, atol=0.02)
    assert len(origins) == 10
    for entry in chosen.trials:
        levels = np.array([entry.levels])
        widths = space.ladder.widths(levels)
        share = space.ladder.ratios(levels)[0, 0]
        assert space.usage(widths)[0] / share == pytest.approx(0.99, abs=0.0101)
        np.testing.assert_array_equal(space.decode(space.ladder.ratios(levels)), widths)
    assert sum("sensitivity of 2 keep ratios" in text for text in told.texts) == 1
    assert sum("warm start bn is left out" in text for text in told.texts) == 1
    few = choose_warm_starts(make_context(data, *overrides[:1], "search.trials=3"))
    assert len(few.trials) == 1


def share_of(text: str) -> float:
    return int(text.removesuffix("% of the budget")) / 100


def test_a_heuristic_with_little_room_spreads_what_it_has(data: VisionData) -> None:
    """Seven trials: five for the first, and two for the second, not at the two smallest shares."""
    told = Told()
    overrides = (
        'search.objectives=["score", "macs"]',
        'search.warm_starts=["uniform", "l1", "l2"]',
        "search.trials=21",
    )
    context = make_context(data, *overrides, told=told)
    space = context.run.space
    assert isinstance(space, ShareSpace)
    origins = [entry.origin.split(" at ") for entry in choose_warm_starts(context).trials]
    assert [name for name, _ in origins] == ["uniform"] * 5 + ["l1"] * 2
    quarters = space.shares[0] + (space.shares[-1] - space.shares[0]) * np.array([1, 3]) / 4
    np.testing.assert_allclose([share_of(rest) for _, rest in origins[5:]], quarters, atol=0.02)
    assert [text.rpartition(": ")[2] for text in told.texts if "left out, since" in text] == ["l2"]


def test_equal_widths_share_a_trial(data: VisionData) -> None:
    """A net whose filters are all equal: mean-normalised norms say nothing, and l1 and l2 are alike."""
    model = make_net()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.1)
    overrides = ('search.warm_starts=["uniform", "l1", "l2", "l1"]', "search.trials=60")
    chosen = choose_warm_starts(make_context(data, *overrides, model=model))
    assert [entry.origin for entry in chosen.trials] == ["uniform, l1, l2"]


class Plain(nn.Module):
    """A net without BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 16, 3), nn.Conv2d(16, 16, 3)
        self.head = nn.Linear(16, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.relu(self.second(torch.relu(self.first(inputs))))
        return self.head(hidden.mean((2, 3)))  # type: ignore[no-any-return]  # a module's call is Any


def test_a_heuristic_that_makes_no_sense_is_reported_and_left_out(
    data: VisionData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(given: Proposer) -> Any:
        raise RuntimeError("no gradient\nhere")

    monkeypatch.setitem(WARM_STARTS, "taylor", WarmStartSpec(broken))
    told = Told()
    torch.manual_seed(0)
    overrides = ('search.warm_starts=["bn", "taylor", "sensitivity"]', "search.trials=60")
    chosen = choose_warm_starts(make_context(data, *overrides, model=Plain().eval(), told=told))
    assert [entry.origin for entry in chosen.trials] == ["sensitivity"]
    assert "warm start bn is left out: the model has no BatchNorm with a scale." in told.texts
    assert "warm start taylor is left out: RuntimeError: no gradient here" in told.texts


def test_rankings_are_taken_raw_or_by_the_mean_of_their_group(data: VisionData) -> None:
    """Filters made ten times as large, which BatchNorm undoes, change nothing for l1; a scale does for bn."""
    plain, scaled = make_net(), make_net()
    with torch.no_grad():
        scaled.get_submodule("layer2.0.conv1").weight.mul_(10)  # type: ignore[operator]  # a convolution
    contexts = [make_context(data, model=model) for model in (plain, scaled)]
    first, second = (Proposer(context, context.run.space) for context in contexts)
    np.testing.assert_array_equal(WARM_STARTS["l1"].propose(first), WARM_STARTS["l1"].propose(second))
    with torch.no_grad():
        scaled.get_submodule("layer2.0.bn1").weight.mul_(10)  # type: ignore[operator]  # a BatchNorm
    context = make_context(data, model=scaled)
    third = Proposer(context, context.run.space)
    place = [variable.name for variable in third.space.variables].index("layer2.0.conv1")
    assert WARM_STARTS["bn"].propose(third)[place] == third.space.ladder.top[place]


@pytest.mark.parametrize("limit", ["budget.flops=30%", "budget.params=25%"])
@pytest.mark.parametrize("name", ["lamp", "fisher", "isomorphic"])
def test_one_threshold_gives_the_widths(data: VisionData, name: str, limit: str) -> None:
    """The widths are those of the lowest threshold that meets the budget, and channels that still fit in."""
    context = make_context(data, limit)
    space = context.run.space
    found = context.importance("taylor" if name == "isomorphic" else name)
    if name == "isomorphic":
        # Of each group, the share of the channels of its kind that are not above each channel.
        found = {group: shares_of_kind(context, group, values) for group, values in found.items()}
    places = [space.groups.index(variable.name) for variable in space.variables]

    def levels(threshold: float) -> IntArray:
        kept = [int((found[variable.name] >= threshold).sum()) for variable in space.variables]
        least = space.ladder.widths(np.zeros((1, len(kept)), dtype=np.int64))[0][places]
        found_levels: IntArray = np.maximum(kept, least) - least
        return found_levels

    descending = sorted(np.concatenate([found[variable.name] for variable in space.variables]), reverse=True)
    fits = [levels(each) for each in descending if space.ladder.usage(levels(each)[None])[0] <= 1]
    proposed = WARM_STARTS[name].propose(Proposer(context, space))
    assert (proposed >= fits[-1]).all()
    usage = space.ladder.usage(proposed[None])[0]
    raised = np.minimum(proposed + np.eye(len(proposed), dtype=np.int64), space.ladder.top)
    more = space.ladder.usage(raised[(raised != proposed).any(axis=1)])
    assert usage <= 1
    assert usage >= 0.98 or (more > 1).all()


def shares_of_kind(context: MeasurementContext, group: str, values: FloatArray) -> FloatArray:
    kinds = topologies(context.run.prunable)
    searched = {name for variable in context.run.space.variables for name in variable.groups}
    same = [name for name in searched if kinds[name] == kinds[group]] or [group]
    scores = np.concatenate([context.importance("taylor")[name] for name in same])
    return np.array([np.mean(scores <= value) for value in values])


def test_the_defaults_are_all_there_are_and_unknown_names_suggest_the_nearest() -> None:
    assert set(settings.WARM_STARTS) <= set(WARM_STARTS)
    assert load_config(CONFIG).search.warm_starts == settings.WARM_STARTS
    assert load_config(CONFIG, ["search.warm_starts=[]"]).search.warm_starts == ()
    with pytest.raises(
        ConfigError, match=r'search\.warm_starts: unknown name "tailor"\. Did you mean "taylor"'
    ):
        check_names(RunSpec.of(load_config(CONFIG, ['search.warm_starts=["uniform", "tailor"]'])))
    with pytest.raises(ConfigError, match=r"search\.warm_starts: got 'l1', expected a list of strings"):
        load_config(CONFIG, ["search.warm_starts=l1"])


def test_warm_starts_are_the_first_trials_and_are_queued_once(
    data: VisionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = make_net()
    told = Told()
    # All scales of a fresh BatchNorm are 1, so "bn" ranks nothing and keeps one ratio.
    names = ["uniform", "bn", "l1", "taylor", "l2"]
    few = {**CONFIG, "search": {**CONFIG["search"], "trials": 9, "warm_starts": names}}
    result = autoprune.search(model, data, few, watch=told)
    assert "warm starts: uniform, bn; l1; taylor" in told.texts
    origins = [record.origin for record in result.summary.records]
    assert origins == ["uniform, bn", "l1", "taylor", *["sampler"] * 6]
    study = open_study(result.storage, "own")
    run = trace_run(Dense(model, data, Task(), "cpu"), RunSpec.of(few), Setting("cpu"))
    space = run.space
    for record, entry in zip(result.summary.records, study.facts.warm_starts.trials, strict=False):
        assert list(record.widths.values()) == space.ladder.widths(np.array([entry.levels]))[0].tolist()
    enqueue_missing(study, space)
    assert len(study.records()) == 9
    again = resume("own", result.storage, model=model, data=data, overrides=["search.trials=12"])
    assert [record.origin for record in again.summary.records] == [*origins, *["sampler"] * 3]


@pytest.mark.parametrize(
    ("overrides", "divisor"),
    [(("budget.flops=30%",), 1), (("budget.flops=40%", "budget.params=25%"), 4)],
)
def test_reconstruction_loses_the_least_error_of_all_warm_starts(
    data: VisionData, overrides: tuple[str, ...], divisor: int
) -> None:
    names = ["uniform", "taylor-knapsack", "l1", "reconstruction"]
    context = make_context(
        data, *overrides, f"search.divisor={divisor}", f"search.warm_starts={names}", "search.trials=60"
    )
    space = context.run.space
    library = Proposer(context, space).library()
    chosen = choose_warm_starts(context)
    lost = {}
    for entry in chosen.trials:
        widths = space.ladder.widths(np.array([entry.levels]))[0]
        assert 0.98 <= space.usage(widths)[0] <= 1
        kept = dict(zip(space.groups, widths.tolist(), strict=True))
        lost[entry.origin] = library.total({name: kept[name] for name in library.curves})
    assert "reconstruction" in min(lost, key=lost.__getitem__).split(", ")
    assert set(library.curves) == {name for variable in space.variables for name in variable.groups}
    kept_by_study = chosen.measured["reconstruction"]
    assert kept_by_study["estimated"] == {}
    for name, errors in kept_by_study["errors"].items():
        assert errors == [library.curves[name].at(ratio) for ratio in kept_by_study["ratios"]]
        assert errors == sorted(errors)


def test_without_warm_starts_the_sampler_begins(
    data: VisionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    none = {**CONFIG, "search": {**CONFIG["search"], "trials": 3, "warm_starts": []}}
    result = autoprune.search(make_net(), data, none)
    assert [record.origin for record in result.summary.records] == ["sampler"] * 3


class KilledError(BaseException):
    """Ends a search as abruptly as one process can: nothing in the package catches it."""


def die_in_process() -> None:
    raise KilledError


def die_for_good() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def begin_and_die(call: int, die: Callable[[], None] = die_for_good) -> None:
    """Begin a search that dies as it queues its warm start number `call`."""
    enqueue = SearchStudy.enqueue
    calls: list[str] = []

    def enqueue_or_die(self: SearchStudy, ratios: Any, origin: str) -> None:
        calls.append(origin)
        if len(calls) > call:
            die()
        enqueue(self, ratios, origin)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SearchStudy, "enqueue", enqueue_or_die)  # dies between two writes
        autoprune.search(make_net(), make_data(), CONFIG)


@pytest.fixture(scope="module")
def uninterrupted(data: VisionData, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrialRecord, ...]:
    folder = tmp_path_factory.mktemp("whole")
    places = {
        "output": {"folder": str(folder)},
        "search": {**CONFIG["search"], "storage": f"journal:///{folder}/whole.log"},
    }
    return autoprune.search(make_net(), data, {**CONFIG, **places}).summary.records


def begin_in_process(call: int, folder: Path) -> None:
    with pytest.raises(KilledError):
        begin_and_die(call, die_in_process)


def begin_elsewhere(call: int, folder: Path) -> None:
    """Begin in a process of its own, which kill -9 ends."""
    code = f"from tests.run.measuring.test_warm_starts import begin_and_die; begin_and_die({call})"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    died = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()


@pytest.mark.parametrize(
    ("begin", "call"),
    [
        (begin_in_process, 2),
        pytest.param(begin_elsewhere, 0, marks=pytest.mark.slow),
        pytest.param(begin_elsewhere, 2, marks=pytest.mark.slow),
    ],
)
def test_a_death_before_all_are_queued_loses_none(
    begin: Callable[[int, Path], None],
    call: int,
    data: VisionData,
    uninterrupted: tuple[TrialRecord, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The study is made, and a part is queued: the resumed search equals an uninterrupted one."""
    monkeypatch.chdir(tmp_path)
    begin(call, tmp_path)
    assert len(open_study(f"sqlite:///{tmp_path}/runs/own.db", "own").records()) == call
    told = Told()
    resumed = autoprune.resume("own", model=make_net(), data=data, watch=told)
    again = [text for text in told.texts if "error curves" in text or "measuring" in text]
    assert not again, "nothing is measured again"
    assert list(map(comparable, resumed.summary.records)) == list(map(comparable, uninterrupted))
    origins = [record.origin for record in resumed.summary.records]
    assert origins == ["uniform", "reconstruction", "isomorphic", *["sampler"] * 6]
