r"""FastNAS's candidates: the dense model as NVIDIA Model Optimizer prunes it to a setup's budget.

Model Optimizer needs its own environment, so the candidates are written to files, which `finetunes` reads:

    python -m venv modelopt
    modelopt/bin/pip install -e . nvidia-modelopt requests huggingface_hub transformers datasets \
        torchprofile==0.0.4
    modelopt/bin/python -m experiments.search_efficiency.fastnas [--setups resnet20-25] [--seeds 0 1 2]

Writes fastnas/SETUP-SEED.safetensors, the pruned model's weights, and .json: widths, shares, seconds. What is
there is not run again. Everything at Model Optimizer's defaults, but for the divisor of channels.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from autoprune.criteria import plan_from_importance
from autoprune.data import Loader, first_batches
from autoprune.rebuilding import rebuild
from autoprune.run._measuring.statistics import MeasurementContext
from autoprune.support.tensorfile import write_tensors
from autoprune.training import evaluate
from experiments.common import count_macs
from experiments.search_efficiency.setups import HERE, SETTING, context_of

DIVISOR = 4
"""Widths are multiples of it. Its own 32 leaves a net of 16 to 64 channels next to no choice."""

CALIBRATION_BATCHES = 50
"""Batches that BatchNorm is recalibrated on: as many as its queue holds. With fewer it does not."""

WINDOW = 0.98
"""Share of its budget that a candidate has to fill, by our count."""

ATTEMPTS = 7
"""Constraints tried, the budget itself first, then halving the way to where the window is met."""


@dataclass(frozen=True)
class Found:
    """A pruned model, its share of the dense MACs, the constraint that led to it, the search's seconds."""

    model: nn.Module
    share: float
    constraint: float
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    setups = ["resnet20-25", "resnet20-12"]
    parser.add_argument("--setups", nargs="+", default=setups, choices=setups)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    for seed in options.seeds:
        missing = [setup for setup in options.setups if not path_of(setup, seed).exists()]
        if missing:
            run(missing, seed)


def path_of(setup: str, seed: int) -> Path:
    """Return the file with the facts of a candidate. Its weights lie next to it."""
    return HERE / "fastnas" / f"{setup}-{seed}.json"


def read(setup: str, seed: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the facts of a candidate, and its weights."""
    path = path_of(setup, seed)
    return json.loads(path.read_text("utf-8")), load_file(path.with_suffix(".safetensors"))


def run(setups: list[str], seed: int) -> None:
    """Prune to the budgets of setups that share a dense model. They share its sensitivities, too."""
    context = context_of(setups[0], seed)
    calibration = first_batches(context.run.dense.data.train, CALIBRATION_BATCHES, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        sensitivities = Path(folder) / "sensitivities.pth"
        started = time.perf_counter()
        prune(context, 1.0, calibration, sensitivities)
        seconds = time.perf_counter() - started
        print(f"seed {seed}: sensitivities measured in {seconds:.0f} s", flush=True)
        for setup in setups:
            write(setup, seed, fill_budget(context_of(setup, seed), calibration, sensitivities), seconds)


def prune(
    context: MeasurementContext, constraint: float, calibration: Loader, sensitivities: Path
) -> nn.Module:
    """Prune a copy of the dense model to a share of the FLOPs, by Model Optimizer's own count.

    Args:
        context: dense model and data.
        constraint: share of the FLOPs that are left at most.
        calibration: batches of (inputs, targets).
        sensitivities: file that Model Optimizer keeps them in. Where it exists they are not measured again.
    """
    import modelopt.torch.prune as mtp  # type: ignore[import-not-found]  # in an environment of its own

    dense = context.run.dense

    def accuracy(model: nn.Module) -> float:
        model.eval()  # this is where Model Optimizer recalibrates BatchNorm
        return evaluate(model, dense.data.val, dense.task, SETTING)

    config = mtp.fastnas.FastNASConfig()
    config["nn.Conv2d"]["*"]["channel_divisor"] = DIVISOR
    for layer in ("nn.BatchNorm2d", "nn.Linear"):
        config[layer]["*"]["feature_divisor"] = DIVISOR
    model, _ = mtp.prune(
        model=copy.deepcopy(dense.model),
        mode=[("fastnas", config)],
        constraints={"flops": f"{100 * constraint:.4f}%"},
        dummy_input=dense.example_inputs,
        config={
            "data_loader": calibration,
            "score_func": accuracy,
            "checkpoint": str(sensitivities),
            "verbose": False,
        },
    )
    pruned: nn.Module = model
    return pruned.eval()


def fill_budget(context: MeasurementContext, calibration: Loader, sensitivities: Path) -> Found:
    """Find the constraint whose model has the most MACs within the budget, by our count.

    Model Optimizer also counts pooling, so that the same model has another share by its count.
    """
    whole = int(context.run.dense_cost.macs)
    share = context.run.budget.limits["macs"] / whole
    low, high = 0.9 * share, 1.1 * share
    best: Found | None = None
    for _ in range(ATTEMPTS):
        constraint = (low + high) / 2
        started = time.perf_counter()
        model = prune(context, constraint, calibration, sensitivities)
        seconds = time.perf_counter() - started
        left = count_macs(model, context.run.dense.example_inputs) / whole
        print(f"constraint {constraint:.2%}: {left:.2%} of the MACs", flush=True)
        if left > share:
            high = constraint
            continue
        low = constraint
        if best is None or left > best.share:
            best = Found(model, left, constraint, seconds)
        if left >= WINDOW * share:
            break
    if best is None:
        raise AssertionError(f"FastNAS left more than {share:.0%} of the MACs at every constraint")
    return best


def write(setup: str, seed: int, found: Found, sensitivity_seconds: float) -> None:
    """Write a candidate, after a proof that the model rebuilt at its widths gives the same outputs."""
    context = context_of(setup, seed)
    problem = context.run
    weights = {name: tensor.detach().contiguous() for name, tensor in found.model.state_dict().items()}
    widths = {group.name: len(weights[f"{group.name}.weight"]) for group in problem.prunable.searchable}
    small = rebuild(problem.prunable, plan_from_importance(problem.prunable, widths, context.ranked)).eval()
    small.load_state_dict(weights)
    inputs, _ = next(iter(context.run.dense.data.val))
    with torch.no_grad():
        torch.testing.assert_close(small(inputs), found.model(inputs))
    budget = problem.budget.limits["macs"] / int(problem.dense_cost.macs)
    facts = {
        "setup": setup,
        "seed": seed,
        "flops_share": round(found.share, 5),
        "budget_share": round(budget, 5),
        "in_window": found.share >= WINDOW * budget,
        "constraint": f"{100 * found.constraint:.4f}%",
        "channel_divisor": DIVISOR,
        "widths": widths,
        "sensitivity_seconds": round(sensitivity_seconds, 1),
        "seconds": round(sensitivity_seconds + found.seconds, 1),
        "modelopt": importlib.metadata.version("nvidia-modelopt"),
    }
    path = path_of(setup, seed)
    path.parent.mkdir(exist_ok=True)
    write_tensors(weights, path.with_suffix(".safetensors"))
    path.write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
