"""autoprune's samplers after kill -9, on SQLite: a resumed process makes the same proposals."""

from __future__ import annotations

import math
import random
import signal
from pathlib import Path

import pytest

from autoprune.study import TrialRecord, open_study
from tests.engines.toy import TRIALS, start
from tests.records import comparable

KILLS = 2


def search(url: str, sampler: str, events: float) -> int:
    """Go on with the study until it has its trials, or so many events have passed; return the exit code."""
    return start(url, sampler, "median", events=events).wait()


def records(url: str) -> list[TrialRecord]:
    return list(map(comparable, open_study(url, "toy").records()))


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["evolution", "ddpg", "policy_gradient", "importance", "kl"])
def test_killed_searches_end_with_the_trials_of_an_uninterrupted_one(sampler: str, tmp_path: Path) -> None:
    """A trial has three events or four: after its proposal, each rung and its end. Kills fall on any."""
    whole, killed = (f"sqlite:///{tmp_path}/{name}.db" for name in ("whole", "killed"))
    assert search(whole, sampler, math.inf) == 0
    moments = random.Random(sampler)
    for _ in range(KILLS):
        assert search(killed, sampler, moments.randint(15, 30)) == -signal.SIGKILL
        states = [record.state for record in records(killed)]
        assert 0 < len(states) < TRIALS
        assert set(states[:-1]) <= {"complete", "pruned"}
    assert search(killed, sampler, math.inf) == 0
    expected = records(whole)
    assert records(killed) == expected
    assert len(expected) == TRIALS
    assert len({tuple(record.widths.items()) for record in expected}) == TRIALS
