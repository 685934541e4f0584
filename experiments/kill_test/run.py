"""Claim: a search killed with kill -9 at 20 random moments ends with the trials of an uninterrupted one.

    python -m experiments.kill_test.run [SAMPLER ...]

Two searches on digits with the same config. The second is killed and resumed until 20 kills are reached, then
resumed to its end. Each kill falls into another trial, as one that is killed twice has failed. Every trial's
ratios, widths, rung scores and value must be equal. Appends to results.csv.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from experiments.common import append_row, rows_of
from experiments.killing import content, records

KILLS = 20
TRIALS = {"tpe": 100, "random": 60, "gp": 60, "cmaes": 60, "nsga2": 60}
RESULTS = Path(__file__).with_name("results.csv")


def main() -> None:
    done = {row["sampler"] for row in rows_of(RESULTS)}
    for sampler in sys.argv[1:] or ["tpe"]:
        if sampler not in done:
            with tempfile.TemporaryDirectory() as folder:
                append_row(RESULTS, measure(sampler, Path(folder)))


def measure(sampler: str, folder: Path) -> dict[str, object]:
    arguments = [
        "search",
        "digits",
        *("--set", f"search.sampler={sampler}", "--set", f"search.trials={TRIALS[sampler]}"),
        *("--set", f"model.checkpoint={folder}/dense.safetensors"),
        # Each search measures the fastest setting for itself. On a noisy machine the two might differ.
        *("--set", "search.setting=float32 contiguous"),
    ]
    first = [*arguments, *names("whole", folder)]
    subprocess.run([sys.executable, "-m", "autoprune", *first], check=True, stdout=subprocess.DEVNULL)
    whole = records(url("whole", folder), "whole")
    rng = random.Random(0)
    command, kills, before = [*arguments, *names("killed", folder)], 0, 0
    while True:
        process = subprocess.Popen([sys.executable, "-m", "autoprune", *command], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + rng.uniform(3.0, 12.0)
        while process.poll() is None and (kills >= KILLS or time.monotonic() < deadline):
            time.sleep(0.005)
        while process.poll() is None and ended(folder) <= before:  # a trial that is killed twice has failed
            time.sleep(0.05)
        before = ended(folder)
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
        if (folder / "killed.db").exists() and has_study(folder):
            command = ["resume", "killed", "--storage", f"sqlite:///{folder}/killed.db"]
    if process.returncode != 0:
        raise AssertionError(f"the last resume ended with code {process.returncode}")
    killed = records(url("killed", folder), "killed")
    equal = sum(content(a) == content(b) for a, b in zip(whole, killed, strict=False))
    return {
        "sampler": sampler,
        "trials": len(whole),
        "trials_after_kills": len(killed),
        "kills": kills,
        "equal_trials": equal,
    }


def names(study: str, folder: Path) -> list[str]:
    return [
        *("--set", f"search.study={study}", "--set", f"search.storage=sqlite:///{folder}/{study}.db"),
        *("--set", f"output.folder={folder}/{study}"),
    ]


def ended(folder: Path) -> int:
    """Return how many trials of the killed search have ended."""
    if not (folder / "killed.db").exists() or not has_study(folder):
        return 0
    return sum(record.has_ended for record in records(url("killed", folder), "killed"))


def has_study(folder: Path) -> bool:
    try:
        records(url("killed", folder), "killed")
    except Exception:
        return False  # killed before the study was made: the search starts again
    return True


def url(study: str, folder: Path) -> str:
    return f"sqlite:///{folder}/{study}.db"


if __name__ == "__main__":
    main()
