"""Claim: a search's resident memory does not grow from trial to trial.

    python -m experiments.memory.run

One serial search on digits of 300 tiny trials in this process. Resident memory is read after each. Writes
results.csv: a row every 30 trials.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from autoprune import run
from autoprune.config import load_config
from autoprune.run import TrialDone
from experiments.common import append_row

TRIALS = 300
RESULTS = Path(__file__).with_name("results.csv")


def main() -> None:
    RESULTS.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        config = load_config(
            "digits",
            [
                *(f"search.trials={TRIALS}", "search.sampler=random", 'score.rungs=["calibrate", "2 steps"]'),
                "race.entrants=1",
                *(f"search.storage=sqlite:///{folder}/memory.db", "train.epochs=2"),
                *(f"model.checkpoint={folder}/dense.safetensors", f"output.folder={folder}"),
            ],
        )
        run.search(config=config, watch=note)


def note(event: object) -> None:
    """Write a row every 30 trials."""
    if isinstance(event, TrialDone) and event.done % 30 == 0:
        append_row(RESULTS, {"trials": event.done, "resident_mib": round(resident_mib(), 1)})


def resident_mib() -> float:
    """Return this process's resident memory, from the kernel's own account."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) / 1024


if __name__ == "__main__":
    main()
