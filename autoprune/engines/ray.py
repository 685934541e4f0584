"""The engine that runs trials with Ray Tune, on this machine or on a cluster, with shares of GPUs.

Example:
    run_ray(runner, make_scorer, Workers(4, gpus=0.5, address="auto"))

Only this process accesses the storage. If a worker or a node dies, its trial is queued once more. If that
happens again, the trial is recorded as failed. If Tune itself fails, as it may when a node with an unused
actor leaves, all running trials start again under a new Tune. Tune writes to a folder that is removed at the
end. The study is the only state, so any engine can resume it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import logging
import math
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from autoprune.engines._runner import MakeScorer, Runner
from autoprune.engines._workers import Workers, check_cores, environment
from autoprune.errors import ConfigError, reason_of

SPARE_BYTES = 100 * 2**20
"""Memory of an object store that we start, in addition to the pickled scorer's. Nothing else is large."""

ANSWER_S = 5.0
"""How long a cluster may take to accept a connection at its address."""

GREETING_S = 45.0
"""How long a process may take to import Ray and connect to the cluster there."""

_QUESTION = "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1])"
"""Code for a process of its own, because Ray's client retries for minutes and cannot be stopped."""

_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints even at verbose=0
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths in a config are relative to the search's folder
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the search at once, as in every engine
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_RESULT_BUFFER_LENGTH": "1",  # each score is judged before the next rung begins
}
"""Environment variables for Ray, set while a search runs."""

_log = logging.getLogger(__name__)


def run_ray(runner: Runner, make_scorer: MakeScorer, workers: Workers) -> None:
    """Run jobs under Ray Tune until none is left.

    If this process is already connected to Ray, that connection is used, and stays open.

    Args:
        runner: hands out the jobs.
        make_scorer: called once in each worker. It is pickled.
        workers: number of trials at once, the resources of each, and the cluster.

    Raises:
        ConfigError: as from `check_ray`, or this machine has too few resources for one trial.
        StudyError: the scorer cannot be pickled, or cannot be made in a worker.
    """
    with _unnoticed():
        ray_tune = _load()
        parcel = ray_tune.pack(make_scorer)
        with _connected(workers, runner.device, len(parcel)):
            settled = _settled(runner, workers)
            with tempfile.TemporaryDirectory(prefix="autoprune-ray-", ignore_cleanup_errors=True) as folder:
                ray_tune.tune_trials(runner, parcel, settled, folder)


def check_ray(workers: Workers, device: str | None = None) -> None:
    """Refuse a search with Ray that could not begin.

    The resources of a cluster's machines are not checked here, because machines may join it later.

    Args:
        workers: number of trials at once, the resources of each, and the cluster.
        device: of the trials, or None if it is not known yet.

    Raises:
        ConfigError: Ray is not installed, no cluster answers at the address, or Ray cannot give the requested
            CPUs and GPUs on this device and machine.
    """
    with _unnoticed():
        _load()
        import ray

        _require_whole(workers)
        if device is not None:
            _require_fit(workers, device)
        if ray.is_initialized():
            return
        if workers.cluster is None:
            check_cores(workers)
            _require_gpus(workers)
        else:
            _require_answer(workers.cluster)


def _require_whole(workers: Workers) -> None:
    for key, amount in (("cpus", workers.cpus), ("ray.gpus", workers.gpus)):
        if amount is not None and amount > 1 and amount != int(amount):
            raise ConfigError(
                f"search.{key}_per_trial: got {amount:g}, but above 1 Ray gives out whole ones only. Write "
                f"{math.floor(amount)} or {math.ceil(amount)}."
            )


def _require_fit(workers: Workers, device: str) -> None:
    """Refuse a share of GPUs that does not match the device of the trials."""
    on_gpu = device.startswith("cuda")
    if on_gpu and device not in ("cuda", "cuda:0"):
        raise ConfigError(
            f'search.device: got "{device}", but in Ray\'s workers the GPU that they are given is "cuda:0". '
            'Write "cuda", and leave others out by the variable CUDA_VISIBLE_DEVICES.'
        )
    if on_gpu and workers.gpus == 0:
        raise ConfigError(
            f'search.ray.gpus_per_trial: got 0, but trials compute on "{device}", and Ray hides the GPUs '
            "from trials that have no share of them. Leave it out, or write 0.5 for two trials on each."
        )
    if not on_gpu and workers.gpus:
        raise ConfigError(
            f'search.ray.gpus_per_trial: got {workers.gpus:g}, but trials compute on "{device}". Leave '
            'it out, or set search.device = "cuda".'
        )


def _require_gpus(workers: Workers) -> None:
    """Refuse more GPUs a trial than this machine has. It is called if Ray starts here."""
    import torch

    present = torch.cuda.device_count()
    if workers.gpus is not None and workers.gpus > present:
        raise ConfigError(
            f"search.ray.gpus_per_trial: got {workers.gpus:g}, but this machine has {present} that torch "
            "sees. Lower it, or name a cluster in search.ray.address."
        )


def _load() -> ModuleType:
    """Import the module that needs Ray, or refuse if Ray Tune is not completely installed."""
    try:
        return importlib.import_module("autoprune.engines.ray_tune")
    except ImportError as error:
        raise ConfigError(
            f'search.engine: "ray" needs Ray Tune ({error}): pip install "autoprune[ray]", or use the engine '
            '"processes".'
        ) from error


@contextlib.contextmanager
def _connected(workers: Workers, device: str, parcel_bytes: int) -> Iterator[None]:
    """Connect to Ray or start it here, and disconnect after the block unless a connection existed before."""
    import ray

    if ray.is_initialized():
        _warn_of_unused_gpus(workers, device)
        yield
        return
    try:
        with _signals_kept():  # SIGTERM stays the caller's during the search too
            if workers.cluster is None:
                _start_here(workers, parcel_bytes)
            else:
                _join(workers.cluster)
                _warn_of_unused_gpus(workers, device)
        yield
    finally:
        ray.shutdown()


def _start_here(workers: Workers, parcel_bytes: int) -> None:
    import ray

    try:
        ray.init(
            address="local",  # never a cluster that happens to run here
            num_cpus=math.ceil(workers.number * _cpus(workers)),
            object_store_memory=SPARE_BYTES + 2 * parcel_bytes,
            include_dashboard=False,
            log_to_driver=_log.isEnabledFor(logging.INFO),
            logging_level=logging.CRITICAL,
        )
    except Exception as error:  # Ray raises a bare Exception if a node does not start within its 30 seconds
        raise ConfigError(
            f'search.engine: Ray cannot be started here ({reason_of(error)}). Use the engine "processes".'
        ) from error


def _join(address: str) -> None:
    import ray

    try:
        is_shown = _log.isEnabledFor(logging.INFO)
        ray.init(address=address, log_to_driver=is_shown, logging_level=logging.CRITICAL)
    except Exception as error:  # as above
        raise _no_cluster(address, error) from error


def _warn_of_unused_gpus(workers: Workers, device: str) -> None:
    """Warn if a cluster has GPUs but trials run on CPUs, because "auto" looked at this machine alone."""
    import ray

    known: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # ray leaves it untyped
    gpus = known.get("GPU", 0)
    if gpus and workers.gpus != 0 and not device.startswith("cuda"):
        _log.warning(
            'search.device: trials compute on "%s", and the GPUs of the Ray cluster (%g) stay unused: "auto" '
            "looks at the machine that begins the search. Begin one on a machine with a GPU, or set "
            "search.ray.gpus_per_trial = 0 if trials need no GPU",
            device,
            gpus,
        )


def _require_answer(address: str) -> None:
    """Refuse an address at which no Ray cluster answers. Ray itself would retry for minutes."""
    if address.startswith("ray://"):
        raise ConfigError(
            f"search.ray.address: {address} is for Ray's client, through which Tune would run away from the "
            'study\'s storage. Start the search on a machine of the cluster, with "auto" or its host:port.'
        )
    from ray._private.services import canonicalize_bootstrap_address  # the address of "auto"

    try:
        host, _, port = str(canonicalize_bootstrap_address(address)).rpartition(":")
        if not 0 < int(port) < 2**16:
            raise ValueError(f"there is no port {port}")
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
        ask = [sys.executable, "-P", "-c", _QUESTION, f"{host}:{port}"]
        subprocess.run(ask, capture_output=True, check=True, timeout=GREETING_S)
    except subprocess.SubprocessError:
        raise _no_cluster(address, ValueError("the server there does not answer as Ray does")) from None
    except (OSError, ValueError) as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> ConfigError:
    reason = reason_of(error).partition(". ")[0]  # the rest names options of Ray's own commands
    return ConfigError(
        f"search.ray.address: no Ray cluster at {address!r} ({reason}). Start one with `ray start "
        '--head`, or set search.ray.address = "local" to run on this machine alone.'
    )


def _settled(runner: Runner, workers: Workers) -> Workers:
    """Return the workers with numbers in place of None. Warn or refuse if no machine has these resources."""
    import ray

    known: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # ray leaves it untyped
    alive = [node for node in known if node["Alive"]]
    nodes: list[dict[str, float]] = [{"CPU": 0.0, "GPU": 0.0, **node["Resources"]} for node in alive]
    gpus = sum(node["GPU"] for node in nodes)
    cpus, share = _cpus(workers), _gpus(runner, workers, gpus)
    settled = dataclasses.replace(workers, cpus=cpus, gpus=share)
    if any(node["CPU"] >= cpus and node["GPU"] >= share for node in nodes):
        return settled
    wanted = (
        f"{cpus:g} CPUs and {share:g} GPUs a trial, which no machine that Ray sees has. "
        f"To request less: autoprune resume {runner.study.name} ... --set search.ray.gpus_per_trial=..."
    )
    if workers.cluster is None:
        raise ConfigError(f"search.ray.gpus_per_trial: {wanted}")
    _log.warning(
        "search.ray.address: the search waits for a machine to join the cluster: it needs %s", wanted
    )
    return settled


def _cpus(workers: Workers) -> float:
    return workers.threads if workers.cpus is None else workers.cpus


def _gpus(runner: Runner, workers: Workers, present: float) -> float:
    """Return the GPUs of a trial: a share so small that all workers run at once."""
    if workers.gpus is not None:
        return workers.gpus
    if not runner.device.startswith("cuda"):
        return 0.0
    return 1.0 if present < 1 else 1.0 / max(1, math.ceil(workers.number / present))


@contextlib.contextmanager
def _unnoticed() -> Iterator[None]:
    """Keep Ray from printing, and from changing signal handlers for good."""
    with environment(_QUIET), _quiet_logs(), _signals_kept():
        yield


@contextlib.contextmanager
def _quiet_logs() -> Iterator[None]:
    """Keep Ray's own reports from the terminal, because autoprune shows the progress of a search itself."""
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"ray\b.*")
            warnings.filterwarnings("ignore", category=FutureWarning)
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Restore the signal handlers that Ray and Tune replace."""
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")  # Windows has not all of them
    before = {each: signal.getsignal(each) for name in names if (each := getattr(signal, name, None))}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():  # handlers change in the main thread only
            for each, handler in before.items():
                signal.signal(each, handler)
