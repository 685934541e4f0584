"""Does a search under one budget help another one? Replay a Gaussian process on plans that were scored.

    python -m experiments.search_efficiency.priors [--trials 20 30] [--seeds 12]
    python -m experiments.search_efficiency.priors --table

The plans are all that the searches of curves/ have scored under one budget, of one seed. A search begins with
the warm starts and random plans, then proposes the plan of the highest expected improvement among them. With
a prior it models the difference to a linear model, in log widths, of the 60 trials of the sampler "gp" under
the other budget, of another seed. Appends a row to priors.csv for each pair of searches.
"""

from __future__ import annotations

import argparse

import numpy as np

from autoprune.support.arrays import FloatArray
from experiments.allocation.priors import RIDGE, expected_improvement
from experiments.allocation.replay import interval
from experiments.common import append_row, markdown_table, rows_of
from experiments.search_efficiency.setups import HERE

PAIRS = {"resnet20-12": "resnet20-25", "resnet20-25": "resnet20-12"}
"""{budget of the search: budget of the earlier one}."""

SEEDS = 3
"""Seeds of curves/ with all samplers."""

WARM_STARTS, RANDOM = 8, 4
"""Most warm starts, and random plans after them, by which the searches on the same plans differ."""

RESULTS = HERE / "priors.csv"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, nargs="+", default=[20, 30])
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--table", action="store_true", help="print the results so far")
    options = parser.parse_args()
    if options.table:
        print("\n".join(table()))
        return
    done = {(row["setup"], row["trials"], row["seed"]) for row in rows_of(RESULTS)}
    for trials in options.trials:
        for seed in range(options.seeds):
            for setup in PAIRS:
                if (setup, str(trials), str(seed)) not in done:
                    key = {"setup": setup, "trials": trials, "seed": seed}
                    append_row(RESULTS, {**key, **run(setup, trials, seed)})


def scored(setup: str, seed: int) -> list[dict[str, str]]:
    """Return the trials of all searches of a setup and seed."""
    return rows_of(HERE / "curves" / f"{setup}-{seed}.csv")


def log_widths(rows: list[dict[str, str]]) -> FloatArray:
    """Return the logarithms of widths [plans, groups]."""
    return np.asarray(np.log([[int(width) for width in row["widths"].split()] for row in rows]))


def run(setup: str, trials: int, seed: int) -> dict[str, object]:
    """Run a search without the prior and one with it, from the same first trials."""
    rows = list({row["widths"]: row for row in scored(setup, seed % SEEDS)}.values())
    earlier = [row for row in scored(PAIRS[setup], (seed + 1) % SEEDS) if row["method"] == "gp"]
    scores, logs = np.array([float(row["score"]) for row in rows]), log_widths(rows)
    low, high = logs.min(axis=0), logs.max(axis=0)
    features = (logs - low) / np.maximum(high - low, 1e-9)
    warm = [place for place, row in enumerate(rows) if row["origin"] != "sampler"][:WARM_STARTS]
    drawn = np.random.default_rng(seed).permutation(len(rows)).tolist()
    found: dict[str, object] = {}
    for name, prior in (("plain", np.zeros(len(rows))), ("study", predicted(logs, earlier))):
        seen = list(dict.fromkeys([*warm, *drawn[:RANDOM]]))
        while len(seen) < trials:
            gain = expected_improvement(features, seen, scores[seen], prior)
            gain[seen] = -np.inf
            seen.append(int(np.argmax(gain)))
        found[name] = round(float(scores[seen].max()), 6)
    return found


def predicted(logs: FloatArray, earlier: list[dict[str, str]]) -> FloatArray:
    """Return the prediction [n] of a linear model of earlier trials for log widths [n, groups]."""
    known, scores = log_widths(earlier), np.array([float(row["score"]) for row in earlier])
    middle = known.mean(axis=0)
    inputs = known - middle
    gram = inputs.T @ inputs + RIDGE * np.eye(inputs.shape[1])
    return np.asarray((logs - middle) @ np.linalg.solve(gram, inputs.T @ (scores - scores.mean())))


def table() -> list[str]:
    """Return the lines of a table of mean best scores, with paired differences."""
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for row in rows_of(RESULTS):
        pair = (100 * float(row["plain"]), 100 * float(row["study"]))
        found.setdefault((row["setup"], int(row["trials"])), []).append(pair)
    lines = []
    for (setup, trials), pairs in sorted(found.items()):
        plain, study = np.array(pairs).T
        means = [f"{each.mean():.2f}" for each in (plain, study)]
        lines.append([setup, str(trials), str(len(pairs)), *means, interval(study - plain)])
    head = ["budget", "trials", "seeds", "best score, no prior", "with the prior", "difference (95%)"]
    return markdown_table(head, lines)


if __name__ == "__main__":
    main()
