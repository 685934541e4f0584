"""The Ray engine refuses a search at once without Ray, without a cluster, or with impossible shares."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

import pytest
import torch

from autoprune.cli import main
from autoprune.engines import Workers, check_engine
from autoprune.engines.ray import _start_here
from autoprune.errors import ConfigError
from autoprune.support.threads import usable_cores
from tests.children import run_child


class Hidden:
    """Hides Ray from imports."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == "ray":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def search_without_ray() -> None:
    assert "ray" not in sys.modules
    sys.meta_path.insert(0, Hidden)
    sys.argv = ["autoprune", "search", "digits", "--set", "search.engine=ray"]
    main()


def test_without_ray_the_extra_is_named_and_nothing_is_made(tmp_path: Path) -> None:
    code, printed = run_child(search_without_ray, cwd=tmp_path)
    assert code == 2
    assert printed == (
        "autoprune: search.engine: \"ray\" needs Ray Tune (No module named 'ray'): "
        'pip install "autoprune[ray]", or use the engine "processes".\n'
    )
    assert list(tmp_path.iterdir()) == []


def refusal(address: str, within_s: float = 100) -> str:
    """Return why an address is refused, which must not take long."""
    pytest.importorskip("ray")
    started = time.monotonic()
    with pytest.raises(ConfigError, match=r"^search\.ray\.address: ") as raised:
        check_engine("ray", Workers(1, address=address))
    assert time.monotonic() - started < within_s  # Ray alone would try for minutes
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_an_address_without_a_listener_is_refused_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening: nobody else gets it
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert refusal(address) == (
            f"search.ray.address: no Ray cluster at '{address}' (Connection refused). Start one with "
            '`ray start --head`, or set search.ray.address = "local" to run on this machine alone.'
        )


@pytest.mark.slow
def test_a_port_of_something_else_is_refused_within_a_minute() -> None:
    """As that of Ray's dashboard would be."""
    with socket.create_server(("", 0)) as other:
        port = other.getsockname()[1]
        assert "(the server there does not answer as Ray does)" in refusal(f"127.0.0.1:{port}")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:", "127.0.0.1:port", "127.0.0.1:70000", ""])
def test_a_malformed_address_is_refused(address: str) -> None:
    assert f"no Ray cluster at '{address}'" in refusal(address)


def test_auto_without_a_cluster_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """If there is none, and if the last one has left its address behind."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert "no Ray cluster at 'auto' (Connection refused)" in refusal("auto")
    monkeypatch.delenv("RAY_ADDRESS")
    services = pytest.importorskip("ray._private.services")
    monkeypatch.setattr(services, "find_gcs_addresses", set)  # other tests may run a cluster on this machine
    assert "no Ray cluster at 'auto'" in refusal("auto")


def test_an_address_of_rays_client_is_refused() -> None:
    assert "ray://head:10001 is for Ray's client" in refusal("ray://head:10001")


def test_shares_that_ray_does_not_give_out_are_refused_by_ray_alone() -> None:
    check_engine("processes", Workers(2, cpus=0.5))
    check_engine("serial", Workers(2, cpus=2.5))
    pytest.importorskip("ray")
    with pytest.raises(
        ConfigError, match=r"gpus_per_trial: got 1\.5, but .* whole ones only\. Write 1 or 2\.$"
    ):
        check_engine("ray", Workers(2, gpus=1.5))
    with pytest.raises(
        ConfigError, match=r"cpus_per_trial: got 2\.5, but .* whole ones only\. Write 2 or 3\.$"
    ):
        check_engine("ray", Workers(2, cpus=2.5))


@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_more_cores_a_trial_than_this_machine_has_are_refused(engine: str) -> None:
    if engine == "ray":
        pytest.importorskip("ray")
    cores = usable_cores()
    check_engine(engine, Workers(1, cpus=cores))
    with pytest.raises(
        ConfigError,
        match=rf"^search\.cpus_per_trial: got {cores + 1}, expected at most {cores}, the CPU cores",
    ):
        check_engine(engine, Workers(1, cpus=cores + 1))


def test_more_gpus_than_this_machine_has_are_refused_if_ray_starts_here() -> None:
    pytest.importorskip("ray")
    present = torch.cuda.device_count()
    with pytest.raises(
        ConfigError,
        match=rf"gpus_per_trial: got {present + 1}, but this machine has {present} that torch sees",
    ):
        check_engine("ray", Workers(1, gpus=present + 1), "cuda")


@pytest.mark.parametrize(
    ("device", "gpus", "message"),
    [
        ("cpu", 0.5, r'^search\.ray\.gpus_per_trial: got 0\.5, but trials compute on "cpu"\. Leave it out'),
        ("cuda", 0, r'^search\.ray\.gpus_per_trial: got 0, but trials compute on "cuda", and Ray hides'),
        ("cuda:1", None, r'^search\.device: got "cuda:1", but in Ray.s .* is "cuda:0"\. Write "cuda"'),
    ],
)
def test_shares_that_do_not_go_with_the_device_are_refused(
    device: str, gpus: float | None, message: str
) -> None:
    pytest.importorskip("ray")
    with pytest.raises(ConfigError, match=message):
        check_engine("ray", Workers(1, gpus=gpus), device)
    check_engine("processes", Workers(1, gpus=gpus), device)


@pytest.mark.parametrize(("device", "gpus"), [("cpu", None), ("cpu", 0), ("cuda", None), ("cuda:0", None)])
def test_shares_that_go_with_the_device_are_taken(device: str, gpus: float | None) -> None:
    pytest.importorskip("ray")
    check_engine("ray", Workers(1, gpus=gpus), device)


def test_workers_share_out_the_threads_of_this_process() -> None:
    threads = torch.get_num_threads()
    assert Workers(1).threads == threads
    assert Workers(2 * threads).threads == 1
    assert [Workers(2, cpus=cpus).threads for cpus in (0.5, 1, 3)] == [1, 1, 3]


def test_local_is_no_cluster() -> None:
    pytest.importorskip("ray")
    assert Workers(1, address="local").cluster is None
    assert Workers(1, address="auto").cluster == "auto"
    check_engine("ray", Workers(1, address="local"))


def test_a_node_that_does_not_start_in_time_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine under load shows this. Ray's limit of 30 seconds cannot be set."""
    ray = pytest.importorskip("ray")

    def never_starts(**options: object) -> None:
        raise Exception("The current node timed out during startup.")  # as Ray does

    monkeypatch.setattr(ray, "init", never_starts)
    with pytest.raises(ConfigError, match=r"Ray cannot be started here \(The current node timed out"):
        _start_here(Workers(1), 0)
