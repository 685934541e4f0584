"""Claim: the proof holds on models whose running statistics and scales are spread as training spreads them.

    python -m experiments.coverage.trained [MODEL ...] [--fresh] [--plans N]

Appends a row a model to trained.csv as it comes, and skips the models that have one: a stopped run goes on.
It starts with the models that run.py measured fastest, and leaves out those on the meta device.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from autoprune.errors import suggest
from autoprune.rebuilding import rebuild, verify
from autoprune.rebuilding._proof import Proof
from autoprune.tracing import trace
from experiments.common import append_row, rows_of
from experiments.coverage import checks
from experiments.coverage.models import MODELS
from experiments.coverage.run import PLANS, RESULTS

TRAINED = Path(__file__).with_name("trained.csv")


@dataclass
class Row:
    """What is written of one model.

    Attributes:
        model: its name in MODELS.
        layers: how many have running statistics.
        right: proofs of random plans, every free group narrowed, whose verdict is not "wrong".
        kept_whole: the largest difference with the groups that cross a normalisation kept whole.
        difference: the largest difference with all narrowed.
        cpu_seconds: of the processor, tracing included.
        error: of the model that could not be measured.
    """

    model: str
    layers: int = 0
    right: str = ""
    kept_whole: str = ""
    difference: str = ""
    cpu_seconds: float = 0.0
    error: str = ""


def main() -> None:
    options = _options()
    if options.fresh:
        TRAINED.unlink(missing_ok=True)
    done = {row["model"] for row in rows_of(TRAINED)}
    for name in options.models or _fastest_first():
        if name not in done:
            append_row(TRAINED, asdict(measure(name, options.plans)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="default: all that hold data")
    parser.add_argument("--fresh", action="store_true", help="start over")
    parser.add_argument("--plans", type=int, default=PLANS, help="random plans a model")
    options = parser.parse_args()
    unknown = [name for name in options.models if name not in MODELS]
    if unknown:
        parser.error(f"{unknown[0]}: not in the table.{suggest(unknown[0], MODELS)} See models.py.")
    return options


def _fastest_first() -> list[str]:
    seconds = {row["model"]: float(row["cpu_seconds"]) for row in rows_of(RESULTS)}
    names = [name for name, entry in MODELS.items() if not entry.meta]
    return sorted(names, key=lambda name: seconds.get(name, 0.0))


def measure(name: str, plans: int = PLANS) -> Row:
    """Trace a model with trained-like statistics and prove random plans of it."""
    row = Row(name)
    start = time.process_time()
    torch.manual_seed(0)
    try:
        _fill(row, plans)
    except Exception as error:  # whatever a library raises as it makes a model is a row too
        row.error = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    row.cpu_seconds = round(time.process_time() - start, 1)
    return row


def _fill(row: Row, plans: int) -> None:
    entry = MODELS[row.model]
    model = entry.build()
    row.layers = checks.age(model, seed=0)
    prunable = trace(model, entry.inputs(1))
    proofs: list[Proof] = []
    for seed in range(plans):
        plan = checks.random_plan(prunable, seed, crossing=True)
        proofs.append(verify(prunable, plan, rebuild(prunable, plan), seed=seed))
    row.right = f"{sum(proof.right for proof in proofs)} of {plans}"
    row.kept_whole = f"{max(proof.kept_whole for proof in proofs):.1e}"
    row.difference = f"{max(proofs):.1e}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
