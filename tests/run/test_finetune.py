"""Finetunes: what they save and store, and how their results are found again."""

from __future__ import annotations

import dataclasses
import math
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import autoprune
from autoprune import run
from autoprune.config import load_config
from autoprune.errors import ConfigError, ExportError, TrialError
from autoprune.exporting import read_recipe
from autoprune.run import EpochDone, Event, SearchResult, Stage, TrialDone, stored_spec
from autoprune.run._report import Report
from autoprune.run._resolving.dense import load_dense
from autoprune.run._results.finetune_result import FinetuneResult
from autoprune.run._trials.retraining import training_state
from autoprune.study import open_study
from autoprune.training import Task
from autoprune.training._metrics import accuracy

QUICK = (
    "search.trials=2",
    "search.sampler=random",
    "search.warm_starts=[]",
    "search.setting=float32 contiguous",
    "score.rungs=['calibrate']",
    "score.calibration_batches=1",
    "train.epochs=1",
    "race.entrants=1",
    "budget.flops=25%",
    "budget.params=20%",
)

EVENTS: list[Event] = []
"""Of the search that the tests share."""

UNTRAINED = "finetune.epochs=0"


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    """A whole search; tests give their finetunes output folders of their own."""
    folder = tmp_path_factory.mktemp("searched")
    places = [
        f"model.checkpoint={folder}/dense.safetensors",
        f"search.storage=sqlite:///{folder}/study.db",
        f"output.folder={folder}/out",
    ]
    EVENTS.clear()
    return autoprune.search(config=load_config("digits", [*QUICK, *places]), watch=EVENTS.append)


def test_a_trial_is_described_by_the_cost_that_the_budget_limits_most(searched: SearchResult) -> None:
    told = [(event.cost, event.share) for event in EVENTS if isinstance(event, TrialDone)]
    shares = [searched.summary.share(record, "params") for record in searched.summary.records]
    assert told == [("params", share) for share in shares]
    assert all(share <= 0.2 for share in shares)


def copy_without_finetunes(searched: SearchResult, folder: Path) -> str:
    """Copy a study into a folder, but for what finetunes noted in it; return the copy's URL."""
    original = searched.storage.removeprefix("sqlite:///")
    with sqlite3.connect(original) as study, sqlite3.connect(folder / "copy.db") as copy:
        study.backup(copy)
    url = f"sqlite:///{folder}/copy.db"
    opened = open_study(url, searched.name)
    for note in opened.optuna.user_attrs:
        if note.startswith("autoprune:finetuned"):
            opened.store_note(note, None)
    return url


def test_a_report_names_the_step_that_is_next_and_the_test_score(
    searched: SearchResult, tmp_path: Path
) -> None:
    study, url = searched.name, copy_without_finetunes(searched, tmp_path)

    def report() -> Report:
        return run.report(study, url, tmp_path / "report.svg")

    assert report().finetuned == ()
    assert report().next_step == f"Next: autoprune finetune {study} --storage {url}"
    tuned = run.finetune(study, url, overrides=[UNTRAINED, f"output.folder={tmp_path}"])
    assert tuned.test_score is not None
    assert report().finetuned == (tuned,)
    assert report().next_step == f"Next: autoprune export {study} --storage {url} --format onnx"
    exported = run.export_saved(study, "safetensors", storage=url, output=tmp_path / "small").path
    done = f"Nothing is left to do: trial {tuned.trial} is finetuned and exported to {exported}."
    assert report().next_step == done
    shutil.rmtree(exported)
    assert report().next_step.startswith("Next: autoprune export")
    (tuned.folder / "model.onnx").write_bytes(b"written by its folder, not by the study's name")
    assert report().next_step == done.replace(str(exported), f"{tuned.folder}/model.onnx")
    assert report().plot == tmp_path / "report.svg"
    with pytest.raises(ConfigError, match=r"--output .*report\.txt: expected a name that ends in \.png"):
        run.report(study, url, tmp_path / "report.txt")


def test_an_export_takes_what_the_last_finetune_saved(
    searched: SearchResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study, storage = searched.name, searched.storage
    for name in ("one", "two"):
        elsewhere = [UNTRAINED, f"output.folder={tmp_path}/{name}"]
        tuned = run.finetune(study, storage, overrides=elsewhere)
        exported = run.export_saved(study, "safetensors", storage=storage)
        assert exported.path == tuned.folder == tmp_path / name / "best"
    shutil.rmtree(tmp_path / "two")
    with pytest.raises(ExportError, match="nothing to export yet"):
        run.export_saved(study, "safetensors", storage=storage)


@pytest.mark.parametrize("best_first", [True, False])
def test_the_best_trial_by_its_number_is_the_same_finetune(
    searched: SearchResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, best_first: bool
) -> None:
    """The test part is read once, and both folders hold the model."""
    number = searched.best.number
    overrides = [UNTRAINED, f"output.folder={tmp_path}"]
    first, second = (None, number) if best_first else (number, None)
    study, storage = searched.name, searched.storage
    begun = run.finetune(study, storage, trial=first, overrides=overrides)
    monkeypatch.setattr(sys.modules["autoprune.run._trials.cut_trial"], "evaluate", None)
    again = run.finetune(study, storage, trial=second, overrides=overrides)
    assert {begun.folder.name, again.folder.name} == {"best", f"trial-{number}"}
    assert dataclasses.replace(again, folder=begun.folder) == begun
    assert run.finetune(study, storage, trial=second, overrides=overrides) == again
    theirs = run.load_saved(begun.folder).state_dict()
    for name, tensor in run.load_saved(again.folder).state_dict().items():
        assert torch.equal(tensor, theirs[name])
    monkeypatch.chdir(tmp_path)
    assert run.export_saved(study, "safetensors", storage=storage).path == tmp_path / "best"


def test_no_finetune_leaves_the_state_of_an_interrupted_one(searched: SearchResult, tmp_path: Path) -> None:
    """Of a killed finetune of 20 epochs, which an export without one must not throw away."""
    places = [UNTRAINED, f"output.folder={tmp_path}"]
    spec = run.change_spec(stored_spec(open_study(searched.storage, searched.name)), places)
    state = training_state(spec, searched.best.candidate)
    state.write_bytes(b"15 epochs")
    run.finetune(searched.name, searched.storage, overrides=places)
    assert state.read_bytes() == b"15 epochs"


def test_the_dense_model_that_is_exported_is_the_studys(searched: SearchResult, tmp_path: Path) -> None:
    exported = run.export_saved(
        searched.name, "pt2", storage=searched.storage, dense=True, output=tmp_path / "dense.pt2"
    )
    assert exported.path.is_file()
    study = open_study(searched.storage, searched.name)
    checkpoint = Path(study.config["model"]["checkpoint"])
    kept = checkpoint.read_bytes()
    weights = {name: 2 * tensor for name, tensor in load_file(checkpoint).items()}
    try:
        save_file(weights, checkpoint)
        with pytest.raises(
            ExportError, match=r"dense\.safetensors does not hold the weights that the search"
        ):
            run.export_saved(
                searched.name, "pt2", storage=searched.storage, dense=True, output=tmp_path / "other.pt2"
            )
    finally:
        checkpoint.write_bytes(kept)
    assert not (tmp_path / "other.pt2").exists()


class MetricOfParts:
    """An accuracy that is not a number on parts of certain lengths."""

    def __init__(self, *odd: int) -> None:
        self.odd = odd

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> float:
        return math.nan if len(targets) in self.odd else float(accuracy(outputs, targets))


def use_metric(monkeypatch: pytest.MonkeyPatch, metric: Callable[..., float | torch.Tensor]) -> None:
    """Let a study's task have another metric than it names."""
    monkeypatch.setattr(
        "autoprune.run._resolving.spec.make_task", lambda *names, **hooks: Task(metric=metric)
    )


def test_the_epochs_of_a_finetune_are_kept_and_drawn_on_the_page(
    searched: SearchResult, tmp_path: Path
) -> None:
    events: list[Event] = []
    overrides = ["finetune.epochs=2", "finetune.teacher=none", f"output.folder={tmp_path}"]
    study, url = searched.name, copy_without_finetunes(searched, tmp_path)
    tuned = run.finetune(study, url, overrides=overrides, watch=events.append)
    ended = [event for event in events if isinstance(event, EpochDone)]
    assert [(each.loss, each.score) for each in tuned.epochs] == [(each.loss, each.score) for each in ended]
    assert len(tuned.epochs) == 2
    assert run.finetune(study, url, overrides=overrides) == tuned
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "Loss of the finetune" in page
    assert f"Epoch 2: score on the validation part {tuned.val_score:.4f}" in page


def test_a_metric_that_is_no_number_on_the_test_part_costs_no_training(
    searched: SearchResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = load_dense(stored_spec(open_study(searched.storage, searched.name))).data.test
    assert test is not None
    use_metric(monkeypatch, MetricOfParts(test.samples))
    events: list[Event] = []
    result = run.finetune(
        searched.name,
        searched.storage,
        overrides=[f"output.folder={tmp_path}/out", "finetune.epochs=1", "finetune.teacher=none"],
        watch=events.append,
    )
    assert (result.test_score, result.dense_test_score) == (None, None)
    assert math.isfinite(result.val_score)
    warning = Stage("warning: task.metric is nan on the test part, so no test score is kept")
    assert events.count(warning) == 2
    assert read_recipe(result.folder).extra["test_score"] is None


def test_a_metric_that_is_no_number_after_a_finetune_can_be_mended(
    searched: SearchResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_study(searched.storage, searched.name)
    images = load_dense(stored_spec(opened)).data.val.samples
    overrides = [f"output.folder={tmp_path}/out", "finetune.epochs=1", "finetune.teacher=none"]
    events: list[Event] = []

    def tune(metric: Callable[..., float | torch.Tensor]) -> FinetuneResult:
        use_metric(monkeypatch, metric)
        return run.finetune(searched.name, searched.storage, overrides=overrides, watch=events.append)

    with pytest.raises(TrialError, match=r"finetune: task\.metric is nan on the validation part after"):
        tune(MetricOfParts(images))
    assert sum(isinstance(event, EpochDone) for event in events) == 1
    assert math.isfinite(tune(accuracy).val_score)
    assert sum(isinstance(event, EpochDone) for event in events) == 1, "it was trained twice"
