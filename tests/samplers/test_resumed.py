"""Our own samplers after kill -9, on SQLite: a process that resumes proposes what an uninterrupted one would.

python -m tests.samplers.test_resumed sqlite:///s.db ddpg 20      # goes on; kills itself after 20 events
"""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from autoprune.engines import TrialEvent, TrialRunner, run_search
from autoprune.study import TrialRecord, open_study
from tests.engines.toy import make_toy, new_study, toy_space

ROOT = Path(__file__).parents[2]
TRIALS = 24
KILLS = 2


def search(url: str, sampler: str, events: float) -> int:
    """Go on with the study in a process of its own; return its exit code."""
    command = [sys.executable, "-m", "tests.samplers.test_resumed", url, sampler, str(events)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def records(url: str) -> list[TrialRecord]:
    return [dataclasses.replace(record, seconds=None) for record in open_study(url, "toy").records()]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["evolution", "ddpg", "policy_gradient", "importance", "kl"])
def test_killed_searches_end_with_the_trials_of_an_uninterrupted_one(sampler: str, tmp_path: Path) -> None:
    """A trial has three events or four: after its proposal, each rung and its end. Kills fall on any."""
    whole, killed = (f"sqlite:///{tmp_path}/{name}.db" for name in ("whole", "killed"))
    for url in (whole, killed):
        new_study(url)
    assert search(whole, sampler, float("inf")) == 0
    moments = random.Random(sampler)
    for _ in range(KILLS):
        assert search(killed, sampler, moments.randint(15, 30)) == -signal.SIGKILL
        states = [record.state for record in records(killed)]
        assert 0 < len(states) < TRIALS
        assert set(states[:-1]) <= {"complete", "pruned"}
    assert search(killed, sampler, float("inf")) == 0
    expected = records(whole)
    assert records(killed) == expected
    assert len(expected) == TRIALS
    assert len({tuple(record.widths.items()) for record in expected}) == TRIALS


def main(url: str, sampler: str, events: str) -> None:
    """Go on with the study until it has its trials, or kill -9 this very process after so many events."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    left = float(events)

    def count(event: TrialEvent) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    space = toy_space()
    statistic = {variable.name: float(i) for i, variable in enumerate(space.variables)}
    runner = TrialRunner(
        open_study(url, "toy"),
        space,
        sampler=sampler,
        trials=TRIALS,
        rungs=2,
        seed=5,
        statistics={"importance": statistic, "kl": statistic},
        on_event=count,
    )
    run_search("serial", runner, make_toy)


if __name__ == "__main__":
    main(*sys.argv[1:])
