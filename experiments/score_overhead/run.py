"""Claim: a trial takes at most 1.05 times a bare training loop that does the same steps on the same model.

    python -m experiments.score_overhead.run

ResNet-20 on Fashion-MNIST at 25% of the FLOPs. A trial is the whole of it: propose, decode, rebuild,
recalibrate BatchNorm, evaluate, 100 steps, evaluate, store in SQLite. The bare loop gets the same rebuilt
model and does the same forward and backward passes in plain PyTorch. In turn, 12 pairs. Writes results.csv
and prints the medians.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from autoprune.criteria import importance, plan_from_importance
from autoprune.data import Batch, VisionData, endless, load
from autoprune.engines import TrialRunner
from autoprune.engines.serial import climb
from autoprune.execution import Setting
from autoprune.graph import Prunable
from autoprune.rebuilding import rebuild
from autoprune.score import FinetuneScore, Rung
from autoprune.space import Budget, build_space
from autoprune.study import StudyFacts, create_study
from autoprune.tracing import trace
from autoprune.training import Task, fastest_setting
from autoprune.zoo import load_checkpoint, make_model
from experiments.common import append_row

PAIRS = 12
STEPS = 100
CALIBRATION = 20
RESULTS = Path(__file__).with_name("results.csv")
CHECKPOINT = Path("experiments/fashion_mnist_resnet20/dense.safetensors")


def main() -> None:
    RESULTS.unlink(missing_ok=True)
    data = load("fashion-mnist")
    model = make_model("resnet20", 10, 1).eval()
    load_checkpoint(model, CHECKPOINT)
    prunable = trace(model, torch.zeros(1, 1, 28, 28))
    ranked = importance(prunable, "l1")
    setting = fastest_setting(model, next(iter(data.train)), Task()).setting
    rungs = (Rung("calibrate"), Rung(f"{STEPS} steps", steps=STEPS))
    scorer = FinetuneScore(prunable, ranked, data, Task(), setting, rungs, calibration_batches=CALIBRATION)
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        runner = make_runner(prunable, folder)
        for pair in range(PAIRS):
            widths, trial = run_trial(runner, scorer)
            small = rebuild(prunable, plan_from_importance(prunable, widths, ranked))
            start = time.perf_counter()
            bare_loop(small, data, setting)
            bare = time.perf_counter() - start
            ratios.append(trial / bare)
            append_row(
                RESULTS, {"pair": pair, "trial_seconds": round(trial, 3), "bare_seconds": round(bare, 3)}
            )
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    print(f"trial / bare loop: median {middle:.3f}, quartiles {low:.3f} to {high:.3f} ({setting.label})")


def make_runner(prunable: Prunable, folder: str) -> TrialRunner:
    space = build_space(prunable.groups, prunable.cost, Budget(macs=int(prunable.cost().macs) // 4))
    facts = StudyFacts(setting={}, ranking={}, dense_score=0.0)
    study = create_study(f"sqlite:///{folder}/overhead.db", "overhead", config={}, identity={}, facts=facts)
    return TrialRunner(study, space, sampler="tpe", pruner="none", trials=PAIRS, rungs=2)


def run_trial(runner: TrialRunner, scorer: FinetuneScore) -> tuple[Mapping[str, int], float]:
    start = time.perf_counter()
    job = runner.ask()
    if job is None:
        raise AssertionError("the study has all its trials")
    for rung in climb(scorer, job.widths, job.variant):
        if not runner.report(job, rung):
            break
    runner.finish(job)
    return job.widths, time.perf_counter() - start


def bare_loop(model: nn.Module, data: VisionData, setting: Setting) -> None:
    """Recalibrate, evaluate, train and evaluate as one would write it without autoprune."""
    model.to(memory_format=setting.memory_format)
    batches = endless(data.train, 0)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad(), setting.autocast():
        for inputs, _ in itertools.islice(endless(data.train, 0), CALIBRATION):
            model(inputs.to(memory_format=setting.memory_format))
    for norm in norms:
        norm.momentum = 0.1
    validate(model, data.val, setting)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9, nesterov=True, weight_decay=5e-4)
    for inputs, targets in itertools.islice(batches, STEPS):
        optimizer.zero_grad()
        with setting.autocast():
            logits = model(inputs.to(memory_format=setting.memory_format))
            loss = functional.cross_entropy(logits, targets)
        torch.autograd.backward(loss)
        optimizer.step()
    validate(model, data.val, setting)


def validate(model: nn.Module, part: Iterable[Batch], setting: Setting) -> float:
    model.eval()
    right = total = 0
    with torch.inference_mode(), setting.autocast():
        for inputs, targets in part:
            right += int((model(inputs.to(memory_format=setting.memory_format)).argmax(1) == targets).sum())
            total += len(targets)
    return right / total


if __name__ == "__main__":
    main()
