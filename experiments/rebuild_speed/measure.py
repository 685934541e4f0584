"""The measurements of `run`, one function a part: the name of a model in, a row of results out."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import gc
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.criteria import importance, make_plan
from autoprune.criteria._plans import plan_from_importance, resolve_widths
from autoprune.graph.capture import capture
from autoprune.rebuilding import rebuild
from autoprune.space import Budget, build_space
from autoprune.tracing import trace
from autoprune.zoo import make_model
from autoprune.zoo.densenet import DenseNet
from autoprune.zoo.resnet import ResNet
from experiments.common import build

Row = dict[str, object]
Work = Callable[[], object]

ROUNDS = 11
PATIENCE_SECONDS = 600


def rebuild_against_copy(name: str) -> Row:
    torch.set_num_threads(1)
    model, example = build(name)
    prunable = trace(model, example)
    plan = make_plan(prunable, 0.5)
    rebuild(prunable, plan)  # the first call also loads modules, whose time is not the model's
    small_bytes, peak = peak_bytes(lambda: rebuild(prunable, plan))
    dense_bytes = size_of(model)
    copies, rebuilds = in_turn(ROUNDS, lambda: copy.deepcopy(model), lambda: rebuild(prunable, plan))
    return {
        "model": name,
        "tensors": len(model.state_dict()),
        "dense_mb": round(dense_bytes / 1e6, 1),
        "deepcopy_ms": milliseconds(copies),
        "rebuild_ms": milliseconds(rebuilds),
        **spread("ratio", rebuilds / copies),
        "peak_over_dense_and_small": round((dense_bytes + peak) / (dense_bytes + small_bytes), 3),
    }


def rebuild_against_pruning(name: str) -> Row:
    torch.set_num_threads(1)
    model, example = build(name)
    model.eval()
    prunable = trace(model, example)
    widths = resolve_widths(prunable, 0.5)
    start = time.perf_counter()
    ranks = importance(prunable, "l1")
    row: Row = {"model": name, "failure": "", "l1_once_ms": round((time.perf_counter() - start) * 1000, 1)}
    plan = plan_from_importance(prunable, widths, ranks)
    for kind, ours in (
        ("unranked", lambda: rebuild(prunable, plan)),
        ("l1", lambda: rebuild(prunable, plan_from_importance(prunable, widths, ranks))),
    ):
        theirs = torch_pruning(model, example, ranked=kind == "l1")
        try:
            with at_most(PATIENCE_SECONDS), warnings.catch_warnings(action="ignore"):
                start = time.perf_counter()
                theirs()
                rounds = 7 if time.perf_counter() - start < 5 else 3
                times = in_turn(rounds, theirs, ours)
        except Exception as error:  # a failure of theirs is a result
            row["failure"] = f"{kind}: {type(error).__name__}: {error}".splitlines()[0]
            times = np.full((2, 1), np.nan)
        row |= {
            f"{kind}_theirs_ms": milliseconds(times[0]),
            f"{kind}_ours_ms": milliseconds(times[1]),
            **spread(f"{kind}_ratio", times[0] / times[1]),
        }
    return row


def torch_pruning(model: nn.Module, example: Tensor, *, ranked: bool) -> Work:
    """Return Torch-Pruning's work for a candidate: as it prunes in place, a copy and its graph come first."""
    import torch_pruning as tp  # type: ignore[import-untyped]  # ships no types

    ranking = tp.importance.GroupMagnitudeImportance(p=1) if ranked else tp.importance.RandomImportance()
    classes = model(example).shape[1]

    def candidate() -> nn.Module:
        small = copy.deepcopy(model)
        heads = [m for m in small.modules() if isinstance(m, nn.Linear) and m.out_features == classes]
        pruner = tp.pruner.BasePruner(
            small, example, importance=ranking, pruning_ratio=0.5, ignored_layers=heads
        )
        pruner.step()
        return small

    return candidate


def tracing(name: str) -> Row:
    torch.set_num_threads(1)
    model, example = of_depth(name), torch.zeros(1, 3, 32, 32)
    trace(make_model("digits_resnet", 10), torch.zeros(1, 3, 8, 8))  # so that imports at first use are done
    exports, traces = in_turn(
        3, lambda: capture(model, (example,), training=False), lambda: trace(model, example)
    )
    return {
        "model": name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "operators": len(capture(model, (example,), training=False).nodes),
        **spread("trace_seconds", traces),
        **spread("export_seconds", exports),
    }


def of_depth(name: str) -> nn.Module:
    """Build "resnet-DEPTH" or "densenet-DEPTH" (growth 12) of the CIFAR families."""
    family, depth = name.split("-")
    if family == "resnet":
        return ResNet((int(depth) - 2) // 6, (16, 32, 64), 10, 3)
    return DenseNet((int(depth) - 4) // 3, 12, 10, 3)


def costs(name: str) -> Row:
    torch.set_num_threads(1)
    model, example = build(name)
    prunable = trace(model, example)
    full = np.array([group.width for group in prunable.groups])
    free = np.array([group.frozen is None for group in prunable.groups])
    rng = np.random.default_rng(0)
    candidates = np.where(free, rng.integers(1, full + 1, (10_000, len(full))), full)
    space = build_space(prunable.groups, prunable.cost, Budget(macs=int(prunable.cost().macs) // 2))
    ratios = rng.uniform(0.1, 1.0, (1000, len(space.variables)))
    costed, decoded = in_turn(ROUNDS, lambda: prunable.cost(candidates), lambda: space.decode(ratios))
    return {
        "model": name,
        "groups": len(full),
        "costs_per_second": round(len(candidates) / float(np.median(costed))),
        **spread("decode_ms_each", decoded * 1000 / len(ratios)),
    }


def in_turn(rounds: int, *works: Work) -> NDArray[np.float64]:
    """Return seconds [works, rounds]. Each round runs every work once. The first is not counted."""
    times = []
    for _ in range(rounds + 1):
        gc.collect()
        times.append([seconds(work) for work in works])
    return np.array(times[1:]).T


def seconds(work: Work) -> float:
    start = time.perf_counter()
    result = work()
    elapsed = time.perf_counter() - start
    del result  # handed back outside the clock
    return elapsed


def milliseconds(times: NDArray[np.float64]) -> float:
    return round(float(np.median(times)) * 1000, 2)


def spread(name: str, values: NDArray[np.float64]) -> Row:
    """Return the median and the quartiles."""
    low, middle, high = (round(float(value), 4) for value in np.quantile(values, (0.25, 0.5, 0.75)))
    return {name: middle, f"{name}_low": low, f"{name}_high": high}


def size_of(model: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in model.state_dict().values())


def peak_bytes(make: Callable[[], nn.Module]) -> tuple[int, int]:
    """Return the bytes of a model's tensors, and by how much resident memory rose at most while it was made.

    Linux only: the kernel's high-water mark is reset first, and the heap's free memory given back.
    """
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    model = make()
    return size_of(model), resident("VmHWM") - before


def resident(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


@contextlib.contextmanager
def at_most(limit_seconds: int) -> Iterator[None]:
    """Raise TimeoutError in the block when it takes longer."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"not done in {limit_seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(limit_seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
