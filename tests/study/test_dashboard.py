"""The note and the files of a study, as Optuna and its dashboard read them."""

from __future__ import annotations

import importlib
from pathlib import Path

import optuna
import pytest
from optuna.artifacts import FileSystemArtifactStore, download_artifact, get_all_artifact_meta

from autoprune.engines import run_search
from autoprune.errors import StudyError
from autoprune.study import SearchStudy, keep_file, open_study, save_note, show, study_state
from autoprune.study._storage import open_storage
from tests.engines.toy import make_toy, new_study, toy_runner

dashboard = pytest.importorskip("optuna_dashboard")


@pytest.fixture
def study(tmp_path: Path) -> SearchStudy:
    return new_study(f"journal:///{tmp_path}/study.log")


def read_note(study: SearchStudy) -> str:
    return str(dashboard.get_note(open_study(study.url, study.name).optuna))


def test_a_note_is_replaced_and_the_text_of_a_user_stays_below_it(study: SearchStudy) -> None:
    long, short = "first " * 1000, "second"
    for text in (long, short, long, long):
        save_note(study, text)
        note = read_note(study)
        assert note.startswith(f"{text}\n\n---\n\n*Text below this line is yours.")
        assert note.count("is yours") == 1
    dashboard.save_note(study.optuna, read_note(study) + "\n\nmy thoughts")
    save_note(study, short)
    assert read_note(study).startswith(short)
    assert read_note(study).endswith("It is kept.*\n\nmy thoughts")
    dashboard.save_note(study.optuna, "all mine")
    save_note(study, short)
    assert read_note(study).endswith("It is kept.*\n\nall mine")


def test_readable_attributes_come_before_those_of_autoprune(study: SearchStudy) -> None:
    show(study, best="trial 3", verdict="it is better")
    attributes = open_study(study.url, study.name).optuna.user_attrs
    assert list(attributes)[:5] == ["verdict", "best trial", "budget", "dense model", "autoprune"]
    assert (attributes["verdict"], attributes["best trial"]) == ("it is better", "trial 3")
    assert attributes["dense model"] == f"score {study.facts.dense_score:.4f}"


def test_a_study_that_was_killed_before_its_header_is_made_again(tmp_path: Path) -> None:
    """It has readable attributes, and nothing else."""
    url = f"journal:///{tmp_path}/killed.log"
    killed = optuna.create_study(
        storage=open_storage(url, create=True), study_name="toy", direction="maximize"
    )
    killed.set_user_attr("verdict", "no race has ended")
    assert study_state(url, "toy") == "none"
    assert new_study(url).facts.dense_score == 0.9


def test_an_unchanged_note_is_not_written_again(study: SearchStudy, tmp_path: Path) -> None:
    save_note(study, "text")
    before = (tmp_path / "study.log").read_bytes()
    save_note(study, "text")
    assert (tmp_path / "study.log").read_bytes() == before


def test_a_file_is_an_artifact_of_the_study_and_is_replaced_by_a_later_one(
    study: SearchStudy, tmp_path: Path
) -> None:
    report, folder = tmp_path / "report.html", tmp_path / "artifacts"
    for text in ("one", "other"):
        report.write_text(text)
        keep_file(study, report, folder)
        (meta,) = get_all_artifact_meta(study.optuna)
        assert (meta.filename, meta.mimetype) == ("report.html", "text/html")
        download_artifact(
            artifact_store=FileSystemArtifactStore(folder),
            artifact_id=meta.artifact_id,
            file_path=str(tmp_path / "copy.html"),
        )
        assert (tmp_path / "copy.html").read_text() == text
        (tmp_path / "copy.html").unlink()
    assert len(list(folder.iterdir())) == 1


def test_the_dashboard_lists_a_file_of_a_trial_that_has_ended(study: SearchStudy, tmp_path: Path) -> None:
    backend = importlib.import_module("optuna_dashboard.artifact._backend")
    run_search("serial", toy_runner(study, "random", 2), make_toy)
    recipe = tmp_path / "recipe.json"
    recipe.write_text("{}")
    keep_file(study, recipe, tmp_path / "artifacts", trial=1)
    of_study = study.optuna._storage.get_study_system_attrs(study.optuna._study_id)
    first, second = study.optuna.trials
    (shown,) = backend.list_trial_artifacts(of_study, second.system_attrs, second)
    assert (tmp_path / "artifacts" / shown["artifact_id"]).read_text() == "{}"
    assert backend.list_trial_artifacts(of_study, first.system_attrs, first) == []
    assert backend.list_study_artifacts(of_study) == []


@pytest.mark.parametrize(
    "value",
    ["{", 3, "[]", '{"filename": "report.html"}', '{"filename": "report.html", "artifact_id": "../a"}'],
)
def test_a_malformed_artifact_of_a_received_study_counts_as_none(
    value: str | int, study: SearchStudy, tmp_path: Path
) -> None:
    report, folder = tmp_path / "report.html", tmp_path / "artifacts"
    report.write_text("new")
    study.optuna._storage.set_study_system_attr(study.optuna._study_id, "artifacts:0", value)
    for _ in range(2):
        keep_file(study, report, folder)
    (kept,) = folder.iterdir()
    assert kept.read_text() == "new"


def test_a_file_is_never_written_through_a_link(study: SearchStudy, tmp_path: Path) -> None:
    report, folder = tmp_path / "report.html", tmp_path / "artifacts"
    report.write_text("new")
    keep_file(study, report, folder)
    (kept,) = folder.iterdir()
    mine = tmp_path / "mine"
    mine.write_text("mine")
    kept.unlink()
    kept.symlink_to(mine)
    keep_file(study, report, folder)
    assert (mine.read_text(), kept.read_text(), kept.is_symlink()) == ("mine", "new", False)
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StudyError, match=r"artifacts: it is a link\. Put a folder in its place"):
        keep_file(study, report, folder)
