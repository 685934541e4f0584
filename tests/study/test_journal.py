"""Journals after a full disk or a kill: nothing that was stored is lost, and a search goes on with them."""

from __future__ import annotations

import os
from pathlib import Path

import optuna
import pytest

from autoprune.errors import StudyError
from autoprune.study import _journal as journal
from autoprune.study import open_study
from autoprune.study._journal import Journal
from tests.conftest import FullDisk
from tests.engines.toy import new_study

TORN = [
    b'{"op_code":',
    b'{"op_code":5,"worker_id":"a"',
    b"\x00" * 40 + b"\n",
    b"\x00" * 70_000,
    b'{"op_co\x00\x00',
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study.log"


@pytest.fixture
def url(path: Path) -> str:
    return f"journal:///{path}"


@pytest.mark.parametrize("tail", TORN, ids=range(len(TORN)))
def test_a_torn_line_is_cut_off_before_the_next_is_written(path: Path, url: str, tail: bytes) -> None:
    new_study(url).store_note("first", 1)
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    study = open_study(url, "toy")
    assert study.note("first") == 1
    assert path.read_bytes() == whole + tail  # a reader changes nothing
    study.store_note("second", 2)
    assert path.read_bytes().startswith(whole + b'{"op_code"')
    again = open_study(url, "toy")
    assert (again.note("first"), again.note("second")) == (1, 2)


def test_a_whole_line_that_lacks_its_end_alone_is_kept(path: Path, url: str) -> None:
    new_study(url).store_note("first", 1)
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    open_study(url, "toy").store_note("second", 2)
    again = open_study(url, "toy")
    assert (again.note("first"), again.note("second")) == (1, 2)


@pytest.mark.parametrize("text", [b"a poem", b"a poem\n", b"a poem\nof two lines\n", b"[1]\n", b'{"a": 1}'])
def test_a_file_of_another_kind_is_refused_and_left_alone(path: Path, url: str, text: bytes) -> None:
    path.write_bytes(text)
    for use in (new_study, lambda url: open_study(url, "toy")):
        with pytest.raises(StudyError, match=r"study\.log: not a journal of Optuna's"):
            use(url)
    assert path.read_bytes() == text


def test_another_process_that_had_opened_the_torn_journal_goes_on(path: Path, url: str) -> None:
    mine = new_study(url)
    path.write_bytes(path.read_bytes() + TORN[0])
    other = open_study(url, "toy")
    mine.store_note("mine", 1)
    other.store_note("other", 2)
    assert (mine.note("other"), other.note("mine")) == (2, 1)


def test_a_full_disk_takes_nothing_away(path: Path, url: str, full_disk: FullDisk) -> None:
    study = new_study(url)
    before = path.read_bytes()
    with full_disk(len(before) + 20), pytest.raises(StudyError, match=r"the disk is full\. Make room"):
        study.store_note("first", 1)
    assert path.read_bytes() == before
    study.store_note("first", 1)
    assert open_study(url, "toy").note("first") == 1


@pytest.mark.parametrize("line", [b"no JSON\n", b'{"op_code": 4, "wo\n', b"[" * 100_000 + b"\n", b"[1, 2]\n"])
def test_a_broken_line_within_is_named(path: Path, url: str, line: bytes) -> None:
    new_study(url).store_note("first", 1)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], line, *lines[1:]]))
    with pytest.raises(StudyError, match=r"a damaged one: line 2 is no operation\. Restore") as caught:
        open_study(url, "toy")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", ["study.log", "elsewhere/study.log"])
def test_the_lock_of_a_dead_process_is_taken_over(
    path: Path, url: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that leads nowhere was made of a relative path: Optuna's own lock waits for its end for ever."""
    study = new_study(url)
    monkeypatch.setattr(journal, "LOCK_GRACE_S", 0.2)
    os.symlink(target, f"{path}.lock")
    study.store_note("first", 1)
    assert open_study(url, "toy").note("first") == 1
    assert sorted(path.parent.iterdir()) == [path]


def test_a_relative_path_leads_to_the_same_file_from_another_folder(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.touch()
    monkeypatch.chdir(path.parent)
    opened = Journal(Path(path.name), "journal:///study.log")
    monkeypatch.chdir("/")
    opened.append_logs([{"op_code": 0}])
    assert list(opened.read_logs(0)) == [{"op_code": 0}]


def test_optunas_own_journal_reads_ours(path: Path, url: str) -> None:
    new_study(url).store_note("first", 1)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    assert optuna.load_study(study_name="toy", storage=storage).user_attrs["first"] == 1
