"""What a finetune saves and notes, and how it is found again."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import autoprune
from autoprune import pipeline
from autoprune.config import load_config
from autoprune.errors import ExportError
from autoprune.pipeline import SearchResult
from autoprune.study import open_study

QUICK = (
    "search.trials=2",
    "search.sampler=random",
    "search.warm_starts=[]",
    "search.setting=float32 contiguous",
    "score.rungs=['calibrate']",
    "score.calibration_batches=1",
    "train.epochs=1",
)

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
    return autoprune.search(config=load_config("digits", [*QUICK, *places]))


def test_an_export_takes_what_the_last_finetune_saved(
    searched: SearchResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study, storage = searched.study, searched.storage
    for name in ("one", "two"):
        elsewhere = [UNTRAINED, f"output.folder={tmp_path}/{name}"]
        tuned = pipeline.finetune(study, storage, overrides=elsewhere)
        exported = pipeline.export(study, "safetensors", storage=storage)
        assert exported.path == tuned.folder == tmp_path / name / "best"
    shutil.rmtree(tmp_path / "two")
    with pytest.raises(ExportError, match="nothing to export yet"):
        pipeline.export(study, "safetensors", storage=storage)


@pytest.mark.parametrize("best_first", [True, False])
def test_the_best_trial_by_its_number_is_the_same_finetune(
    searched: SearchResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, best_first: bool
) -> None:
    """The test part is read once, and both folders hold the model."""
    number = searched.best.number
    overrides = [UNTRAINED, f"output.folder={tmp_path}"]
    first, second = (None, number) if best_first else (number, None)
    study, storage = searched.study, searched.storage
    begun = pipeline.finetune(study, storage, trial=first, overrides=overrides)
    monkeypatch.setattr(sys.modules["autoprune.pipeline.finetune"], "evaluate", None)
    again = pipeline.finetune(study, storage, trial=second, overrides=overrides)
    assert {begun.folder.name, again.folder.name} == {"best", f"trial-{number}"}
    assert dataclasses.replace(again, folder=begun.folder) == begun
    assert pipeline.finetune(study, storage, trial=second, overrides=overrides) == again
    theirs = pipeline.load_saved(begun.folder).state_dict()
    for name, tensor in pipeline.load_saved(again.folder).state_dict().items():
        assert torch.equal(tensor, theirs[name])
    monkeypatch.chdir(tmp_path)
    assert pipeline.export(study, "safetensors", storage=storage).path == tmp_path / "best"


def test_no_finetune_leaves_the_state_of_a_stopped_one(searched: SearchResult, tmp_path: Path) -> None:
    """Of a killed finetune of 20 epochs, which an export without one must not throw away."""
    state = tmp_path / f"finetune-trial-{searched.best.number}.training"
    state.write_bytes(b"15 epochs")
    places = [UNTRAINED, f"output.folder={tmp_path}"]
    pipeline.finetune(searched.study, searched.storage, overrides=places)
    assert state.read_bytes() == b"15 epochs"


def test_the_dense_model_that_is_exported_is_the_studys(searched: SearchResult, tmp_path: Path) -> None:
    exported = pipeline.export(
        searched.study, "pt2", storage=searched.storage, dense=True, output=tmp_path / "dense.pt2"
    )
    assert exported.path.is_file()
    study = open_study(searched.storage, searched.study)
    checkpoint = Path(study.config["model"]["checkpoint"])
    kept = checkpoint.read_bytes()
    weights = {name: 2 * tensor for name, tensor in load_file(checkpoint).items()}
    try:
        save_file(weights, checkpoint)
        with pytest.raises(
            ExportError, match=r"dense\.safetensors does not hold the weights that the search"
        ):
            pipeline.export(
                searched.study, "pt2", storage=searched.storage, dense=True, output=tmp_path / "other.pt2"
            )
    finally:
        checkpoint.write_bytes(kept)
    assert not (tmp_path / "other.pt2").exists()
