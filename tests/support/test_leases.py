"""Leases tell processes apart, and a file is held by one living process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autoprune.errors import StudyError
from autoprune.support.leases import Lease, is_alive, locked, require_unlocked, this_process


def test_leases_tell_processes_apart() -> None:
    mine = this_process()
    assert is_alive(mine)
    assert is_alive(Lease.from_json(mine.to_json()))
    assert Lease.from_json(mine.to_json()) == mine == this_process()
    assert mine.claim != this_process().claim
    assert is_alive(Lease(mine.host, mine.pid, "another start")) is False
    assert is_alive(Lease("elsewhere", mine.pid, mine.started)) is None
    assert is_alive(Lease.from_json({"host": "x"})) is False
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    assert is_alive(Lease(mine.host, child.pid, mine.started)) is False


def test_a_held_file_is_refused_and_is_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "new" / "inner" / "flow.lock"
    message = r"inner: process \d+ on .* runs this flow\. Wait for it or end it"
    with locked(path, "flow"):
        with pytest.raises(StudyError, match=message), locked(path, "flow"):
            pass
        with pytest.raises(StudyError, match=message):
            require_unlocked(path, "flow")
        assert Lease.from_json(json.loads(path.read_text())) == this_process()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{}", "dead"])
def test_the_file_of_a_dead_process_is_taken_over(tmp_path: Path, content: str) -> None:
    path = tmp_path / "flow.lock"
    mine = this_process()
    dead = json.dumps(Lease(mine.host, mine.pid, "another start", "claim").to_json())
    path.write_text(dead if content == "dead" else content)
    with locked(path, "flow"):
        assert Lease.from_json(json.loads(path.read_text())) == mine
    assert not path.exists()


def test_an_interrupted_takeover_leaves_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "flow.lock"
    path.write_text(json.dumps(Lease(this_process().host, os.getpid(), "another start", "claim").to_json()))

    def interrupt(seconds: float) -> None:
        assert Lease.from_json(json.loads(path.read_text())) == this_process()
        raise KeyboardInterrupt

    monkeypatch.setattr("autoprune.support.leases.time.sleep", interrupt)
    with pytest.raises(KeyboardInterrupt), locked(path, "flow"):
        pass
    assert not path.exists()


def test_the_file_of_another_host_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "flow.lock"
    path.write_text(json.dumps(Lease("elsewhere", 7, "then").to_json()))
    message = "process 7 on elsewhere may still run this flow. If it is gone, remove .*flow.lock"
    with pytest.raises(StudyError, match=message), locked(path, "flow"):
        pass
    assert path.exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = r"flow.lock: cannot be written \(.*\)\. Choose another place"
    with pytest.raises(StudyError, match=message), locked(tmp_path / "file" / "flow.lock", "flow"):
        pass
