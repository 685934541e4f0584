"""Studies in real storages: values read back, mismatches are refused, and no trial is stolen."""

from __future__ import annotations

import logging
import re
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

import autoprune
from autoprune.config.rungs import RungScore
from autoprune.engines import Job, TrialRunner, run_search
from autoprune.errors import StudyError
from autoprune.samplers import ENDED_BEFORE, OUTCOME, fact_key, fact_of
from autoprune.study import (
    MeasuredLatency,
    SearchStudy,
    create_study,
    is_in_memory,
    open_study,
    study_command,
)
from autoprune.study import _queue as queue
from autoprune.support.leases import Lease, _started, this_process
from tests.engines.toy import FACTS, IDENTITY, ToyScorer, new_study, toy_runner

SCHEMES = ("sqlite", "journal")


@pytest.fixture(params=SCHEMES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.param}:///{tmp_path}/deep/folder/study.db"


def test_config_identity_and_choices_read_back(url: str) -> None:
    config = {"search": {"trials": 3, "seed": 0}, "budget": {"flops": "50%"}}
    created = create_study(url, "a", config=config, identity=IDENTITY, facts=FACTS)
    opened = open_study(url, "a")
    assert opened.config == created.config == config
    assert opened.identity == IDENTITY
    assert opened.facts == FACTS
    opened.require(IDENTITY)


def test_another_model_data_or_space_is_refused_by_name(url: str) -> None:
    new_study(url)
    study = open_study(url, "toy")
    with pytest.raises(StudyError, match=r"model is 9{12}\.\.\. here and m{12}\.\.\. in the study\. Restore"):
        study.require(IDENTITY | {"model": "9" * 64})
    with pytest.raises(StudyError, match=r"data is short here .*; space is missing here"):
        study.require({"model": IDENTITY["model"], "data": "short"})


def test_a_study_is_made_once(url: str) -> None:
    new_study(url)
    with pytest.raises(StudyError, match=r"a study of that name exists in .*\. Resume it"):
        new_study(url)


def test_missing_studies_and_storages_are_named_and_not_made(url: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="there is no such file"):
        open_study(url, "toy")
    assert not list(tmp_path.iterdir())
    new_study(url)
    with pytest.raises(StudyError, match=r'toi: no such study in .* Did you mean "toy"'):
        open_study(url, "toi")


def test_studies_of_others_are_refused_and_left_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    optuna.create_study(storage=url, study_name="theirs").add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(StudyError, match="theirs: not a study of this version of autoprune"):
        open_study(url, "theirs")
    with pytest.raises(StudyError, match="a study of that name exists"):
        create_study(url, "theirs", config={}, identity={}, facts=FACTS)
    assert optuna.load_study(storage=url, study_name="theirs").user_attrs == {}


def test_a_study_killed_while_it_was_made_is_made_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    optuna.create_study(storage=url, study_name="toy", direction="maximize")
    assert new_study(url).identity == IDENTITY


def test_files_that_are_no_storage_get_one_line(tmp_path: Path) -> None:
    for scheme in SCHEMES:
        path = tmp_path / f"{scheme}.db"
        path.write_text("hello, I am a poem\nand no database\n" * 50)
        with pytest.raises(StudyError, match=r"^\S+: not a") as caught:
            open_study(f"{scheme}:///{path}", "toy")
        assert "\n" not in str(caught.value)
        assert path.read_text().startswith("hello")


def test_a_locked_database_is_reported_as_locked(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db?timeout=0.1"
    study = new_study(url)
    blocker = sqlite3.connect(tmp_path / "study.db")
    blocker.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StudyError, match="locked by another process"):
        study.enqueue({"conv0": 0.5}, origin="uniform")
    with pytest.raises(StudyError, match="locked by another process"):
        create_study(url, "second", config={}, identity={}, facts=FACTS)
    blocker.rollback()
    study.enqueue({"conv0": 0.5}, origin="uniform")
    assert len(study.records()) == 1


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("journal://here.log", "expected journal:///relative/path.log"),
        ("nonsense", "not a URL"),
        ("sqlite:////proc/nowhere/x.db", "cannot be used|cannot be opened"),
        ("postgresql+nodriver://user:secret@host/db", "no driver for this kind of storage is installed"),
    ],
)
def test_urls_that_lead_nowhere(url: str, message: str) -> None:
    with pytest.raises(StudyError, match=message) as caught:
        create_study(url, "a", config={}, identity={}, facts=FACTS)
    assert "secret" not in str(caught.value)


def test_a_note_that_is_kept_once_is_the_same_for_all(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = new_study(url), open_study(url, "toy")
    assert mine.store_note_once("first", {"by": "me"}) == {"by": "me"}
    assert other.store_note_once("first", {"by": "other"}) == {"by": "me"}
    assert mine.note("first") == {"by": "me"}

    def write_late(seconds: float) -> None:
        """The other looked before mine was written, and writes after."""
        other.store_note("raced", "other's")

    monkeypatch.setattr("autoprune.study._notes.time.sleep", write_late)
    assert mine.store_note_once("raced", "mine") == "other's"


def test_a_record_reads_back_as_it_was_stored(url: str) -> None:
    runner = toy_runner(new_study(url), trials=1)
    job = runner.ask()
    assert job is not None
    scores = (RungScore(0, "calibrate", 0.25, 1.5), RungScore(1, "100 steps", 0.75, 9.0))
    assert [runner.report(job, score) for score in scores] == [True, False]
    runner.finish(job)
    (record,) = open_study(url, "toy").records()
    assert record.scores == scores
    assert (record.state, record.value, record.score, record.pruned) == ("complete", 0.75, 0.75, False)
    assert record.widths == job.widths
    assert record.seed == job.variant
    assert record.origin == "sampler"
    assert record.ratios.keys() == {"conv0", "conv1", "conv2", "conv3"}
    limit = runner.space.budget.limits["macs"]
    assert limit is not None
    assert record.macs is not None
    assert 0.98 * limit <= record.macs <= limit


def test_the_best_trial_climbed_every_rung(url: str) -> None:
    study = new_study(url)
    with pytest.raises(StudyError, match="no trial has completed yet"):
        study.best()
    runner = toy_runner(study, sampler="cmaes", trials=12)
    for first, last in [(0.5, 0.6), (0.5, 0.7), (0.5, 0.65), (0.5, 0.6), (0.5, 0.6), (0.5, 0.6), (0.4, 0.0)]:
        job = runner.ask()
        assert job is not None
        if runner.report(job, RungScore(0, "a", first, 0)):
            runner.report(job, RungScore(1, "b", last, 0))
        runner.finish(job)
    assert study.best().number == 1
    pruned = study.records()[6]
    assert (pruned.state, pruned.pruned, pruned.score, pruned.value) == ("pruned", True, 0.4, 0.4)


def study_of_scores(url: str, *scores: float) -> SearchStudy:
    """Make a study whose trials climbed every rung."""
    study = new_study(url)
    runner = toy_runner(study, pruner="none")
    for score in scores:
        job = runner.ask()
        assert job is not None
        for index, name in enumerate("ab"):
            runner.report(job, RungScore(index, name, score, 0.1))
        runner.finish(job)
    return study


def test_the_best_keeps_to_the_budget_if_latency_was_measured(url: str) -> None:
    study = study_of_scores(url, 0.9, 0.8, 0.7)
    study.store_measured(0, MeasuredLatency(4.4, (4.3, 4.5), 0.63, (0.62, 0.64), met=False))
    assert study.best().number == 0
    study.store_measured(1, MeasuredLatency(4.2, (4.1, 4.3), 0.61, (0.60, 0.62), met=False))
    assert study.best().number == 1
    met = MeasuredLatency(4.0, (3.9, 4.1), 0.58, (0.57, 0.59), met=True)
    study.store_measured(2, met)
    again = open_study(url, study.name)
    assert again.best().number == 2
    assert again.best().measured == met == again.record(2).measured


def test_a_trial_surely_within_the_budget_precedes_a_better_one_that_may_not_be(url: str) -> None:
    study = study_of_scores(url, 0.9, 0.8, 0.7)
    unsure = MeasuredLatency(4.2, (4.1, 4.3), 0.595, (0.58, 0.61), met=True, surely=False)
    study.store_measured(1, unsure)
    assert study.best().number == 1
    study.store_measured(0, unsure)
    assert study.best().number == 0
    study.store_measured(2, MeasuredLatency(4.0, (3.9, 4.1), 0.58, (0.57, 0.59), met=True, surely=True))
    assert study.best().number == 2


def test_warm_starts_come_first_with_their_origin_and_exact_widths(url: str) -> None:
    study = new_study(url)
    runner = toy_runner(study, trials=3)
    ratios = [0.3, 0.9, 0.5, 0.6]
    widths = runner.space.decode(ratios)  # type: ignore[arg-type]  # a list is as good as an array
    names = [variable.name for variable in runner.space.variables]
    exact = runner.space.encode(widths)
    study.enqueue(dict(zip(names, map(float, exact), strict=True)), origin="uniform")
    job = runner.ask()
    assert job is not None
    assert list(job.widths.values()) == widths.tolist()
    assert study.records()[0].origin == "uniform"


def test_trials_of_living_processes_are_left_alone_and_dead_ones_queued(url: str) -> None:
    study = new_study(url)
    for _ in range(5):
        assert study.ask(10) is not None
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    trials = study.optuna.get_trials()
    here = socket.gethostname()
    owners = {
        1: Lease(here, 2**22 + 1, "boot:1"),
        2: Lease("elsewhere", 7, "boot:1"),
        4: Lease(here, sleeper.pid, _started(sleeper.pid) or ""),
    }
    for number, lease in owners.items():
        study.optuna._storage.set_trial_system_attr(
            trials[number]._trial_id, fact_key("lease"), lease.to_json()
        )
    assert study.requeue_dead() == [1]
    assert study.requeue_dead() == []
    assert study.held_elsewhere() == {2: "elsewhere"}
    assert study.requeue_dead(other_hosts=True) == [2]
    assert study.held_elsewhere() == {}
    assert study.release() == [0, 3]
    sleeper.communicate(b"\n")
    assert study.requeue_dead() == [4]
    assert [trial.state for trial in study.optuna.get_trials()] == [TrialState.WAITING] * 5
    claimed = [study.ask(5) for _ in range(6)]
    assert [trial.number if trial else None for trial in claimed] == [0, 1, 2, 3, 4, None]


def test_a_search_that_ends_leaves_the_trials_of_another_in_its_process_alone(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = toy_runner(new_study(url), trials=2)
    other = toy_runner(open_study(url, "toy"), trials=2)
    job = other.ask()
    assert job is not None
    with caplog.at_level(logging.WARNING, "autoprune"):
        run_search("serial", first, ToyScorer)
        assert [record.state for record in first.study.records()] == ["running", "complete"]
        assert score_to_the_end(other, job) == [True, False]
    assert first.study.record(0).state == "complete"
    assert not caplog.records


def test_a_trial_whose_claim_was_interrupted_is_released(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    study, claim_trial = new_study(url), queue.claim_trial

    def interrupted(*arguments: Any, **options: Any) -> None:
        claim_trial(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(queue, "claim_trial", interrupted)
    with pytest.raises(KeyboardInterrupt):
        study.ask(1)
    assert study.release() == [0]


def test_who_loses_the_race_for_a_waiting_trial_leaves_its_lease_alone(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loser has read that the trial waits; before it acts, the winner takes it."""
    new_study(url).enqueue({"conv0": 0.5}, origin="uniform")
    winner, loser = open_study(url, "toy"), open_study(url, "toy")
    stale = loser.optuna.get_trials(states=(TrialState.WAITING,))
    assert winner.ask(1) is not None
    lease = fact_of(winner.optuna.get_trials()[0], "lease")
    monkeypatch.setattr(loser.optuna._storage, "get_all_trials", lambda *args, **kwargs: stale)
    other = Lease("elsewhere", 7, "boot:1")
    monkeypatch.setattr("autoprune.study._search_study.this_process", lambda: other)
    assert loser.ask(1) is None
    assert fact_of(open_study(url, "toy").optuna.get_trials()[0], "lease") == lease


def test_a_trial_that_is_just_being_claimed_is_not_taken_for_a_dead_one(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between taking a trial and writing its lease there is none: who looks then looks again."""
    study = new_study(url)
    trial = study.ask(1)
    assert trial is not None
    study.requeue(0)
    storage = study.optuna._storage
    assert storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)

    def write_lease(seconds: float) -> None:
        storage.set_trial_system_attr(trial._trial_id, fact_key("lease"), this_process().to_json())

    monkeypatch.setattr("autoprune.study._queue.time.sleep", write_lease)
    assert study.requeue_dead() == []


DEAD = Lease(socket.gethostname(), 2**22 + 1, "boot:1", claim="dead")


def leave_dead(study: SearchStudy, number: int) -> None:
    """Make a running trial look as if the process that runs it had died."""
    trial = study.optuna.get_trials()[number]
    study.optuna._storage.set_trial_system_attr(trial._trial_id, fact_key("lease"), DEAD.to_json())


def score_to_the_end(runner: TrialRunner, job: Job) -> list[bool]:
    """Report what a toy scorer gives; return what each report was answered."""
    answers = [runner.report(job, rung) for rung in ToyScorer()(job.widths, job.variant)]
    runner.finish(job)
    return answers


def test_a_trial_claimed_between_the_look_and_the_requeue_of_another_process_is_left_alone(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = new_study(url), open_study(url, "toy")
    assert first.ask(1) is not None
    leave_dead(first, 0)
    seen = queue.dead_trials(second.optuna, other_hosts=False)
    assert [trial.number for trial in seen] == [0]
    runner = toy_runner(first, trials=1)
    assert first.requeue_dead() == [0]
    job = runner.ask()
    assert job is not None
    monkeypatch.setattr(queue, "dead_trials", lambda study, other_hosts: seen)
    assert second.requeue_dead() == []
    assert score_to_the_end(runner, job) == [True, False]
    assert first.record(0).state == "complete"
    assert second.requeue_dead() == []
    assert second.record(0).state == "complete"


@pytest.mark.parametrize(
    ("by_then", "noticed"),
    [
        ("waits", "before the report"),
        ("runs", "before the report"),
        ("has ended", "before the report"),
        ("waits", "at the very end"),
        ("has ended", "at the very end"),
    ],
)
def test_late_reports_of_a_trial_that_was_taken_over_are_dropped(
    url: str, by_then: str, noticed: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = new_study(url), open_study(url, "toy")
    slow = toy_runner(first, sampler="random", pruner="none", trials=2)
    late = slow.ask()
    assert late is not None
    if noticed == "at the very end":
        assert slow.report(late, RungScore(0, "rung0", -9.0, 0.0))
        assert not slow.report(late, RungScore(1, "rung1", -9.0, 0.0))
        monkeypatch.setattr(first, "require_held", lambda number, claim: None)  # it is lost just after
    second.requeue(0)
    fast = toy_runner(second, sampler="random", pruner="none", trials=2)
    job = None if by_then == "waits" else fast.ask()
    if by_then == "has ended":
        assert job is not None
        score_to_the_end(fast, job)
    with caplog.at_level(logging.WARNING, "autoprune"):
        if noticed == "before the report":
            assert not slow.report(late, RungScore(0, "rung0", 9.0, 0.0))
        slow.finish(late)
        slow.requeue(late)
        slow.fail(late, "it is too late")
    assert [record.getMessage() for record in caplog.records] == [
        "trial 0 was taken over by another process, so this attempt is dropped"
    ]
    monkeypatch.undo()
    if by_then == "waits":
        job = fast.ask()
    assert job is not None
    if by_then != "has ended":
        assert score_to_the_end(fast, job) == [True, False]
    other = slow.ask()
    assert other is not None
    assert other.number == 1
    score_to_the_end(slow, other)
    records = first.records()
    assert [record.state for record in records] == ["complete"] * 2
    expected = [score.score for score in ToyScorer()(job.widths, job.variant)]
    assert [score.score for score in records[0].scores] == expected


def test_few_files_reach_below_optunas_public_interface() -> None:
    below = re.compile(
        r"(?<!self)(?<!autoprune\.study)\._(storage|study_id|trial_id|thread_local)\b|^from optuna\S*\._",
        re.MULTILINE,
    )
    package = Path(autoprune.__file__).parent
    found = {
        f"{path.parent.name}/{path.name}"
        for path in package.rglob("*.py")
        if below.search(path.read_text("utf-8"))
    }
    assert found == {
        "study/_dashboard.py",
        "study/_queue.py",
        "study/_database_tables.py",
        "study/_server_storage.py",
        "samplers/_attributes.py",
        "samplers/_study_view.py",
        "samplers/gp.py",
    }


def test_a_second_attempt_in_the_same_process_differs_from_the_first(url: str) -> None:
    """Another process queued the trial again, and this one was the first to ask."""
    study = new_study(url)
    runner = toy_runner(study, sampler="random", pruner="none", trials=1)
    stale = runner.ask()
    open_study(url, "toy").requeue(0)
    job = runner.ask()
    assert stale is not None
    assert job is not None
    assert job.number == stale.number == 0
    assert not runner.report(stale, RungScore(0, "rung0", 9.0, 0.0))
    runner.finish(stale)
    assert score_to_the_end(runner, job) == [True, False]
    assert study.record(0).state == "complete"


def test_a_trial_that_optuna_began_elsewhere_is_left_alone(url: str) -> None:
    """It has no lease; ours that died before they got theirs have an origin, or traces of an attempt."""
    study = new_study(url)
    study.optuna.ask()
    study.enqueue({"conv0": 0.5}, origin="uniform")
    assert study.ask(3) is not None
    assert study.ask(3) is not None
    study.requeue(2)
    for trial in study.optuna.get_trials()[1:]:
        study.optuna._storage.set_trial_system_attr(trial._trial_id, fact_key("lease"), None)
        study.optuna._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
    assert study.requeue_dead(other_hosts=True) == [1, 2]
    assert study.optuna.get_trials()[0].state == TrialState.RUNNING


def test_a_trial_whose_process_died_twice_has_failed(url: str) -> None:
    study = new_study(url)
    assert study.ask(1) is not None
    leave_dead(study, 0)
    assert study.requeue_dead() == [0]
    assert study.ask(1) is not None
    leave_dead(study, 0)
    assert study.requeue_dead() == []
    (record,) = study.records()
    assert (record.state, record.failure) == ("failed", "its process died 2 times while it ran.")
    assert study.ask(1) is None


def test_interruptions_that_a_process_survives_are_not_counted(url: str) -> None:
    study = new_study(url)
    for _ in range(6):
        assert study.ask(1) is not None
        assert study.release() == [0]
    assert study.ask(1) is not None


def test_outcomes_keep_the_order_in_which_trials_ended(url: str) -> None:
    runner = toy_runner(new_study(url), sampler="random", pruner="none", trials=3)
    jobs = [runner.ask() for _ in range(3)]
    for number in (1, 2, 0):
        job = jobs[number]
        assert job is not None
        if number == 2:
            runner.fail(job, "diverged")
        else:
            score_to_the_end(runner, job)
    trials = open_study(url, "toy").optuna.get_trials()
    assert [fact_of(trial, OUTCOME)[ENDED_BEFORE] for trial in trials] == [2, 0, 1]


def test_a_commit_survives_a_power_cut(tmp_path: Path) -> None:
    """WAL with synchronous FULL (2): the log is on the disk before a commit returns."""
    url = f"sqlite:///{tmp_path}/study.db"
    new_study(url)
    view: Any = open_study(url, "toy").optuna._storage  # it leaves damaged trials out
    storage = view._storage
    assert isinstance(storage, optuna.storages._CachedStorage)
    with storage._backend.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_a_database_of_others_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with sqlite3.connect(path) as theirs:
        theirs.execute("CREATE TABLE mine (number INTEGER)")
    before = path.read_bytes()
    with pytest.raises(StudyError, match=r"a database of another program \(table mine\)"):
        open_study(f"sqlite:///{path}", "toy")
    with pytest.raises(StudyError, match=r"a database of another program \(table mine\)"):
        new_study(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_missing_driver_and_a_missing_folder_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("psycopg2", "psycopg", "MySQLdb"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        StudyError, match=r'pip install "autoprune\[postgresql\]", and write .* postgresql\+psycopg://'
    ):
        open_study("postgresql://user:secret@host/db", "toy")
    with pytest.raises(StudyError, match=r'no driver for postgresql .*pip install "autoprune\[postgresql\]"'):
        open_study("postgresql+psycopg://user:secret@host/db", "toy")
    with pytest.raises(StudyError, match=r'"autoprune\[mysql\]", and write the URL as mysql\+pymysql://'):
        open_study("mysql://user:secret@host/db", "toy")
    with pytest.raises(
        StudyError, match=r"^\S+: the storage cannot be used \((Permission|No such)[^/]*\)\.$"
    ):
        create_study("sqlite:////proc/here/a.db", "toy", config={}, identity={}, facts=FACTS)


def test_no_message_of_a_study_shows_the_password_of_its_storage(tmp_path: Path) -> None:
    """SQLite takes no notice of what it does not know in the URL of a file."""
    missing = f"sqlite:///file:{tmp_path}/none.db?mode=rwc&uri=true&password=secret"
    url = missing.replace("none", "study")
    new_study(url)
    sqlite3.connect(tmp_path / "empty.db").close()
    refusals = (
        (open_study, missing, "toy"),
        (open_study, missing.replace("none", "empty"), "toy"),
        (open_study, url, "toi"),
        (open_study, "journal://user:secret@host", "toy"),
    )
    for verb, where, name in refusals:
        with pytest.raises(StudyError, match=r"\*\*\*") as caught:
            verb(where, name)
        assert "secret" not in str(caught.value)
    with pytest.raises(StudyError, match=r"password=\*\*\*\. Resume it") as caught:
        create_study(url, "toy", config={}, identity={}, facts=FACTS)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["postgresql://user:***@host/db", "sqlite:///file:a.db?mode=rwc&uri=true&password=***&a=b"]
)
def test_the_url_of_a_hint_wants_its_password_back(url: str) -> None:
    with pytest.raises(StudyError, match=r"Write the password in place of \*\*\*"):
        open_study(url, "toy")


@pytest.mark.parametrize("password", ["sec@ret", "secret@", "sec@ret:1"])
def test_a_password_that_would_be_read_as_a_host_is_refused_and_not_shown(password: str) -> None:
    with pytest.raises(StudyError, match=r"^postgresql://user:\*\*\*@host/db: .* %40") as caught:
        open_study(f"postgresql://user:{password}@host/db", "toy")
    assert "ret" not in str(caught.value)


def test_a_command_on_a_study_is_quoted_and_hides_the_password() -> None:
    assert study_command("finetune", "a", "sqlite:///my runs/a.db", "--trial", "3") == (
        "autoprune finetune a --storage 'sqlite:///my runs/a.db' --trial 3"
    )
    assert study_command("resume", "a", "mysql://user:secret@host/db") == (
        "autoprune resume a --storage 'mysql://user:***@host/db'"
    )


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite://", True),
        ("sqlite:///:memory:", True),
        ("sqlite:///file:x?mode=memory&uri=true", True),
        ("sqlite:///runs/a.db", False),
        ("journal:///runs/a.log", False),
        ("postgresql://host/db", False),
        ("nonsense", False),
    ],
)
def test_storages_in_memory_are_known(url: str, expected: bool) -> None:
    assert is_in_memory(url) is expected
