"""Claim: every vision model of the table is narrowed, proved, counted and trained, or its frozen parts named.

    python -m experiments.coverage.run [MODEL ...] [--fresh] [--workers N] [--limit SECONDS] [--plans N]

Appends a row a model to results.csv as it comes, and skips the models that have one. --fresh starts over. A
model that fails gets a row with its error. Then `python -m experiments.coverage.summarise` writes table.md.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from autoprune.errors import suggest
from autoprune.graph import Prunable
from autoprune.rebuilding._proof import TOLERANCE
from autoprune.tracing import trace
from experiments.common import append_row, rows_of
from experiments.coverage import checks
from experiments.coverage.models import MODELS, Entry

T = TypeVar("T")

RESULTS = Path(__file__).with_name("results.csv")

PLANS = 3
"""Random plans a proof."""

TASKS = 20
"""Models a process measures before it ends and hands its memory back."""


@dataclass
class Row:
    """The row of one model. A field is empty if its check did not finish.

    Attributes:
        model: its name in MODELS.
        family: the kind of its architecture.
        library: where it comes from, and the version.
        input: shape of the example input.
        device: "cpu", or "meta" where tensors have no data and nothing is proved.
        groups: channel groups, and so on for the counts that follow.
        crossing_channels: free channels of groups that cross a normalisation over channels.
        macs_touched: share of the MACs in operators that a free group touches.
        params_touched: the same share of the parameters.
        macs_smallest: share of the MACs that is left at one channel of every free group.
        largest_difference: of the proofs with groups that cross kept full.
        all_narrowed: proofs with every free group narrowed that ran. `all_difference` is their largest.
        costs_equal: plans whose predicted MACs and parameters are the counted ones.
        training: "ok" if half the widths train. `evaluation` and `other_size` have the same form.
        seconds: by the clock. `cpu_seconds` are those of the processor, which a busy machine does not change.
        untouched: "yes", or the parts of the dense model or of torch's random state that changed.
        frozen_why: channels and reason, the largest first.
        warnings: of tracing.
        error: the failed stages with a line each.
    """

    model: str
    family: str
    library: str
    input: str
    device: str
    trace_seconds: float | str = ""
    groups: int | str = ""
    free_groups: int | str = ""
    channels: int | str = ""
    free_channels: int | str = ""
    crossing_channels: int | str = ""
    frozen_channels: int | str = ""
    macs: int | str = ""
    params: int | str = ""
    macs_touched: float | str = ""
    params_touched: float | str = ""
    macs_smallest: float | str = ""
    largest_difference: str = ""
    all_narrowed: str = ""
    all_difference: str = ""
    costs_equal: str = ""
    training: str = ""
    evaluation: str = ""
    other_size: str = ""
    untouched: str = ""
    seconds: float | str = ""
    cpu_seconds: float | str = ""
    frozen_why: str = ""
    warnings: str = ""
    error: str = ""


class OutOfTimeError(BaseException):
    """A model took longer than it may. No `except Exception` of a model or a check swallows it."""


def main() -> None:
    options = _options()
    if options.fresh:
        RESULTS.unlink(missing_ok=True)
    done = {row["model"] for row in rows_of(RESULTS)}
    names = [name for name in options.models or MODELS if name not in done]
    start = time.perf_counter()
    for row in measure_all(names, options.workers, options.limit, options.plans):
        append_row(RESULTS, asdict(row))
    print(f"{len(names)} models in {(time.perf_counter() - start) / 60:.1f} minutes")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="default: all")
    parser.add_argument("--fresh", action="store_true", help="start over")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--limit", type=int, default=300, help="processor seconds a model may take")
    parser.add_argument("--plans", type=int, default=PLANS, help="random plans a proof")
    options = parser.parse_args()
    unknown = [name for name in options.models if name not in MODELS]
    if unknown:
        parser.error(f"{unknown[0]}: not in the table.{suggest(unknown[0], MODELS)} See models.py.")
    return options


def measure_all(names: Sequence[str], workers: int, limit: int, plans: int) -> Iterator[Row]:
    """Measure models in processes of their own, and yield each row as it comes."""
    left = list(names)
    while left:
        with _pool(workers) as pool:
            futures = [pool.submit(measure, name, limit, plans) for name in left[: workers * TASKS]]
            try:
                for future in as_completed(futures):
                    row = future.result()
                    left.remove(row.model)
                    yield row
            except BrokenProcessPool:
                # A process was killed (out of memory): one of those that were running is to blame.
                lost = left.pop(0)
                yield new_row(lost, "the process that measured it, or its neighbour, was killed")


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        workers,
        multiprocessing.get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(1,),
    )


def new_row(name: str, error: str = "") -> Row:
    """Return the row of a model that is yet to be measured."""
    entry = MODELS[name]
    try:
        version = importlib.metadata.version(entry.library)
    except importlib.metadata.PackageNotFoundError:
        version = "missing"
    shape = "x".join(map(str, entry.shape))
    return Row(
        name, entry.family, f"{entry.library} {version}", shape, "meta" if entry.meta else "cpu", error=error
    )


def measure(name: str, limit: int, plans: int = PLANS) -> Row:
    """Run all checks of one model, whatever fails, for at most `limit` seconds and `plans` plans a proof."""
    row = new_row(name)
    start, start_cpu = time.perf_counter(), time.process_time()
    torch.manual_seed(0)
    try:
        with _time_limit(limit):
            _fill(row, MODELS[name], plans)
    except Exception as error:  # whatever a library raises as it makes a model is a row too
        _note_error(row, "build", error)
    except OutOfTimeError:
        _note_error(row, "all", TimeoutError(f"took more than {limit} s of processor time"))
    row.seconds = round(time.perf_counter() - start, 1)
    row.cpu_seconds = round(time.process_time() - start_cpu, 1)
    return row


@contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    def stop(signum: int, frame: object) -> None:
        raise OutOfTimeError

    # Processor time, so that a busy machine fails no model.
    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _fill(row: Row, entry: Entry, plans: int) -> None:
    model = entry.build()
    checks.disturb(model)
    example = entry.inputs(1)
    before = checks.snapshot(model)
    prunable = _stage(row, "trace", lambda: _trace(row, model, example))
    small = None
    if prunable is not None:
        _stage(row, "description", lambda: _describe(row, prunable))
        _stage(row, "proof", lambda: _prove(row, prunable, plans))
        small = _stage(row, "half", lambda: checks.half(prunable))
    row.untouched = ", ".join(checks.changes(before, checks.snapshot(model))[:3]) or "yes"
    if small is not None:
        row.training = _stage(row, "training", lambda: checks.check_training(entry, model, small)) or ""
        row.evaluation = _stage(row, "evaluation", lambda: checks.check_evaluation(entry, model, small)) or ""
        row.other_size = _stage(row, "other size", lambda: checks.check_other_size(entry, model, small)) or ""


def _trace(row: Row, model: nn.Module, example: Tensor) -> Prunable:
    start = time.perf_counter()
    with checks.warnings_of("autoprune") as heard:
        prunable = trace(model, example)
    row.trace_seconds = round(time.perf_counter() - start, 2)
    row.warnings = " | ".join(heard)
    return prunable


def _describe(row: Row, prunable: Prunable) -> None:
    free = prunable.searchable
    row.groups, row.free_groups = len(prunable.groups), len(free)
    row.channels, row.free_channels = checks.channels(prunable.groups), checks.channels(free)
    row.crossing_channels = checks.channels(group for group in free if group.crosses)
    row.frozen_channels = row.channels - row.free_channels
    cost = prunable.cost()
    row.macs, row.params = int(cost.macs), int(cost.params)
    macs, params = checks.touched_shares(prunable)
    row.macs_touched, row.params_touched = round(macs, 4), round(params, 4)
    row.macs_smallest = round(checks.smallest_macs(prunable), 4)
    row.frozen_why = " | ".join(checks.frozen_reasons(prunable))


def _prove(row: Row, prunable: Prunable, plans: int) -> None:
    full = [checks.prove(prunable, seed, crossing=False) for seed in range(plans)]
    difference = checks.largest(full)
    row.largest_difference = "" if difference is None else f"{difference:.1e}"
    narrowed = [checks.prove(prunable, seed, crossing=True) for seed in range(plans)]
    row.all_narrowed = f"{len(narrowed)} of {plans}"
    changed = checks.largest(narrowed)
    row.all_difference = "" if changed is None else f"{changed:.1e}"
    proofs = [*full, *narrowed]
    missed = [proof for proof in proofs if proof.predicted != proof.counted]
    row.costs_equal = f"{len(proofs) - len(missed)} of {len(proofs)}"
    if difference is not None and not difference <= TOLERANCE:
        raise checks.CheckError(f"differs by {difference:.1e} where nothing crosses a normalisation")
    verdicts = [proof.difference for proof in narrowed if proof.difference is not None]
    wrong = [verdict for verdict in verdicts if not verdict.right]
    if wrong:
        raise checks.CheckError(f"with every free group narrowed: {wrong[0]}")
    if missed:
        raise checks.CheckError(
            f"MACs and params of {len(missed)} plans: predicted {missed[0].predicted}, "
            f"counted {missed[0].counted}"
        )


def _stage(row: Row, name: str, work: Callable[[], T]) -> T | None:
    """Do a part of the work. A failure becomes a line of the row, and the other parts follow."""
    try:
        return work()
    except Exception as error:  # the experiment reports any error of a model
        _note_error(row, name, error)
        return None


def _note_error(row: Row, stage: str, error: BaseException) -> None:
    lines = str(error).strip().splitlines()
    line = f"{stage}: {type(error).__name__}: {lines[0] if lines else ''}"
    row.error = f"{row.error} | {line}" if row.error else line


if __name__ == "__main__":
    main()
