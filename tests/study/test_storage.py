"""Storages that are not ours, or no storage at all: refused before anything is written, in one line."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from autoprune.errors import StudyError
from autoprune.run._resolving.paths import absolute_storage, find_storage
from autoprune.study import SearchStudy, create_study, open_study, study_state
from autoprune.study._storage import is_vacant
from autoprune.study._storage_errors import storage_errors
from autoprune.study._storage_url import connect_options
from tests.engines.toy import FACTS, IDENTITY, new_study
from tests.support.test_files import SPECIAL


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as file:
        for statement in statements:
            file.execute(statement)
        file.commit()


def optunas(path: Path, *statements: str) -> None:
    optuna.create_study(storage=f"sqlite:///{path}", study_name="theirs", direction="minimize")
    execute(path, *statements)


FOREIGN: dict[str, tuple[Callable[[Path], None], str]] = {
    "a table": (lambda path: execute(path, "CREATE TABLE photos (a)"), r"another program \(table photos\)"),
    "in WAL mode": (
        lambda path: execute(path, "PRAGMA journal_mode=WAL", "CREATE TABLE photos (a)"),
        r"another program \(table photos\)",
    ),
    "a table of Optuna's name": (
        lambda path: execute(path, "CREATE TABLE studies (title)"),
        r"another program \(table studies\)",
    ),
    "alembic's": (
        lambda path: execute(
            path, "CREATE TABLE alembic_version (version_num)", "INSERT INTO alembic_version VALUES ('a1')"
        ),
        r"another program \(table alembic_version\)",
    ),
    "an earlier Optuna's": (
        lambda path: optunas(path, "UPDATE alembic_version SET version_num = 'v2.6.0.a'"),
        r"another version of Optuna \(got v2\.6\.0\.a, expected .*optuna storage upgrade",
    ),
    "a later Optuna's": (
        lambda path: optunas(path, "UPDATE alembic_version SET version_num = 'v9.0.0.a'"),
        r"another version of Optuna \(got v9\.0\.0\.a",
    ),
}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_database_of_others_is_refused_before_anything_is_written(kind: str, tmp_path: Path) -> None:
    make, message = FOREIGN[kind]
    make(tmp_path / "study.db")
    before = contents(tmp_path)
    url = f"sqlite:///{tmp_path}/study.db"
    for use in (new_study, lambda url: open_study(url, "toy"), lambda url: study_state(url, "toy")):
        with pytest.raises(StudyError, match=message) as caught:
            use(url)
        assert "\n" not in str(caught.value)
        assert contents(tmp_path) == before


def test_a_study_next_to_those_of_another_tool_leaves_them_unchanged(tmp_path: Path) -> None:
    path, url = tmp_path / "study.db", f"sqlite:///{tmp_path}/study.db"
    optunas(path)
    before = contents(tmp_path)
    assert study_state(url, "toy") == "none"
    assert study_state(url, "theirs") == "none"  # it holds nothing
    with pytest.raises(StudyError, match="toy: no such study"):
        open_study(url, "toy")
    assert contents(tmp_path) == before
    new_study(url)
    theirs = optuna.load_study(storage=url, study_name="theirs")
    assert (theirs.user_attrs, theirs.direction.name) == ({}, "MINIMIZE")
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert file.execute("SELECT count(*) FROM version_info").fetchone() == (1,)


def test_looking_at_a_study_leaves_its_file_as_it_is(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    new_study(url).optuna._storage.remove_session()
    before = contents(tmp_path)["study.db"]
    assert study_state(url, "toy") == "ours"
    assert open_study(url, "toy").identity == IDENTITY
    assert contents(tmp_path)["study.db"] == before


def test_tables_that_a_killed_process_left_unfinished_are_finished(tmp_path: Path) -> None:
    path, url = tmp_path / "study.db", f"sqlite:///{tmp_path}/study.db"
    optunas(path, "DROP TABLE alembic_version", "DROP TABLE version_info", "DROP TABLE trial_heartbeats")
    execute(path, "DELETE FROM studies", "DELETE FROM study_directions")
    assert study_state(url, "toy") == "none"
    with pytest.raises(StudyError, match="it holds no study"):
        open_study(url, "toy")
    assert new_study(url).identity == IDENTITY
    assert open_study(url, "toy").identity == IDENTITY


def test_an_empty_file_is_taken_for_a_new_storage(tmp_path: Path) -> None:
    (tmp_path / "study.db").touch()
    url = f"sqlite:///{tmp_path}/study.db"
    assert study_state(url, "toy") == "none"
    assert new_study(url).identity == IDENTITY


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("scheme", ["sqlite", "journal"])
def test_a_storage_that_is_no_file_is_refused_at_once(
    kind: str, scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, message = SPECIAL[kind]
    make(Path("study.db"))
    url = f"{scheme}:///{tmp_path}/study.db"
    for use in (new_study, lambda url: open_study(url, "toy"), lambda url: study_state(url, "toy")):
        with pytest.raises(StudyError, match=rf"study\.db: the storage cannot be used \({message}\)"):
            use(url)
    assert [path.name for path in tmp_path.iterdir()] == ["study.db"]


@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
def test_a_search_for_a_study_skips_entries_that_are_no_files(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    SPECIAL[kind][0](Path("runs/a.db"))
    new_study(f"sqlite:///{tmp_path}/runs/b.db")
    assert find_storage("toy") == f"sqlite:////{str(tmp_path)[1:]}/runs/b.db"


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("journal:", "not a URL. Write it as journal:///runs/study.log, or give a path"),
        ("journal:a.log", "not a URL. Write it as journal:///"),
        ("sqlite:/a.db", "not a URL. Write it as sqlite://"),
        ("postgresql+psycopg:user:secret@host", "not a URL. Write it as postgresql"),
    ],
)
def test_a_scheme_without_its_slashes_is_no_file(storage: str, message: str) -> None:
    with pytest.raises(StudyError, match=message) as caught:
        absolute_storage(storage)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+psycopg://[::1]:1/x", "postgresql+psycopg://[::1]:1/x"),
        ("postgresql+psycopg://user:secret@[::1]:1/x", "postgresql+psycopg://user:***@[::1]:1/x"),
        ("postgresql+psycopg://[::1]:1/x?password=secret", "postgresql+psycopg://[::1]:1/x?password=***"),
        ("postgresql+psycopg://[::1/x", "postgresql+psycopg://[::1/x"),
        ("postgresql+psycopg://user:secret@[::1]:port/x", "postgresql+psycopg://user:***@[::1]:port/x"),
    ],
)
def test_urls_in_ipv6_get_one_line_without_the_password(url: str, shown: str) -> None:
    assert absolute_storage(url) == url
    for use in (new_study, lambda url: open_study(url, "toy"), lambda url: study_state(url, "toy")):
        with pytest.raises(StudyError, match=r"cannot be used|not a URL|driver") as caught:
            use(url)
        assert str(caught.value).startswith(f"{shown}: ")
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_driver_that_is_not_installed_is_missed_before_a_file_is_made(tmp_path: Path) -> None:
    for make in (new_study, lambda url: open_study(url, "toy")):
        with pytest.raises(StudyError, match="no driver for this kind of storage is installed"):
            make(f"sqlite+nonsense:///{tmp_path}/folder/study.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("mode=nonsense&uri=true", 'got the option "mode" of a storage, expected none but "timeout"'),
        ("timeout=soon", 'got timeout "soon" of a storage, expected a number of seconds'),
        ("timeout=-1", 'got timeout "-1" of a storage'),
        ("timeout=nan", 'got timeout "nan" of a storage'),
    ],
)
def test_options_of_a_url_that_cannot_be_used_are_missed_before_a_file_is_made(
    options: str, message: str, tmp_path: Path
) -> None:
    for use in (new_study, lambda url: open_study(url, "toy"), is_vacant):
        with pytest.raises(StudyError, match=message):
            use(f"sqlite:///{tmp_path}/study.db?{options}")
    assert list(tmp_path.iterdir()) == []


def test_a_study_that_is_deleted_during_a_search_is_missed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    study = new_study(url)
    optuna.delete_study(study_name="toy", storage=url)
    with pytest.raises(StudyError, match="the study is not there any more"):
        study.store_note("a", 1)


def test_a_key_error_of_other_code_stays_one() -> None:
    with pytest.raises(KeyError, match="other"), storage_errors("sqlite:///a.db"):
        raise KeyError("other")


def test_a_refused_name_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="there is no such file"):
        open_study(f"sqlite:///{tmp_path}/a/study.db", "toy")
    assert list(tmp_path.iterdir()) == []
    create_study(f"sqlite:///{tmp_path}/a/study.db", "toy", config={}, identity={}, facts=FACTS)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE trials SET state = 'NONSENSE'",
        "UPDATE trials SET datetime_start = 'yesterday'",
        "UPDATE trial_params SET distribution_json = '{'",
        "UPDATE trial_user_attributes SET value_json = '{'",
        f"UPDATE trial_user_attributes SET value_json = '{'[' * 100_000}'",
        "DROP TABLE trials",
    ],
)
def test_rows_that_cannot_be_read_are_one_line(
    statement: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, url = tmp_path / "study.db", f"sqlite:///{tmp_path}/study.db"
    study = new_study(url)
    study.enqueue({"a": 0.5}, "uniform")
    trial = study.ask(1)
    assert trial is not None
    trial.suggest_float("a", 0.1, 1.0)
    execute(path, statement)
    capfd.readouterr()

    def ask(study: SearchStudy) -> object:
        return study.ask(5)

    uses: list[Callable[[SearchStudy], object]] = [
        SearchStudy.records,
        SearchStudy.best,
        lambda it: it.ask(5),
    ]
    for use in uses:
        with pytest.raises(StudyError, match=r"it is damaged: a row of it cannot|no such table") as caught:
            use(open_study(url, "toy"))
        assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_study_interrupted_inside_a_query_can_still_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C falls into a query while another process writes; the trial is given back all the same."""
    study = new_study(f"sqlite:///{tmp_path}/s.db")
    trial = study.ask(1)
    assert trial is not None

    def interrupt() -> None:
        with closing(sqlite3.connect(tmp_path / "s.db")) as other:
            other.execute("INSERT INTO study_user_attributes VALUES (99, 1, 'key', '1')")
            other.commit()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sqlalchemy.orm.loading._new_runid", interrupt)
        with pytest.raises(KeyboardInterrupt) as interruption:
            study.annotate(trial, proposed=1)
    assert study.release() == [trial.number]
    assert interruption.value.__traceback__ is not None  # what it holds is alive until here
    assert study.records()[0].state == "waiting"


def test_a_server_that_vanishes_during_a_call_is_missed_after_a_minute() -> None:
    assert connect_options("postgresql+psycopg://host/db")["tcp_user_timeout"] == 60_000
    assert connect_options("mysql+pymysql://host/db")["read_timeout"] == 60
    assert "tcp_user_timeout" not in connect_options("postgresql+psycopg2://host/db?tcp_user_timeout=5000")
    assert connect_options("oracle+oracledb://host/db") == {}
