"""Claim: the default rungs and pruner find as good a candidate in the same seconds as any alternative.

48 candidates a setup climb recalibration, 25 steps and 75 steps to the top, none of them stopped: the
distinct warm starts of seed 0's curves, then trials of its random-300, by the rule of `correlation`. From
these rows `ladders` replays which candidates a bar at either rung would have stopped, and the best one by
then.

    python -m experiments.search_efficiency.rungs [--setups resnet20-25]

Each candidate is appended to rungs/SETUP.csv as it comes. The test part is not touched.
"""

from __future__ import annotations

import argparse

from experiments.common import append_row, rows_of
from experiments.search_efficiency.correlation import Choice, choose, climb
from experiments.search_efficiency.setups import HERE, SETUPS

CANDIDATES = 48
RUNGS = {"calibrate": "calibrate", "25 steps": "steps_25", "75 steps": "steps_25_75"}
"""The rungs, and the columns of their scores: finetunes add up."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--setups", nargs="+", default=list(SETUPS), choices=SETUPS)
    options = parser.parse_args()
    for setup in options.setups:
        path = HERE / "rungs" / f"{setup}.csv"
        path.parent.mkdir(exist_ok=True)
        chosen = choose(setup, CANDIDATES)
        for number in range(len(rows_of(path)), CANDIDATES):
            append_row(path, measure(setup, number, chosen[number]))


def measure(setup: str, number: int, choice: Choice) -> dict[str, object]:
    """Score a candidate on every rung."""
    rungs = climb(setup, number, choice, list(RUNGS))
    return {
        "candidate": number,
        "origin": choice.origin,
        "trial": choice.trial,
        **{RUNGS[rung.name]: f"{rung.score:.6f}" for rung in rungs},
        **{f"{RUNGS[rung.name]}_seconds": round(rung.seconds, 2) for rung in rungs},
        "widths": choice.widths,
    }


if __name__ == "__main__":
    main()
