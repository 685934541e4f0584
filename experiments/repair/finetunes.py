"""Claim: repaired candidates are ahead of recalibrated ones after a finetune, at equal widths and recipe.

    python -m experiments.repair.finetunes [--starts obs-sequential] [--lengths "8 epochs"] [--seeds 0 1]

ResNet-20 on Fashion-MNIST at 12% of the FLOPs, uniform widths. Each start is finetuned for each length by
the recipe of `experiments.search_efficiency.finetunes`, with the dense model as teacher. A finetune given in
steps is that of a rung: learning rate 0.02, no warm-up, no teacher. The test part is read once, at the end.
Rows are appended to finetunes.csv as they come, and a finetune that was cut off goes on where it was.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from autoprune.criteria import Importance, importance, plan_from_importance
from autoprune.flow import schedule_of
from autoprune.rebuilding import rebuild
from autoprune.reconstruction import moments, repair
from autoprune.score import calibrate
from autoprune.training import Schedule, evaluate, fit
from experiments.common import append_row, rows_of
from experiments.repair.accuracy import CALIBRATION_BATCHES, images_of, uniform_widths
from experiments.search_efficiency.setups import RUNS, SETTING, context_of

SETUP = "resnet20-12"
RESULTS = Path(__file__).with_name("finetunes.csv")

STARTS = {
    "l1-recalibrated": ("l1", None),
    "obs-sequential": ("obs", "sequential"),
    "obs-closed": ("obs", "closed"),
    "l1-closed": ("l1", "closed"),
    "l1-sequential": ("l1", "sequential"),
    "obs-recalibrated": ("obs", None),
}
"""{name: (criterion, mode of the repair)}. BatchNorm is recalibrated but after a sequential repair."""

LENGTHS = ("8 epochs", "3 epochs", "2 epochs", "400 steps", "100 steps", "25 steps", "0 steps")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--starts", nargs="+", default=list(STARTS), choices=STARTS)
    parser.add_argument("--lengths", nargs="+", default=list(LENGTHS), choices=LENGTHS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    options = parser.parse_args()
    RUNS.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(SETTING.threads)
    for length in options.lengths:
        for seed in options.seeds:
            for start in options.starts:
                done = {(row["start"], row["length"], int(row["seed"])) for row in rows_of(RESULTS)}
                if (start, length, seed) not in done:
                    append_row(RESULTS, measure(start, length, seed))


def measure(start: str, length: str, seed: int) -> dict[str, object]:
    """Finetune one start for one length, and read the test part."""
    context = context_of(SETUP, seed)
    dense = context.run.dense
    started = time.process_time()
    model = begin(start, seed)
    start_seconds = time.process_time() - started
    finetune = FINETUNES[length.split()[1]]
    started = time.process_time()
    finetune(
        model, int(length.split()[0]), seed, f"repair-{start}-{length.replace(' ', '-')}-{seed}.training"
    )
    seconds = time.process_time() - started
    if dense.data.test is None:
        raise AssertionError("the data have no test part")
    return {
        "start": start,
        "length": length,
        "seed": seed,
        "val_accuracy": round(evaluate(model, dense.data.val, dense.task, SETTING), 4),
        "test_accuracy": round(evaluate(model, dense.data.test, dense.task, SETTING), 4),
        "start_seconds": round(start_seconds, 1),
        "finetune_seconds": round(seconds),
    }


def begin(start: str, seed: int) -> nn.Module:
    """Return the candidate as a start leaves it, before any training step."""
    criterion, mode = STARTS[start]
    context = context_of(SETUP, seed)
    dense, prunable = context.run.dense, context.run.prunable
    batches = images_of(dense)
    ranked: Importance = importance(prunable, criterion, batches, dense.task.loss, seed=seed)
    plan = plan_from_importance(prunable, uniform_widths(context.run), ranked)
    model = rebuild(prunable, plan)
    if mode is not None:
        source = moments(prunable, batches) if mode == "closed" else batches
        model = repair(prunable, plan, model, source, mode=mode)
    if mode != "sequential":
        calibrate(model, dense.data, CALIBRATION_BATCHES, SETTING, seed=seed)
    return model


def _by_epochs(model: nn.Module, epochs: int, seed: int, checkpoint: str) -> None:
    """Finetune as the verb does."""
    context = context_of(SETUP, seed)
    schedule = dataclasses.replace(schedule_of(context.run.spec.finetune), epochs=epochs)
    _fit(model, schedule, seed, copy.deepcopy(context.run.dense.model), RUNS / checkpoint)


def _by_steps(model: nn.Module, steps: int, seed: int, checkpoint: str) -> None:
    """Finetune as a rung does."""
    if steps:
        learning_rate = context_of(SETUP, seed).run.spec.rung_schedule.learning_rate
        schedule = Schedule(steps=steps, warmup=0.0, learning_rate=learning_rate)
        _fit(model, schedule, seed, None, RUNS / checkpoint)


def _fit(
    model: nn.Module, schedule: Schedule, seed: int, teacher: nn.Module | None, checkpoint: Path
) -> None:
    dense = context_of(SETUP, seed).run.dense
    fit(model, dense.data, schedule, SETTING, dense.task, seed=seed, teacher=teacher, checkpoint=checkpoint)


FINETUNES: dict[str, Callable[[nn.Module, int, int, str], None]] = {"epochs": _by_epochs, "steps": _by_steps}
"""{unit of a length: how to finetune for a number of them}."""


if __name__ == "__main__":
    main()
