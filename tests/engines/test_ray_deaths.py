"""A machine of a Ray cluster goes, or the search itself is killed: only running trials are lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ray = pytest.importorskip("ray")

from ray.cluster_utils import Cluster  # noqa: E402

from autoprune.config.rungs import RungScore  # noqa: E402
from autoprune.engines import TrialEvent, Workers, run_search  # noqa: E402
from autoprune.errors import StudyError, TrialError  # noqa: E402
from autoprune.study import open_study  # noqa: E402
from experiments.scale.faults import joined  # noqa: E402
from tests.engines.test_kill import children_of, finished, is_running  # noqa: E402
from tests.engines.test_ray import OBJECT_STORE, serial_records  # noqa: E402
from tests.engines.toy import ToyScorer, make_toy, new_study, start, toy_runner  # noqa: E402

pytestmark = pytest.mark.slow
NODE = {"num_cpus": 1, "object_store_memory": OBJECT_STORE, "include_dashboard": False}


@pytest.fixture
def cluster() -> Iterator[Any]:
    made = Cluster(initialize_head=True, head_node_args=NODE)
    yield made
    ray.shutdown()
    made.shutdown()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Located:
    """Scores as ToyScorer does once three nodes do, each rung named after the node that it ran on.

    Once the file `gone` names a node, scores wait for a fourth node. On the node that is gone they go no
    further: workers outlive their node for a moment.
    """

    folder: Path
    gone: Path

    def __call__(self, widths: Mapping[str, int], seed: int) -> Iterator[RungScore]:
        node = ray.get_runtime_context().get_node_id()
        (self.folder / node).touch()
        while self._nodes() < 3:
            time.sleep(0.05)
        for rung in ToyScorer(sleep_s=0.2)(widths, seed):
            yield RungScore(rung.index, node, rung.score, rung.seconds)
            deadline = time.monotonic() + 200
            while self.gone.exists() and (self.gone.read_text() == node or self._nodes() < 4):
                if time.monotonic() > deadline:
                    raise TrialError("the node has not gone, or no other has come")
                time.sleep(0.05)

    def _nodes(self) -> int:
        return len(list(self.folder.iterdir()))


def die() -> ToyScorer:
    """Make no scorer, as if a worker's machine runs out of memory or has another Python."""
    os._exit(3)


def test_workers_that_never_get_ready_end_the_search_with_rays_reason(tmp_path: Path) -> None:
    runner = toy_runner(new_study(f"sqlite:///{tmp_path}/study.db"), sampler="random", trials=4)
    with pytest.raises(
        StudyError, match=r"2 workers died .* before they were ready \((.+), see Ray's logs"
    ) as caught:
        run_search("ray", runner, die, workers=1)
    assert "no reason is known" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {record.state for record in runner.study.records()} <= {"waiting"}


def test_of_three_nodes_one_goes_and_another_joins_and_no_trial_is_lost(cluster: Any, tmp_path: Path) -> None:
    doomed, other = (cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE) for _ in range(2))
    known = {cluster.head_node.node_id, doomed.node_id, other.node_id}
    url = f"sqlite:///{tmp_path}/study.db"
    gone = tmp_path / "gone"
    hit: list[int] = []
    requeued: list[int] = []

    def replace_once(event: TrialEvent) -> None:
        if event.kind == "requeued":
            requeued.append(event.number)
        if not hit and event.rung is not None and (event.rung.index, event.rung.name) == (0, doomed.node_id):
            hit.append(event.number)
            gone.write_text(doomed.node_id)
            cluster.remove_node(doomed, allow_graceful=False)
            joined(cluster)

    folder = tmp_path / "nodes"
    folder.mkdir()
    workers = Workers(3, cpus=1, address=cluster.address)
    runner = toy_runner(new_study(url), sampler="random", pruner="none", trials=12, on_event=replace_once)
    run_search("ray", runner, lambda: Located(folder, gone), workers=workers)
    assert not ray.is_initialized()  # the engine connected, so it leaves
    assert len(hit) == 1
    assert requeued == hit
    records = open_study(url, "toy").records()
    expected = serial_records(tmp_path)
    assert [(each.number, each.state, each.value) for each in records] == [
        (each.number, "complete", each.value) for each in expected
    ]
    assert doomed.node_id not in {score.name for score in records[requeued[0]].scores}
    assert {score.name for record in records for score in record.scores} - known  # the new node worked, too


def test_a_killed_search_leaves_no_process_and_goes_on_on_another_engine(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    process = start(url, "random", "none", "ray")
    deadline = time.monotonic() + 120
    while finished(url) < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    family = workers_of(process.pid)
    assert len(family) >= 4  # two that score, and those of Ray that start them
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {each.number: each for each in open_study(url, "toy").records() if each.state == "complete"}
    while any(is_running(pid) for pid in family):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    study = open_study(url, "toy")
    runner = toy_runner(study, sampler="random", pruner="none", trials=24)
    run_search("serial", runner, make_toy)
    records = study.records()
    assert [record.state for record in records] == ["complete"] * 24
    assert {number: records[number] for number in done} == done
    assert len(done) >= 3


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_search_ends_ray_and_requeues_running_trials(
    tmp_path: Path, sign: signal.Signals
) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    process = start(url, "random", "none", "ray")
    deadline = time.monotonic() + 120
    while finished(url) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    family = workers_of(process.pid)
    os.kill(process.pid, sign)
    assert process.wait(60) != 0
    while any(is_running(pid) for pid in family):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    states = [record.state for record in open_study(url, "toy").records()]
    assert "failed" not in states
    if sign == signal.SIGINT:
        assert "running" not in states


def workers_of(pid: int) -> list[int]:
    """Return Ray's processes but its agents: those notice that a search was killed after a minute only."""
    return [
        each
        for each in descendants(pid)
        if "gent" not in Path(f"/proc/{each}/cmdline").read_text("utf-8", "replace")
    ]


def descendants(pid: int) -> list[int]:
    found = [int(child) for child in children_of(pid)]
    return found + [each for child in found for each in descendants(child)]
