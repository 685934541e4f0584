"""Interleaved timing on machines of known speed: common load cancels out, and times of operators add up."""

from __future__ import annotations

import numpy as np
import pytest

from autoprune.latency.table._interleaved import Reference, RelativeTimes, faster_half, undisturbed_rounds
from autoprune.latency.table._profiles import Profile, ReadyCandidate
from autoprune.latency.timing import Timed


class Machine:
    """Runs models whose pass takes a known time at full speed.

    Args:
        slow_of: of so many milliseconds by its own clock the second half runs at a third of the speed.
    """

    def __init__(self, slow_of: float = float("inf")) -> None:
        self.clock = 0.0
        self.slow_of = slow_of
        self.factor = 1.0

    def runs(self, milliseconds: float) -> Timed:
        def run() -> float:
            slow = self.clock % self.slow_of > self.slow_of / 2
            taken = milliseconds * self.factor * (3.0 if slow else 1.0)
            self.clock += taken
            return taken

        return run


def test_a_candidate_is_a_ratio_to_the_reference() -> None:
    machine = Machine()
    reference = Reference(ReadyCandidate(machine.runs(2.0)))
    assert reference.time(ReadyCandidate(machine.runs(3.0))).whole == pytest.approx(1.5)
    assert not reference.time(ReadyCandidate(machine.runs(3.0))).has_operators


def test_a_machine_that_slows_down_between_candidates_changes_nothing() -> None:
    machine = Machine()
    reference = Reference(ReadyCandidate(machine.runs(2.0)))
    before = reference.time(ReadyCandidate(machine.runs(3.0))).whole
    machine.factor = 4.0
    assert reference.time(ReadyCandidate(machine.runs(3.0))).whole == pytest.approx(before)


def test_a_machine_that_is_slow_by_turns_changes_little() -> None:
    """Turns of the machine that are longer than a slice of 50 passes, and shorter than all slices."""
    machine = Machine(slow_of=1000.0)
    reference = Reference(ReadyCandidate(machine.runs(2.0)))
    assert reference.time(ReadyCandidate(machine.runs(3.0))).whole == pytest.approx(1.5, rel=0.03)


def profiled(machine: Machine, operators: list[float]) -> ReadyCandidate:
    """Return a candidate whose first pass after another model's is ten times as slow in all operators."""
    rows: list[list[float]] = []
    ended_at = [0.0]
    whole = machine.runs(sum(operators))

    def run() -> float:
        cold = 10.0 if machine.clock != ended_at[0] else 1.0
        rows.append([cold * operator for operator in operators])
        taken = whole()
        ended_at[0] = machine.clock
        return taken

    return ReadyCandidate(run, run, lambda: Profile(np.array(rows), np.array([2, 1, 1])))


def test_operators_are_profiled_without_the_passes_that_warm_up() -> None:
    machine = Machine()
    reference = Reference(ReadyCandidate(machine.runs(2.0)))
    times = reference.time(profiled(machine, [1.0, 0.5, 0.1]))
    assert times.has_operators
    np.testing.assert_allclose(times.operators, [0.5, 0.25, 0.05])
    np.testing.assert_array_equal(times.events, [2, 1, 1])
    assert times.whole == pytest.approx(0.8)


def test_passes_that_were_disturbed_do_not_count() -> None:
    passes = np.array([[1.0, 4.0], [1.2, 2.0], [9.0, 50.0], [70.0, 3.0]])
    np.testing.assert_allclose(faster_half(passes), [1.1, 2.5])
    np.testing.assert_allclose(faster_half(passes[:3]), [1.1, 3.0])


def test_of_a_candidates_rounds_those_count_in_which_both_ran_fast() -> None:
    rounds = [
        RelativeTimes(0.50, 10.0),
        RelativeTimes(0.56, 12.0),
        RelativeTimes(0.49, 10.5),
        RelativeTimes(0.51, 10.1),
        RelativeTimes(0.6, 11.0),
    ]
    assert undisturbed_rounds(rounds) == [rounds[0], rounds[2], rounds[3]]
    assert undisturbed_rounds(rounds[:1]) == rounds[:1]
