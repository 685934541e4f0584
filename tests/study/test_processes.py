"""The notes of the processes that work on a study."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from autoprune.study import ENDED, SearchStudy, at_work, open_study, processes
from autoprune.study._processes import PROCESS
from tests.engines.toy import new_study


@pytest.fixture
def study(tmp_path: Path) -> SearchStudy:
    return new_study(f"journal:///{tmp_path}/study.log")


def test_a_process_is_noted_with_its_phase_until_it_ends(study: SearchStudy) -> None:
    with at_work(study) as enter:
        assert [each.phase for each in processes(open_study(study.url, "toy"))] == ["preparation"]
        enter("race")
        (process,) = processes(study)
        assert (process.phase, process.is_alive) == ("race", True)
    (process,) = processes(study)
    assert process.phase == ENDED


def test_a_process_that_leaves_trials_to_others_has_not_ended_the_search(study: SearchStudy) -> None:
    with at_work(study):
        assert open_study(study.url, "toy").ask(1) is not None
    assert processes(study) == []


def test_a_process_that_was_interrupted_leaves_no_note(study: SearchStudy) -> None:
    with pytest.raises(KeyboardInterrupt), at_work(study):
        raise KeyboardInterrupt
    assert processes(study) == []


def test_a_search_that_begins_removes_the_notes_of_dead_and_ended_processes(study: SearchStudy) -> None:
    here = {"started": "boot:1", "since": 0.0}
    dead = {**here, "host": socket.gethostname(), "pid": 999_999_999, "phase": "trials"}
    study.store_note(f"{PROCESS}{dead['host']}:{dead['pid']}", dead)
    ended = {**here, "host": "elsewhere", "pid": 1, "phase": ENDED}
    study.store_note(f"{PROCESS}elsewhere:1", ended)
    unseen = {**here, "host": "elsewhere", "pid": 2, "phase": "trials"}
    study.store_note(f"{PROCESS}elsewhere:2", unseen)
    for damaged in (None, 3, {"host": "a"}, {**unseen, "since": "now"}):
        study.store_note(f"{PROCESS}damaged", damaged)
        assert len(processes(study)) == 3
    assert {each.is_alive for each in processes(study)} == {False, None}
    with at_work(study):
        assert {each.lease.pid for each in processes(study) if each.is_alive is not True} == {2}
