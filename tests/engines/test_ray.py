"""The Ray engine on a real local Ray: it runs the trials that the other engines would."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

ray = pytest.importorskip("ray")


from autoprune.engines import TrialEvent, Workers, ray_tune, run_search  # noqa: E402
from autoprune.engines.ray import _gpus  # noqa: E402
from autoprune.engines.ray_tune import Bridge  # noqa: E402
from autoprune.errors import ConfigError, StudyError  # noqa: E402
from autoprune.study import TrialRecord, open_study  # noqa: E402
from tests.engines.test_serial import TROUBLES, TroubledMaker  # noqa: E402
from tests.engines.toy import Meeting, TroubledStarts, make_broken, make_toy, new_study, toy_runner  # noqa: E402
from tests.records import comparable  # noqa: E402

OBJECT_STORE = 100 * 2**20


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    """One Ray for all tests here: the engine uses the one that it finds, and leaves it running."""
    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=1,  # a number that Ray counts by, whether or not there is one
        object_store_memory=OBJECT_STORE,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="CRITICAL",
    )
    yield
    ray.shutdown()


def assert_same_as_serial(url: str, folder: Path, sampler: str = "random") -> None:
    expected = list(map(comparable, serial_records(folder, sampler)))
    assert list(map(comparable, open_study(url, "toy").records())) == expected


def serial_records(folder: Path, sampler: str = "random") -> list[TrialRecord]:
    url = f"journal:///{folder}/alone.log"
    run_search("serial", toy_runner(new_study(url), sampler=sampler, pruner="none"), make_toy)
    return open_study(url, "toy").records()


def test_two_workers_record_the_same_trials_as_the_serial_engine(
    url: str, tmp_path: Path, calls: Path
) -> None:
    events: list[TrialEvent] = []
    runner = toy_runner(new_study(url), sampler="random", pruner="none", on_event=events.append)
    run_search("ray", runner, lambda: Meeting(calls, 2), workers=2)
    assert_same_as_serial(url, tmp_path)
    assert len({path.read_text() for path in calls.iterdir()}) == 2  # processes
    assert [event.number for event in events if event.kind == "requeued"] == []
    assert ray.is_initialized()


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [("ray", "serial"), ("serial", "ray")])
def test_another_engine_continues_an_interrupted_search(
    url: str, tmp_path: Path, first: str, second: str
) -> None:
    """With one worker TPE proposes what it would without the interruption."""

    def interrupt(event: TrialEvent) -> None:
        if event.kind == "rung" and event.number == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_search(first, toy_runner(new_study(url), pruner="none", on_event=interrupt), make_toy)
    states = [record.state for record in open_study(url, "toy").records()]
    assert states == ["complete"] * 5 + ["waiting"]
    run_search(second, toy_runner(open_study(url, "toy"), pruner="none"), make_toy)
    assert_same_as_serial(url, tmp_path, "tpe")


@pytest.mark.slow
def test_a_dead_worker_costs_no_trial_the_first_time(url: str, calls: Path) -> None:
    events: list[TrialEvent] = []
    runner = toy_runner(new_study(url), sampler="random", pruner="none", trials=6, on_event=events.append)
    run_search("ray", runner, TroubledMaker(calls, "dies once"), workers=1)
    assert [record.state for record in open_study(url, "toy").records()] == ["complete"] * 6
    assert [event.number for event in events if event.kind == "requeued"] == [3]


@pytest.mark.slow
def test_a_trial_that_kills_its_worker_twice_has_failed(url: str, calls: Path) -> None:
    runner = toy_runner(new_study(url), sampler="random", trials=1)
    run_search("ray", runner, TroubledMaker(calls, "always dies"), workers=1)
    (record,) = open_study(url, "toy").records()
    assert record.state == "failed"
    assert record.failure is not None
    assert "died 2 times (a crash, out of memory, or its machine left the cluster?" in record.failure


@pytest.mark.slow
@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_failed_trial_is_recorded_and_the_search_goes_on(url: str, calls: Path, trouble: str) -> None:
    runner = toy_runner(new_study(url), sampler="random", pruner="none", trials=5)
    run_search("ray", runner, TroubledMaker(calls, trouble), workers=1)
    records = open_study(url, "toy").records()
    assert [record.state for record in records] == ["complete"] * 3 + ["failed", "complete"]
    assert TROUBLES[trouble] in str(records[3].failure)


@pytest.mark.slow
def test_a_scorer_that_cannot_be_made_ends_the_search(url: str) -> None:
    with pytest.raises(
        StudyError, match=rf"a worker on {socket.gethostname()} could not make its scorer: RuntimeError: no"
    ):
        run_search("ray", toy_runner(new_study(url)), make_broken, workers=2)
    assert {record.state for record in open_study(url, "toy").records()} == {"waiting"}


@pytest.mark.slow
@pytest.mark.parametrize("broken", [(1,), tuple(range(1, 20))], ids=["once", "for good"])
def test_one_worker_that_cannot_make_its_scorer_is_replaced_if_others_could(
    url: str, calls: Path, broken: tuple[int, ...]
) -> None:
    """A trial kills the first worker; the next is broken, for one trial or for good."""
    runner = toy_runner(new_study(url), sampler="random", pruner="none", trials=6)
    maker = TroubledStarts(calls, "dies once", broken=broken)
    if len(broken) == 1:
        run_search("ray", runner, maker, workers=1)
        assert [record.state for record in open_study(url, "toy").records()] == ["complete"] * 6
    else:
        with pytest.raises(StudyError, match="could not make its scorer: RuntimeError: the disk hiccups"):
            run_search("ray", runner, maker, workers=1)
        states = [record.state for record in open_study(url, "toy").records()]
        assert states == ["complete"] * 3 + ["waiting"]


@pytest.mark.slow
def test_an_error_of_a_watcher_ends_the_search_and_keeps_its_type(url: str) -> None:
    def fail(event: TrialEvent) -> None:
        if event.kind == "finished":
            raise ZeroDivisionError("a watcher's bug")

    with pytest.raises(ZeroDivisionError, match="a watcher's bug"):
        run_search("ray", toy_runner(new_study(url), pruner="none", on_event=fail), make_toy, workers=1)
    assert open_study(url, "toy").records()[0].state == "complete"


@pytest.mark.slow
def test_functions_of_a_script_are_pickled_and_others_refused_in_one_line(url: str) -> None:
    run_search("ray", toy_runner(new_study(url), sampler="random", trials=1), lambda: make_toy(), workers=1)
    assert open_study(url, "toy").records()[0].state == "complete"
    lock = threading.Lock()
    with pytest.raises(StudyError, match=r"cannot be handed to Ray's workers \(.*lock.*\)\. Use") as raised:
        run_search("ray", toy_runner(open_study(url, "toy")), lambda: lock and make_toy(), workers=1)
    assert "\n" not in str(raised.value)


def test_a_new_tune_replaces_one_that_fails_as_long_as_trials_end(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Tune that scores a trial and fails at the next replaces one that a lost node breaks."""

    def fail_after(scored: int) -> Callable[[Bridge, bytes, Workers, str], None]:
        def run(bridge: Bridge, parcel: bytes, resources: Workers, folder: str) -> None:
            for key in range(scored):
                job = bridge.propose(f"{folder}-{key}")
                if job is None:
                    return
                for rung in make_toy()(job.widths, job.variant):
                    bridge.report(f"{folder}-{key}", rung)
                bridge.conclude(f"{folder}-{key}", {})
            bridge.propose("lost")
            raise RuntimeError("a node went\nwith a long story")

        return run

    resources = Workers(1, cpus=1, gpus=0)
    monkeypatch.setattr(ray_tune, "_run", fail_after(0))
    with pytest.raises(StudyError, match=r"^toy: Ray Tune failed 3 times \(a node went\)\.$"):
        ray_tune.tune_trials(toy_runner(new_study(url), sampler="random", trials=6), b"", resources, "tune")
    study = open_study(url, "toy")
    assert [record.state for record in study.records()] == ["waiting"]
    monkeypatch.setattr(ray_tune, "_run", fail_after(1))
    ray_tune.tune_trials(toy_runner(study, sampler="random", pruner="none", trials=6), b"", resources, "tune")
    assert [record.state for record in study.records()] == ["complete"] * 6


def test_a_share_that_no_machine_has_is_refused_with_the_way_to_go_on(url: str) -> None:
    """Here the study exists already: in a script that is connected to a Ray, whose machines it asks."""
    runner = toy_runner(new_study(url))
    runner.device = "cuda"
    with pytest.raises(
        ConfigError, match=r"1 CPUs and 2 GPUs a trial, which no machine .* resume toy \.\.\. --set"
    ):
        run_search("ray", runner, make_toy, workers=Workers(2, cpus=1, gpus=2))
    assert open_study(url, "toy").records() == []


@pytest.mark.parametrize(("device", "gpus", "told"), [("cpu", None, 1), ("cpu", 0, 0), ("cuda", None, 0)])
def test_unused_gpus_of_a_cluster_are_reported(
    url: str, caplog: pytest.LogCaptureFixture, device: str, gpus: float | None, told: int
) -> None:
    """A search that ends as it has joined the Ray: no machine there has three CPUs."""
    runner = toy_runner(new_study(url))
    runner.device = device
    with pytest.raises(ConfigError, match="which no machine"):
        run_search("ray", runner, make_toy, workers=Workers(1, cpus=3, gpus=gpus))
    warnings = [record.getMessage() for record in caplog.records if record.name == "autoprune.engines.ray"]
    assert len(warnings) == told
    assert all("and the GPUs of the Ray cluster (1) stay unused" in each for each in warnings)


def gpus_of_ray() -> str:
    return ",".join(map(str, ray.get_gpu_ids()))


def gpus_of_torch() -> str:
    return f"{torch.ones(1, device='cuda').device} of {torch.cuda.device_count()}"


def names_of_rungs(url: str) -> set[str]:
    return {score.name for record in open_study(url, "toy").records() for score in record.scores}


@pytest.mark.slow
def test_half_a_cpu_each_lets_four_trials_run_at_once_on_two(url: str, calls: Path) -> None:
    runner = toy_runner(new_study(url), sampler="random", pruner="none", trials=4)
    run_search("ray", runner, lambda: Meeting(calls, 4), workers=Workers(4, cpus=0.5))
    assert [record.state for record in open_study(url, "toy").records()] == ["complete"] * 4


@pytest.mark.slow
def test_half_a_gpu_each_lets_two_trials_share_one(url: str, calls: Path) -> None:
    """As Ray counts them: the device itself is for the next test."""
    runner = toy_runner(new_study(url), sampler="random", pruner="none", trials=2)
    runner.device = "cuda"
    run_search("ray", runner, lambda: Meeting(calls, 2, gpus_of_ray), workers=Workers(2, cpus=1, gpus=0.5))
    assert names_of_rungs(url) == {"0"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_two_trials_compute_on_one_gpu_at_once(url: str, calls: Path) -> None:
    runner = toy_runner(new_study(url), sampler="random", pruner="none", trials=2)
    runner.device = "cuda"
    workers = Workers(2, cpus=1, gpus=0.5)
    run_search("ray", runner, lambda: Meeting(calls, 2, gpus_of_torch), workers=workers)
    assert names_of_rungs(url) == {"cuda:0 of 1"}


def test_workers_share_out_the_gpus_that_there_are(url: str) -> None:
    runner = toy_runner(new_study(url))
    assert _gpus(runner, Workers(2), present=4) == 0
    runner.device = "cuda"
    shares = {
        (number, present): _gpus(runner, Workers(number), present)
        for number in (1, 2, 5)
        for present in (0, 1, 2)
    }
    assert shares == {
        (1, 0): 1, (1, 1): 1, (1, 2): 1,
        (2, 0): 1, (2, 1): 0.5, (2, 2): 1,
        (5, 0): 1, (5, 1): 0.2, (5, 2): pytest.approx(1 / 3),
    }  # fmt: skip
    assert _gpus(runner, Workers(5, gpus=0.25), present=2) == 0.25


@pytest.mark.slow
def test_asha_judges_as_in_every_engine(url: str, tmp_path: Path) -> None:
    records = []
    for engine, where in (("ray", url), ("serial", f"sqlite:///{tmp_path}/serial.db")):
        runner = toy_runner(new_study(where), sampler="random", pruner="asha", trials=12)
        run_search(engine, runner, make_toy, workers=1)
        records.append(runner.study.records())
    assert {record.state for record in records[0]} == {"complete", "pruned"}
    assert list(map(comparable, records[0])) == list(map(comparable, records[1]))
