"""Claim: a candidate works before any training, once its layers are refitted by least squares.

    python -m experiments.repair.accuracy

For each net, budget and criterion the uniform plan is cut from the dense model. It is scored on the
validation part after BatchNorm recalibration alone, after a closed repair (with recalibration behind it) and
after a sequential one. Criteria, moments and repairs see 512 unlabelled training images (taylor reads their
labels). One thread, float32. A dense model without a checkpoint is trained first. Appends a row to
accuracy.csv as it comes, and goes on after those there.
"""

from __future__ import annotations

import copy
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from autoprune import run
from autoprune.config import load_config
from autoprune.criteria import Importance, importance, plan_from_importance
from autoprune.execution import Setting
from autoprune.rebuilding import rebuild
from autoprune.reconstruction import Moments, moments, repair
from autoprune.run import Dense
from autoprune.run._resolving.dense import load_dense
from autoprune.run._resolving.problem import Problem, build_problem, trace_dense
from autoprune.space import cut, uniform_gates
from autoprune.training import evaluate, recalibrate
from experiments.common import append_row, rows_of
from experiments.methods.pruned_rows import train_missing

NETS = {
    "resnet20": "experiments/search_efficiency/resnet20.toml",
    "mobilenet_v3_small": "experiments/search_efficiency/mobilenet.toml",
    "vgg16_bn_half": "experiments/methods/vgg16_bn_half.toml",
    "densenet40": "experiments/methods/densenet40.toml",
}
BUDGETS = ("50%", "25%", "12%")
CRITERIA = ("l1", "taylor", "lasso", "obs")
IMAGES = 512
CALIBRATION_BATCHES = 20
SETTING = Setting("cpu", "float32", False, 1)
RESULTS = Path(__file__).with_name("accuracy.csv")


def main() -> None:
    torch.set_num_threads(SETTING.threads)
    done = {(row["net"], row["flops"], row["criterion"]) for row in rows_of(RESULTS)}
    for net, file in NETS.items():
        for budget in BUDGETS:
            left = [criterion for criterion in CRITERIA if (net, budget, criterion) not in done]
            if not left:
                continue
            train_missing(load_config(file, ()))
            config = run.settle(load_config(file, (f"budget.flops={budget}",)))
            dense = load_dense(config)
            problem = build_problem(trace_dense(dense, config), config)
            batches = images_of(dense)
            started = time.process_time()
            measured = moments(problem.prunable, batches, images=IMAGES)
            moments_s = time.process_time() - started
            for criterion in left:
                started = time.process_time()
                ranked = importance(problem.prunable, criterion, batches, dense.task.loss)
                row = {"net": net, "flops": budget, "criterion": criterion, "moments_s": round(moments_s, 1)}
                row["criterion_s"] = round(time.process_time() - started, 1)
                append_row(RESULTS, {**row, **scores(dense, problem, ranked, measured, batches)})


def images_of(dense: Dense) -> list[tuple[Tensor, Tensor]]:
    """Return the first training batches of epoch 0 with at least IMAGES images. Only taylor reads labels."""
    batches, count = [], 0
    for inputs, targets in dense.data.train.batches(0, 0):
        batches.append((inputs.clone(), targets))
        count += len(inputs)
        if count >= IMAGES:
            break
    return batches


def scores(
    dense: Dense,
    problem: Problem,
    ranked: Importance,
    measured: Moments,
    batches: list[tuple[Tensor, Tensor]],
) -> dict[str, float]:
    """Score one uniform plan after each way of repair, with the processor seconds of each."""
    prunable = problem.prunable
    plan = plan_from_importance(prunable, uniform_widths(problem), ranked)
    found: dict[str, float] = {"recalibrated": score(dense, rebuild(prunable, plan), calibrated=True)}
    for mode, source in (("closed", measured), ("sequential", batches)):
        started = time.process_time()
        model = repair(prunable, plan, rebuild(prunable, plan), source, mode=mode)
        found[f"{mode}_s"] = round(time.process_time() - started, 2)
        found[mode] = score(dense, model, calibrated=False)
        found[f"{mode}_recalibrated"] = score(dense, model, calibrated=True)
    return found


def uniform_widths(problem: Problem) -> dict[str, int]:
    """Return the widths that one ratio for all gives under the budget."""
    ladder = problem.space.ladder
    levels = cut(ladder, uniform_gates(ladder.rows))
    widths = problem.space.decode(ladder.ratios(levels[None])[0]).reshape(-1)
    return dict(zip(problem.space.groups, map(int, widths), strict=True))


def score(dense: Dense, model: nn.Module, *, calibrated: bool) -> float:
    """Return the accuracy of a copy on the validation part, after a recalibration if requested."""
    model = copy.deepcopy(model)
    if calibrated:
        recalibrate(model, dense.data.train, CALIBRATION_BATCHES, SETTING, seed=0)
    return round(evaluate(model, dense.data.val, dense.task, SETTING), 4)


if __name__ == "__main__":
    main()
