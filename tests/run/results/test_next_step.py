"""The next command of a study, and the line that a saved model ends with."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from autoprune.exporting import save_pruned
from autoprune.graph import Cost, Plan
from autoprune.run import after_saving
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._resolving.stored_config import change_spec
from autoprune.run._results.finetune_result import FinetuneResult, record_result
from autoprune.run._results.next_step import next_step
from tests.engines.toy import new_study
from tests.reporting.test_tables import SUMMARY


def test_a_folder_without_an_exported_file_names_the_command_that_writes_one(tmp_path: Path) -> None:
    assert after_saving(tmp_path, "autoprune export s") == f"Saved in {tmp_path}. Next: autoprune export s"


def test_a_folder_with_one_names_its_readme(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    expected = f"Saved in {tmp_path}. README.md there shows how to load the model."
    assert after_saving(tmp_path, "autoprune export s") == expected


def test_a_model_of_earlier_finetune_settings_is_finetuned_again(tmp_path: Path) -> None:
    study, spec = new_study(f"journal:///{tmp_path}/study.log"), RunSpec.of("digits")
    study.store_config(dataclasses.asdict(spec))
    folder = tmp_path / "best"
    save_pruned(nn.Linear(2, 2), Plan({}), folder, extra={"trial": 0})
    (folder / "model.onnx").touch()

    def finetuned(*overrides: str) -> None:
        cost, settings = Cost(macs=1, params=2), change_spec(spec, overrides).finetune
        result = FinetuneResult("toy", folder, 0, cost, cost, 0.9, None, 0.9, None)
        identity: dict[str, Any] = {"trial": 0, "folder": str(tmp_path)}
        record_result(study, result, {**identity, "finetune": dataclasses.asdict(settings)})

    def configured(*overrides: str) -> None:
        study.store_config(dataclasses.asdict(change_spec(spec, overrides)))

    done = f"Nothing is left to do: trial 0 is finetuned and exported to {folder}/model.onnx."
    again = "Next: autoprune finetune s"
    finetuned()
    assert next_step(study, SUMMARY) == done
    configured("finetune.learning_rate=0.002")
    assert next_step(study, SUMMARY).startswith(again)
    finetuned("finetune.learning_rate=0.002")
    assert next_step(study, SUMMARY) == done
    finetuned("finetune.epochs=1")  # by choice, as `finetune --set` does
    assert next_step(study, SUMMARY) == done
    configured("finetune.learning_rate=0.003")
    assert next_step(study, SUMMARY).startswith(again)
    configured("finetune.epochs=1")
    assert next_step(study, SUMMARY) == done


def test_a_line_names_the_storage_only_if_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = new_study(f"sqlite:///{tmp_path}/runs/s.db")
    assert next_step(study, SUMMARY) == "Next: autoprune finetune s"
    assert next_step(study, SUMMARY, anywhere=True) == f"Next: autoprune finetune s --storage {study.url}"
