"""Claim: with the rung "repair" a search finds the same score in a third of the seconds.

    python -m experiments.repair.searches [--setups resnet20-12] [--ladders calibrate repair] [--seeds 0 1 2]
    python -m experiments.repair.searches --finetune
    python -m experiments.repair.searches --table

Whole searches of 60 trials on Fashion-MNIST (`experiments.search_efficiency.setups`) with the defaults,
except for `score.rungs`. One thread. Each trial is appended to searches.csv as it ends: its last score, and
the processor seconds since the start of the search. A search that was cut off continues with its open trial.
`--finetune` then trains each winner for 8 epochs from the weights that its search would start from, reads the
test part once, and appends the scores to winners.csv.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from autoprune import run
from autoprune.run import Event, TrialDone
from autoprune.run._resolving.spec import RunSpec
from autoprune.study import open_study
from experiments.common import append_row, markdown_table, rows_of
from experiments.search_efficiency.setups import RUNS, SETTING, SETUPS, config_of

RESULTS = Path(__file__).with_name("searches.csv")
WINNERS = Path(__file__).with_name("winners.csv")

RANDOM = ("search.sampler=random", "search.trials=300", "search.warm_starts=[]")
LADDERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "calibrate": (("calibrate", "25 steps", "75 steps"), ()),
    "repair": (("repair", "25 steps", "75 steps"), ()),
    "repair alone": (("repair",), ()),
    "repair, 100 steps": (("repair", "100 steps"), ()),
    "repair, 300 random": (("repair", "25 steps", "75 steps"), RANDOM),
}
"""{name: (score.rungs, other overrides)}."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--setups", nargs="+", default=["resnet20-12", "resnet20-25"], choices=SETUPS)
    parser.add_argument("--ladders", nargs="+", default=["calibrate", "repair"], choices=LADDERS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--finetune", action="store_true", help="train the winners for 8 epochs")
    parser.add_argument("--table", action="store_true", help="print the table of the results so far")
    options = parser.parse_args()
    if options.table:
        print("\n".join(table()))
        return
    torch.set_num_threads(SETTING.threads)
    RUNS.mkdir(parents=True, exist_ok=True)
    for setup in options.setups:
        for seed in options.seeds:
            for ladder in options.ladders:
                search(setup, ladder, seed)
                if options.finetune:
                    finetune(setup, ladder, seed)


def config_for(setup: str, ladder: str, seed: int) -> RunSpec:
    """Return the config of one search."""
    rungs, overrides = LADDERS[ladder]
    name = f"repair-{setup}-{ladder.replace(', ', '-').replace(' ', '-')}-{seed}"
    return config_of(
        setup,
        seed,
        f"score.rungs={list(rungs)}",
        f"search.setting={SETTING.dtype} channels_last",
        f"search.study={name}",
        f"search.storage=sqlite:///{RUNS}/{name}.db",
        f"output.folder={RUNS}/{name}",
        *overrides,
    )


def search(setup: str, ladder: str, seed: int) -> None:
    """Run a search, or the rest of one, and append its trials."""
    config = config_for(setup, ladder, seed)
    key = {"setup": setup, "ladder": ladder, "seed": seed}
    before = [row for row in rows_of(RESULTS) if all(row[name] == str(value) for name, value in key.items())]
    spent = max((float(row["seconds"]) for row in before), default=0.0)
    started = time.process_time()

    def record(event: Event) -> None:
        if isinstance(event, TrialDone):
            append_row(
                RESULTS,
                {
                    **key,
                    "trial": event.number,
                    "outcome": event.outcome,
                    "score": "" if event.score is None else f"{event.score:.6f}",
                    "seconds": round(spent + time.process_time() - started, 1),
                },
            )

    if not run.study_exists(config):
        run.search(config=config, watch=record)
    elif len(before) < config.search.trials:
        run.resume(str(config.search.study), str(config.search.storage), watch=record)


def finetune(setup: str, ladder: str, seed: int) -> None:
    """Train the winner of a search fully, and append its scores."""
    key = {"setup": setup, "ladder": ladder, "seed": seed}
    if any(all(row[name] == str(value) for name, value in key.items()) for row in rows_of(WINNERS)):
        return
    config = config_for(setup, ladder, seed)
    started = time.process_time()
    tuned = run.finetune(str(config.search.study), str(config.search.storage))
    if tuned.test_score is None:
        raise AssertionError(f"{setup}: the data have no test part")
    record = open_study(str(config.search.storage), str(config.search.study)).records()[tuned.trial]
    append_row(
        WINNERS,
        {
            **key,
            "trial": tuned.trial,
            "origin": record.origin,
            "val_accuracy": f"{tuned.val_score:.4f}",
            "test_accuracy": f"{tuned.test_score:.4f}",
            "finetune_seconds": round(time.process_time() - started),
            "widths": " ".join(str(width) for width in record.widths.values()),
        },
    )


def table() -> list[str]:
    """Return the lines of a table: a row per search, and when it reached the best score of "calibrate"."""
    found: dict[tuple[str, int], dict[str, list[tuple[float, float]]]] = {}
    for row in rows_of(RESULTS):
        if row["outcome"] == "complete":
            curves = found.setdefault((row["setup"], int(row["seed"])), {})
            curves.setdefault(row["ladder"], []).append((float(row["seconds"]), float(row["score"])))
    winners = {(row["setup"], int(row["seed"]), row["ladder"]): row for row in rows_of(WINNERS)}
    lines = []
    for (setup, seed), curves in found.items():
        today = curves.get("calibrate", [])
        best, whole = (
            max((score for _, score in today), default=np.nan),
            max(t for t, _ in today or [(np.nan, 0)]),
        )
        for ladder, curve in curves.items():
            reached = [seconds for seconds, score in curve if score >= best]
            share = f"{reached[0] / whole:.2f}" if reached else "never"
            winner = winners.get((setup, seed, ladder))
            lines.append(
                [
                    setup,
                    str(seed),
                    ladder,
                    f"{curve[-1][0]:.0f}",
                    f"{100 * max(score for _, score in curve):.2f}",
                    share,
                    "" if winner is None else f"{100 * float(winner['test_accuracy']):.2f}",
                ]
            )
    head = [
        "setup",
        "seed",
        "rungs",
        "seconds",
        "best top score",
        'share of "calibrate"\'s',
        "test, 8 epochs",
    ]
    return markdown_table(head, lines)


if __name__ == "__main__":
    main()
