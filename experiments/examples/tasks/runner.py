"""Run one example: train its dense model, search half of its MACs, finetune the best trial, and write a row.

run(make)        # the command line of every example: python -m experiments.examples.tasks.NAME [--tiny]
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

import autoprune
from autoprune.data import VisionData, first_batch, wrap_loaders
from autoprune.execution import Setting
from autoprune.latency import Ratio, time_interleaved
from autoprune.run._resolving.spec import RunSpec
from autoprune.support.atomic import replacing
from autoprune.support.structures import call_on
from autoprune.training import Schedule, fit
from autoprune.zoo import load_checkpoint
from experiments.common import append_row, rows_of

RESULTS = Path(__file__).with_name("results.csv")
SETTING = "float32 contiguous"
SEED = 0


@dataclass(frozen=True)
class Example:
    """One task.

    Attributes:
        name: of the row.
        net: the model in a few words.
        data: the data in a few words.
        metric: the metric in a few words.
        model: the untrained model.
        loaders: (train, val).
        task: the section [task], with functions in place of names.
        model_settings: the section [model].
        epochs: of the dense training and of the finetune.
        learning_rate: of both.
        optimizer: of both.
        train: trains the model in place, or None for the training of autoprune.
        sections: further sections of the config.
    """

    name: str
    net: str
    data: str
    metric: str
    model: nn.Module
    loaders: tuple[Any, Any]
    task: Mapping[str, Any]
    model_settings: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 8
    learning_rate: float = 1e-3
    optimizer: str = "adamw"
    train: Callable[[nn.Module, Any, int], None] | None = None
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """The scores of an example on its validation part, and the costs of the small model.

    Attributes:
        task: name of the example.
        net: the model.
        data: the data.
        metric: the metric. Higher is better.
        dense: score of the dense model.
        repaired: score of the best trial before any training.
        finetuned: its score after the finetune.
        macs_share: its share of the dense model's MACs, or of those of the part.
        latency_share: its time for one batch of the validation part as a share of the dense model's. Both
            whole models run in PyTorch, side by side.
        latency_low: lower end of the 95% interval of this share.
        latency_high: upper end of this interval.
        part: the part that was made smaller, or "whole".
        minutes: of the search and the finetune, without the dense training.
    """

    task: str
    net: str
    data: str
    metric: str
    dense: str
    repaired: str
    finetuned: str
    macs_share: str
    latency_share: str
    latency_low: str
    latency_high: str
    part: str
    minutes: str


def config_of(example: Example, *, tiny: bool) -> dict[str, dict[str, Any]]:
    """Return the config of the search."""
    sections: dict[str, dict[str, Any]] = {
        "model": dict(example.model_settings),
        "task": dict(example.task),
        "budget": {"macs": "50%"},
        "search": {
            "study": example.name,
            "trials": 2 if tiny else 8,
            "setting": SETTING,
            "warm_starts": ["uniform"],
            "seed": SEED,
        },
        "score": {
            "rungs": ["repair", "2 steps" if tiny else "20 steps"],
            "moment_images": 16 if tiny else 128,
            "calibration_batches": 1 if tiny else 8,
            "learning_rate": example.learning_rate,
        },
        "race": {"entrants": 1},
        "finetune": {
            "epochs": 1 if tiny else example.epochs,
            "learning_rate": example.learning_rate,
            "optimizer": example.optimizer,
            "teacher": "none",
        },
        "output": {"folder": f"runs/{example.name}", "formats": []},
    }
    for section, keys in example.sections.items():
        sections[section].update(keys)
    return sections


def train_dense(example: Example, config: Mapping[str, Any], *, tiny: bool) -> None:
    """Train the dense model in place, or load the weights of an earlier run."""
    path = Path("runs") / example.name / "dense.pth"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        load_checkpoint(example.model, path)
        return
    epochs = 1 if tiny else example.epochs
    if example.train is not None:
        example.train(example.model, example.loaders[0], epochs)
    else:
        spec = RunSpec.of(config)
        schedule = Schedule(epochs=epochs, learning_rate=example.learning_rate, optimizer=example.optimizer)
        data = wrap_loaders(example.loaders, prepare=spec.prepare)
        setting = Setting(threads=torch.get_num_threads())
        fit(example.model, data, schedule, setting, spec.loss_and_metric, seed=SEED)
    with replacing(path) as partial:
        torch.save(example.model.state_dict(), partial)


def measure(example: Example, *, tiny: bool) -> Row:
    """Run an example in the current folder. A run that was stopped goes on where it was."""
    config = config_of(example, tiny=tiny)
    train_dense(example, config, tiny=tiny)
    began = time.perf_counter()
    result = autoprune.search(example.model, example.loaders, config, if_exists="resume")
    tuned = result.finetune()
    minutes = (time.perf_counter() - began) / 60
    scores = result.best.scores
    latency = timed(
        example.model, tuned.model, wrap_loaders(example.loaders, prepare=RunSpec.of(config).prepare)
    )
    return Row(
        example.name,
        example.net,
        example.data,
        example.metric,
        f"{tuned.dense_val_score:.4f}",
        f"{scores[0].score:.4f}",
        f"{tuned.val_score:.4f}",
        f"{int(tuned.cost.macs) / int(tuned.dense_cost.macs):.4f}",
        f"{latency.ratio:.3f}",
        f"{latency.interval[0]:.3f}",
        f"{latency.interval[1]:.3f}",
        str(example.model_settings.get("target", "whole")),
        f"{minutes:.1f}",
    )


def timed(dense: nn.Module, small: nn.Module, data: VisionData) -> Ratio:
    """Return the time of one validation batch as a share of the dense model's."""
    inputs, _ = first_batch(data.val)

    def runner(model: nn.Module) -> Callable[[], float]:
        model = copy.deepcopy(model).eval()

        def milliseconds() -> float:
            began = time.perf_counter()
            with torch.inference_mode():
                call_on(model, inputs)
            return 1000 * (time.perf_counter() - began)

        return milliseconds

    return time_interleaved({"small": runner(small), "dense": runner(dense)}, baseline="dense").ratios[
        "small"
    ]


def run(make: Callable[[bool], Example]) -> None:
    """Run an example from the command line, and append its row to results.csv unless it has one."""
    parser = argparse.ArgumentParser(description=make.__doc__)
    parser.add_argument("--tiny", action="store_true", help="a few seconds, with a row that means nothing")
    parser.add_argument("--folder", type=Path, help="where runs/ is made, the current folder by default")
    parser.add_argument("--results", type=Path, help="the file of the row")
    given = parser.parse_args()
    torch.manual_seed(SEED)
    example = make(given.tiny)
    results = given.results or RESULTS
    if not given.tiny and example.name in {row["task"] for row in rows_of(results)}:
        print(f"{example.name} has its row in {results} already")
        return
    if given.folder is not None:
        os.chdir(given.folder)
    row = dataclasses.asdict(measure(example, tiny=given.tiny))
    if given.tiny and given.results is None:
        print(row)
    else:
        append_row(results.resolve(), row)
