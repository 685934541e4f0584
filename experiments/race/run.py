"""Claim: after a cool-down, scores at the end of a race's stage rank candidates better than without.

    python -m experiments.race.run
    python -m experiments.race.run --summarise

Random candidates of the digits net at 5% of the FLOPs are trained by the schedule of [finetune], 15 epochs.
After epochs 1 and 4, at which the stages of a race end, each is scored as it is and after a cool-down. These
scores, and those of the search's rungs, are compared with the accuracy at the end: the mean over validation
and test part, 646 images. Rows are appended to results.csv as they come, and known ones are skipped.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from scipy.stats import kendalltau, rankdata

from autoprune import run
from autoprune.config import load_config
from autoprune.run._checks.stored_run import open_run
from autoprune.run._resolving.resolve import resolve_stored
from autoprune.run._trials.cut_trial import cut_trial
from autoprune.run._trials.retraining import cool_down, retrain, training_state
from autoprune.training import evaluate
from experiments.common import append_row, rows_of

RESULTS = Path(__file__).with_name("results.csv")
SEEDS, TRIALS, ENDS = (0, 1), 16, (1, 4)
PREDICTORS = ("rung", "epoch 1", "cooled 1", "epoch 4", "cooled 4")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--summarise", action="store_true")
    if not parser.parse_args().summarise:
        for seed in SEEDS:
            with tempfile.TemporaryDirectory() as folder:
                train(seed, folder)
    summarise()


def train(seed: int, folder: str) -> None:
    """Train the candidates of one search."""
    storage = f"sqlite:///{folder}/study.db"
    overrides = ["budget.flops=5%", f"search.trials={TRIALS}", "search.sampler=random", "search.pruner=none"]
    overrides += [f"search.seed={seed}", "search.setting=float32 contiguous", "race.entrants=1"]
    overrides += [f"model.checkpoint={folder}/dense.safetensors", f"search.storage={storage}"]
    run.search(config=load_config("digits", [*overrides, f"output.folder={folder}"]))
    done = {row["trial"] for row in rows_of(RESULTS) if row["seed"] == str(seed)}
    with open_run("digits", storage) as stored:
        resolved = resolve_stored(stored.study, stored.running, None, lambda event: None)
        spec, dense, setting = resolved.spec, resolved.dense, resolved.setting
        for record in stored.study.finished():
            if str(record.number) in done or record.reused is not None:
                continue
            row = {"seed": seed, "trial": record.number, "origin": record.origin, "rung": record.score}
            for end in (*ENDS, None):
                small = cut_trial(resolved, stored.study, record).small
                state = training_state(spec, record.candidate)
                trained = retrain(small, dense, spec, setting, state=state, until=end)
                if end is None:
                    assert dense.data.test is not None
                    row["val"] = trained.score
                    row["test"] = evaluate(small, dense.data.test, dense.task, setting)
                else:
                    row[f"epoch {end}"] = trained.score
                    best = max(each.score for each in trained.records)
                    cooled = cool_down(small, dense, spec, setting, after=end, best_score=best)
                    row[f"cooled {end}"] = cooled.score
            append_row(RESULTS, row)


def summarise() -> None:
    """Print Kendall's tau of each score with the accuracy at the end, for each seed."""
    print("| seed | candidates | " + " | ".join([*PREDICTORS, "mean rank"]) + " |")
    for seed in SEEDS:
        rows = [row for row in rows_of(RESULTS) if row["seed"] == str(seed)]
        final = [(287 * float(row["val"]) + 359 * float(row["test"])) / 646 for row in rows]
        columns = {name: [float(row[name]) for row in rows] for name in PREDICTORS}
        ranks = [rankdata(columns[name]) for name in ("rung", "cooled 1", "cooled 4")]
        columns["mean rank"] = [float(sum(each)) for each in zip(*ranks, strict=True)]
        taus = [kendalltau(column, final).statistic for column in columns.values()]
        print(f"| {seed} | {len(rows)} | " + " | ".join(f"{tau:.2f}" for tau in taus) + " |")


if __name__ == "__main__":
    main()
