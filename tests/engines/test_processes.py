"""Worker processes: they share the trials, and their deaths cost no more than a trial."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState, create_trial
from torch.utils.data import DataLoader, Dataset

from autoprune.config.rungs import RungScore
from autoprune.engines import Scorer, TrialEvent, TrialRunner, run_search
from autoprune.errors import StudyError
from autoprune.samplers import PerTrialSampler, trial_seed
from autoprune.study import open_study
from tests.engines.test_serial import TroubledMaker
from tests.engines.toy import (
    Meeting,
    ToyScorer,
    TroubledStarts,
    make_broken,
    make_toy,
    new_study,
    toy_runner,
    toy_space,
)


def test_two_workers_give_the_same_scores_as_the_serial_engine(url: str, tmp_path: Path, calls: Path) -> None:
    run_search(
        "processes",
        toy_runner(new_study(url), sampler="random", pruner="none"),
        partial(Meeting, calls, guests=2),
        workers=2,
    )
    alone = f"journal:///{tmp_path}/alone.log"
    run_search("serial", toy_runner(new_study(alone), sampler="random", pruner="none"), make_toy)
    for ours, theirs in zip(
        open_study(url, "toy").records(), open_study(alone, "toy").records(), strict=True
    ):
        assert (ours.widths, ours.value, ours.state) == (theirs.widths, theirs.value, theirs.state)
    assert len({path.read_text() for path in calls.iterdir()}) == 2  # processes


@pytest.mark.slow
def test_a_worker_that_lost_the_gpu_is_replaced(url: str, calls: Path) -> None:
    """Its trial has failed, and no other trial counts a death."""
    runner = toy_runner(new_study(url), sampler="random", pruner="none", trials=6)
    run_search("processes", runner, TroubledMaker(calls, "loses the GPU"), workers=1)
    records = open_study(url, "toy").records()
    assert [record.state for record in records] == ["complete"] * 3 + ["failed"] + ["complete"] * 2
    assert records[3].failure is not None
    assert "device-side assert" in records[3].failure
    assert len({path.name.split("-")[1] for path in calls.iterdir()}) == 2  # processes


@dataclass(frozen=True)
class EnvironmentNoter:
    """Makes scorers; leaves the worker's variable of safe import paths in a file."""

    file: Path

    def __call__(self) -> Scorer:
        self.file.write_text(str(os.environ.get("PYTHONSAFEPATH")))
        return make_toy()


def test_workers_import_nothing_of_python_from_the_current_folder(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interpreter looks there first for the modules that it needs to get its import path."""
    received = tmp_path / "received"
    received.mkdir()
    for name in ("signal", "pickle", "socket", "tempfile"):
        (received / f"{name}.py").write_text(f"open({str(received / 'marker')!r}, 'w').close()\n")
    monkeypatch.chdir(received)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    runner = toy_runner(new_study(url), sampler="random", pruner="none")
    run_search("processes", runner, EnvironmentNoter(tmp_path / "noted"), workers=1)
    assert not (received / "marker").exists()
    assert (tmp_path / "noted").read_text() == "None"
    assert "PYTHONSAFEPATH" not in os.environ


@dataclass(frozen=True)
class UnevenMaker:
    """Makes scorers under which trial `slow` ends after the next one; counts the trials in a folder."""

    folder: Path
    slow: int

    def __call__(self) -> Scorer:
        return self.score

    def score(self, widths: Mapping[str, int], seed: int) -> Iterator[RungScore]:
        (self.folder / str(seed)).touch()
        deadline = time.monotonic() + 200
        while seed == trial_seed(5, self.slow) and len(list(self.folder.iterdir())) < self.slow + 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield from ToyScorer()(widths, seed)


@pytest.mark.parametrize("sampler", [pytest.param("evolution", marks=pytest.mark.slow), "ddpg"])
def test_samplers_that_learn_equal_a_replay_if_trials_end_out_of_order(
    url: str, calls: Path, sampler: str
) -> None:
    """The next proposal is the same in the process that ran the search and in one that reads its storage."""

    def proposal(runner: TrialRunner) -> dict[str, float]:
        trial = create_trial(state=TrialState.RUNNING)
        trial.number = 14
        return sampler_of(runner)._propose(runner.study.optuna, trial)

    ended: list[int] = []
    runner = toy_runner(
        new_study(url),
        sampler,
        trials=14,
        pruner="none",
        on_event=lambda event: ended.append(event.number) if event.kind == "finished" else None,
    )
    run_search("processes", runner, UnevenMaker(calls, slow=7), workers=2)
    assert sorted(ended) == list(range(14))
    assert ended.index(8) < ended.index(7)

    records = open_study(url, "toy").records()
    assert [record.state for record in records] == ["complete"] * 14
    plans = np.array([list(record.widths.values()) for record in records])
    assert len(np.unique(plans, axis=0)) == 14
    assert toy_space().usage(plans).max() <= 1

    learner = sampler_of(runner).memory.get("ddpg")
    assert (learner is not None) == (sampler == "ddpg")
    proposed = proposal(runner)
    assert sampler_of(runner).memory.get("ddpg") is learner  # it went on, and did not begin again
    assert proposed == proposal(toy_runner(open_study(url, "toy"), sampler, trials=14))


def sampler_of(runner: TrialRunner) -> PerTrialSampler:
    sampler = runner.study.optuna.sampler
    assert isinstance(sampler, PerTrialSampler)
    return sampler


def test_a_dead_worker_costs_no_trial_the_first_time(url: str, calls: Path) -> None:
    events: list[TrialEvent] = []
    runner = toy_runner(new_study(url), sampler="random", pruner="none", trials=6, on_event=events.append)
    run_search("processes", runner, TroubledMaker(calls, "dies once"), workers=1)
    assert [record.state for record in open_study(url, "toy").records()] == ["complete"] * 6
    assert [event.number for event in events if event.kind == "requeued"] == [3]


@pytest.mark.slow
def test_a_trial_that_kills_its_worker_twice_has_failed(url: str, calls: Path) -> None:
    runner = toy_runner(new_study(url), sampler="random", trials=1)
    run_search("processes", runner, TroubledMaker(calls, "always dies"), workers=1)
    records = open_study(url, "toy").records()
    assert [record.state for record in records] == ["failed"]
    assert records[0].failure is not None
    assert "died 2 times (killed by SIGKILL (signal 9), perhaps because memory ran out)" in records[0].failure


@dataclass(frozen=True)
class Crashing:
    """Ends its process as a wrong kernel of a library does."""

    def __call__(self, widths: Mapping[str, int], seed: int) -> Iterator[RungScore]:
        os.kill(os.getpid(), signal.SIGSEGV)
        yield from ()


def test_the_signal_that_ended_a_worker_is_named(url: str) -> None:
    runner = toy_runner(new_study(url), sampler="random", trials=1)
    run_search("processes", runner, Crashing, workers=1)
    (record,) = open_study(url, "toy").records()
    assert record.failure == "its worker process died 2 times (killed by SIGSEGV (signal 11))."


class Numbers(Dataset[float]):
    """0.0 and 1.0."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> float:
        return float(range(2)[index])


@dataclass(frozen=True)
class Streaming:
    """Gives as scores what a DataLoader's own worker reads."""

    def __call__(self, widths: Mapping[str, int], seed: int) -> Iterator[RungScore]:
        for number in DataLoader(Numbers(), batch_size=None, num_workers=1):
            yield RungScore(int(number), "streamed", number, 0.0)


@pytest.mark.slow
def test_a_worker_may_have_workers_that_load_its_data(url: str) -> None:
    runner = toy_runner(new_study(url), sampler="random", pruner="none", trials=2)
    run_search("processes", runner, Streaming, workers=1)
    assert [record.state for record in open_study(url, "toy").records()] == ["complete"] * 2


def test_ctrl_c_requeues_the_running_trial_and_loses_none(url: str) -> None:
    events: list[TrialEvent] = []

    def interrupt(event: TrialEvent) -> None:
        events.append(event)
        if (event.kind, event.number) == ("rung", 1):
            os.kill(os.getpid(), signal.SIGINT)

    runner = toy_runner(new_study(url), sampler="random", pruner="none", on_event=interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            run_search("processes", runner, make_toy, workers=1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert events[-1].number == 1
    assert [record.state for record in open_study(url, "toy").records()] == ["complete", "waiting"]


def test_no_process_is_started_if_nothing_is_left_to_do(url: str) -> None:
    runner = toy_runner(new_study(url), trials=2)
    run_search("serial", runner, make_toy)
    assert runner.left() == 0
    run_search("processes", runner, make_broken, workers=2)
    assert toy_runner(open_study(url, "toy"), trials=5).left() == 3


def test_a_scorer_that_cannot_be_pickled_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(StudyError, match=r"cannot be handed to worker processes .* use engine") as raised:
        run_search("processes", toy_runner(new_study(url)), lambda: make_toy(), workers=1)
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_deaths_before_a_worker_is_ready_count_only_one_after_the_other(url: str, calls: Path) -> None:
    """Two of them, but between them a worker scored three trials; then one of those killed it."""
    runner = toy_runner(new_study(url), sampler="random", pruner="none", trials=6)
    run_search("processes", runner, TroubledStarts(calls, "dies once", deadly=(0, 2)), workers=1)
    assert len(list((calls.parent / "starts").iterdir())) == 4
    assert [record.state for record in open_study(url, "toy").records()] == ["complete"] * 6


def test_workers_that_never_get_ready_end_the_search(url: str, calls: Path) -> None:
    runner = toy_runner(new_study(url), sampler="random")
    maker = TroubledStarts(calls, "none", deadly=tuple(range(9)))
    with pytest.raises(
        StudyError,
        match=r"2 workers died .* before .* \(killed by SIGKILL \(signal 9\), perhaps because memory ran out",
    ):
        run_search("processes", runner, maker, workers=1)
    assert open_study(url, "toy").records() == []


class Stubborn:
    """Raises what torch does as it shares a tensor that it cannot share."""

    def __reduce__(self) -> Any:
        raise RuntimeError("Cowardly refusing to serialize\nnon-leaf tensor")

    def __call__(self) -> ToyScorer:
        raise AssertionError("it never travels")


def test_any_error_of_pickling_is_one_line_and_leaves_no_pipe(url: str) -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("needs /proc")

    def sockets() -> set[str]:
        # The end of another test's file or the end of a thread must not count.
        targets = {os.readlink(each) for each in descriptors.iterdir() if each.is_symlink()}
        return {target for target in targets if target.startswith("socket:")}

    runner = toy_runner(new_study(url))
    kept: list[pytest.ExceptionInfo[StudyError]] = []  # and with them all that their frames hold
    before = sockets()
    for _ in range(3):
        with pytest.raises(
            StudyError, match=r"\(RuntimeError: Cowardly refusing to serialize non-leaf"
        ) as raised:
            run_search("processes", runner, Stubborn(), workers=1)
        kept.append(raised)
    assert sockets() <= before


def test_a_scorer_that_cannot_be_made_ends_the_search(url: str) -> None:
    with pytest.raises(StudyError, match="could not make its scorer: RuntimeError: no data"):
        run_search("processes", toy_runner(new_study(url)), make_broken, workers=1)


@pytest.mark.slow
def test_one_worker_that_cannot_make_its_scorer_is_replaced_if_others_could(url: str, calls: Path) -> None:
    """The first one is killed by a trial; the next is broken, the third not."""
    runner = toy_runner(new_study(url), sampler="random", pruner="none", trials=6)
    run_search("processes", runner, TroubledStarts(calls, "dies once", broken=(1,)), workers=1)
    assert [record.state for record in open_study(url, "toy").records()] == ["complete"] * 6


@pytest.mark.slow
def test_workers_that_all_break_after_a_while_end_the_search_with_their_reason(url: str, calls: Path) -> None:
    runner = toy_runner(new_study(url), sampler="random", pruner="none", trials=6)
    maker = TroubledStarts(calls, "dies once", broken=tuple(range(1, 9)))
    with pytest.raises(StudyError, match="could not make its scorer: RuntimeError: the disk hiccups"):
        run_search("processes", runner, maker, workers=1)
    states = [record.state for record in open_study(url, "toy").records()]
    assert states == ["complete"] * 3 + ["waiting"]
