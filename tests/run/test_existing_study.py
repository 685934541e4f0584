"""A search whose study exists already: refused, resumed or replaced, and nothing else is deleted."""

from __future__ import annotations

import dataclasses
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest

import autoprune
from autoprune.config import load_config
from autoprune.errors import ConfigError, StudyError
from autoprune.exporting import update_extra
from autoprune.run import SearchResult
from autoprune.run._checks.trust import consent_of
from autoprune.run._existing_study import changes_since, remove_study
from autoprune.run._resolving.paths import settle
from autoprune.run._results.dashboard import dashboard_files
from autoprune.run._results.tracking import tracker_files
from autoprune.study import create_study, open_study
from autoprune.study._race import LEASE
from autoprune.support.leases import Lease, _started
from tests.engines.toy import FACTS
from tests.own_rows import tiny_search

STORAGE = "sqlite:///own.db"


@pytest.fixture
def searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SearchResult:
    monkeypatch.chdir(tmp_path)
    return tiny_search(storage=STORAGE)


def again(result: SearchResult, if_exists: Any, budget: str = "50%", **search: Any) -> SearchResult:
    stored = open_study(result.storage, result.name).config
    stored["budget"]["flops"] = budget
    stored["search"].update(search)
    given = result.session
    return autoprune.search(given.model, given.data, stored, if_exists=if_exists, watch=None)


def test_a_study_is_resumed_with_more_trials_but_not_with_another_budget(searched: SearchResult) -> None:
    with pytest.raises(StudyError, match="has a study of that name already"):
        again(searched, "error")
    assert again(searched, "resume").summary.records == searched.summary.records
    more = again(searched, "resume", trials=3)
    assert more.summary.records[:2] == searched.summary.records
    assert len(more.summary.records) == 3
    with pytest.raises(StudyError, match=r"has budget\.flops = '50%', now '30%': a resume cannot change it"):
        again(searched, "resume", "30%")
    with pytest.raises(ConfigError, match=r'if_exists: unknown action "replace"'):
        again(searched, "replace")


def test_rungs_keep_the_recipe_of_the_study_if_the_finetune_changes(tmp_path: Path) -> None:
    spec = settle(load_config("digits"))
    config = dataclasses.asdict(spec.with_rung_recipe())
    study = create_study(f"journal:///{tmp_path}/study.log", "toy", config=config, identity={}, facts=FACTS)
    assert changes_since(study, spec) == []
    changes = ["finetune.learning_rate=0.1", 'finetune.optimizer="adam"']
    assert changes_since(study, settle(load_config("digits", changes))) == changes
    with pytest.raises(StudyError, match=r"has score\.optimizer = 'sgd', now 'adam': a resume cannot change"):
        changes_since(study, settle(load_config("digits", ["score.optimizer=adam"])))


def test_a_replaced_study_loses_its_own_files_and_no_others(searched: SearchResult) -> None:
    tuned = searched.finetune(overrides=["finetune.epochs=1"], watch=None)
    names = ("mine.txt", "README.md", "model-v2.onnx", "model_user.pt2")
    kept = [searched.output / "notes.txt", *(tuned.folder / name for name in names)]
    for file in kept:
        file.write_text("mine")
    optuna.create_study(storage=STORAGE, study_name="other")
    new = again(searched, "overwrite", "30%", trials=1)
    assert [record.number for record in new.summary.records] == [0]
    assert (new.best.macs or 0) < (searched.best.macs or 0)
    assert optuna.load_study(storage=STORAGE, study_name="other").trials == []
    left = {file for file in searched.output.rglob("*") if file.is_file()}
    assert left == {*kept, searched.output / "report.html"}  # of the new search


def test_a_replaced_study_leaves_the_model_of_another_study_in_the_same_folder(
    searched: SearchResult,
) -> None:
    tuned = searched.finetune(overrides=["finetune.epochs=0"], watch=None)
    update_extra(tuned.folder, {"study": "other"})
    before = {file.name for file in tuned.folder.iterdir()}
    again(searched, "overwrite", "30%", trials=1)
    assert {file.name for file in tuned.folder.iterdir()} == before


def test_a_replaced_study_loses_its_logs_and_artifacts_and_no_others(searched: SearchResult) -> None:
    pytest.importorskip("tensorboard")
    stored = open_study(searched.storage, searched.name).config
    stored["search"]["study"], stored["report"]["trackers"] = "logged", ["tensorboard"]
    given, kept = searched.session, Path("own-artifacts")
    stored["output"]["folder"] = str(searched.output.with_name("logged"))
    new = autoprune.search(given.model, given.data, stored, watch=None)
    others = {*kept.iterdir()} - {file for file in kept.iterdir() if b"logged" in file.read_bytes()}
    logs = [new.output / "trackers" / "mine.log", new.output / "tensorboard" / "other" / "mine"]
    logs[1].parent.mkdir()
    for file in logs:
        file.write_text("mine")
    study = open_study(new.storage, new.name)
    assert len(tracker_files(study, new.output)) >= 2
    runs = new.output / "wandb"  # as the package leaves them without a server
    for run in (study.note("autoprune:tracked"), "f" * 32):
        (runs / f"offline-run-20260101_120000-{run}" / "files").mkdir(parents=True)
        (runs / f"offline-run-20260101_120000-{run}" / f"run-{run}.wandb").write_text("points")
        (runs / "latest-run").unlink(missing_ok=True)
        (runs / "latest-run").symlink_to(f"offline-run-20260101_120000-{study.note('autoprune:tracked')}")
    assert len(dashboard_files(study)) == 1
    assert len(list(kept.iterdir())) == 2
    remove_study(study, consent_of(True, None))
    left = {path for path in new.output.rglob("*") if path.is_symlink() or path.is_file()}
    assert left == {*logs, runs / f"offline-run-20260101_120000-{'f' * 32}" / f"run-{'f' * 32}.wandb"}
    assert [each.name for each in runs.iterdir()] == [f"offline-run-20260101_120000-{'f' * 32}"]
    assert {*kept.iterdir()} == others


def test_a_search_does_not_replace_the_study_that_it_begins_from(searched: SearchResult) -> None:
    place = [f"search.study={searched.name}", f"search.storage={STORAGE}"]
    with pytest.raises(StudyError, match=r"replace the study that it begins from\. Choose another name"):
        autoprune.search(
            from_study=searched, overrides=[*place, "search.seed=1"], if_exists="overwrite", watch=None
        )
    assert open_study(searched.storage, searched.name).records() == list(searched.summary.records)


def test_a_study_on_which_a_process_works_is_not_replaced(searched: SearchResult) -> None:
    study = open_study(searched.storage, searched.name)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as worker:
        for host in (socket.gethostname(), "elsewhere"):
            lease = Lease(host, worker.pid, str(_started(worker.pid)))
            study.store_note(LEASE, lease.to_json())
            with pytest.raises(StudyError, match=rf"process \d+ on {host} may still work on this study"):
                again(searched, "overwrite")
        worker.communicate(b"\n")
    assert open_study(searched.storage, searched.name).records() == list(searched.summary.records)


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    return {
        "model": {"factory": "tests.misbehaving:net", "checkpoint": "dense.safetensors"},
        "data": {"loaders": "tests.misbehaving:parts"},
        "train": {"epochs": 1},
    }


def test_a_dense_model_is_trained_again_only_to_replace_it(trained: dict[str, Any]) -> None:
    first = autoprune.train(trained, watch=None)
    before = first.checkpoint.read_bytes()
    assert autoprune.train(trained, if_exists="resume", watch=None) == first
    with pytest.raises(ConfigError, match=r"exists already\. Name another file, or replace this one with"):
        autoprune.train(trained, watch=None)
    other = {**trained, "train": {"epochs": 2}}
    assert autoprune.train(other, if_exists="overwrite", watch=None).checkpoint == first.checkpoint
    assert first.checkpoint.read_bytes() != before


def test_a_flow_is_refused_resumed_or_replaced(trained: dict[str, Any], tmp_path: Path) -> None:
    flow = {"stages": ["select", "rebuild"]}
    config = {**trained, "budget": {"flops": "60%"}, "flow": flow, "output": {"folder": "flows"}}
    autoprune.train(trained, watch=None)
    first = autoprune.prune(config=config, watch=None)
    with pytest.raises(StudyError, match="holds a flow already"):
        autoprune.prune(config=config, if_exists="error", watch=None)
    (first.folder / "mine.txt").write_text("mine")
    assert autoprune.prune(config=config, watch=None).cost == first.cost
    smaller = autoprune.prune(
        config={**config, "budget": {"flops": "40%"}}, if_exists="overwrite", watch=None
    )
    assert smaller.cost.macs < first.cost.macs
    assert (first.folder / "mine.txt").read_text() == "mine"
