"""Claim: every proposal lands in [0.98, 1.00] of the budget wherever any plan does.

1,000 random proposals per model, budget and divisor, with ratios uniform in [0.1, 1]:

    python -m experiments.budget_hit.run

`in_window` counts the proposals whose MACs lie in the window, `over` those above the budget. Where the
space itself says (by enumeration or exhaustive search) that no plan lies in the window, `reachable` is no.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from autoprune.errors import BudgetError
from autoprune.graph import Prunable
from autoprune.space import Budget, SpaceSpec, Tie, build_space
from autoprune.tracing import trace
from experiments.common import OWN, append_row, build, rows_of

MODELS = [
    *(f"autoprune/{name}" for name in OWN),
    *("mobilenet_v3_small", "mobilenet_v3_large", "resnet18", "resnet50", "mobilenet_v2", "densenet121"),
    *("efficientnet_b0", "regnet_y_400mf", "convnext_tiny", "googlenet"),
]
STAGES = (
    Tie("stage1", ("conv1", "layer1.*")),
    Tie("stage2", ("layer2.*",)),
    Tie("stage3", ("layer3.*",)),
)
TIED = {"autoprune/resnet20": STAGES, "autoprune/resnet56": STAGES}
"""Few ratios leave few plans: here a window may hold none, which enumeration shows."""

BUDGETS = (0.9, 0.5, 0.25)
DIVISORS = (1, 4, 8)
PROPOSALS = 1000
RESULTS = Path(__file__).with_name("results.csv")


def main() -> None:
    done = {(row["model"], row["tied"]) for row in rows_of(RESULTS)}
    cases: list[tuple[str, tuple[Tie, ...]]] = [*((name, ()) for name in MODELS), *TIED.items()]
    for name, ties in cases:
        tied = " + ".join(tie.name for tie in ties)
        if (name, tied) not in done:
            prunable = trace(*build(name))
            for budget in BUDGETS:
                for divisor in DIVISORS:
                    row = {"model": name, "tied": tied, **measure(prunable, budget, divisor, ties)}
                    append_row(RESULTS, row)


def measure(prunable: Prunable, share: float, divisor: int, ties: tuple[Tie, ...]) -> dict[str, object]:
    spec = SpaceSpec(divisor=divisor, ties=ties)
    limit = int(int(prunable.cost().macs) * share)
    head = {"budget": f"{share:.0%}", "divisor": divisor}
    try:
        space = build_space(prunable.groups, prunable.cost, Budget(macs=limit), spec)
    except BudgetError:
        nothing = dict.fromkeys(("variables", "in_window", "over", "distinct"), 0)
        return {**head, **nothing, "reachable": "no", "ms_each": 0}
    ratios = np.random.default_rng(0).uniform(0.1, 1.0, (PROPOSALS, len(space.variables)))
    start = time.perf_counter()
    widths = space.decode(ratios)
    seconds = time.perf_counter() - start
    macs = np.asarray(space.cost(widths).macs)
    again = space.decode(space.encode(widths))
    if not np.array_equal(again, widths):
        raise AssertionError(f"decode(encode(widths)) differs at budget {share}, divisor {divisor}")
    return {
        **head,
        "variables": len(space.variables),
        "in_window": int(((macs >= 0.98 * limit) & (macs <= limit)).sum()),
        "over": int((macs > limit).sum()),
        "distinct": len(np.unique(widths, axis=0)),
        "reachable": "yes" if space.reach().in_window else "no",
        "ms_each": round(seconds * 1000 / PROPOSALS, 3),
    }


if __name__ == "__main__":
    main()
