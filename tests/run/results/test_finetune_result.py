"""Notes of finetunes and of the supernet in a study: a damaged one is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from autoprune.errors import StudyError
from autoprune.exporting import save_pruned
from autoprune.graph.plan import Plan
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._results.finetune_result import find_result, is_untrained, saved_folder
from tests.engines.toy import new_study
from tests.study.test_header import with_damage

IDENTITY = {"trial": 0, "folder": "runs", "finetune": {"epochs": 1}}
NOTE: dict[str, Any] = {
    "identity": IDENTITY,
    "cost": [1, 2, None],
    "dense_cost": [1, 2, None],
    "val_score": 0.9,
    "test_score": None,
    "dense_val_score": 0.9,
    "dense_test_score": None,
    "epochs": [[0.7, 0.8]],
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("identity",), []),
        (("identity",), ...),
        (("identity", "folder"), 3),
        (("identity", "trial"), "0"),
        (("identity", "finetune"), None),
        (("cost",), 5),
        (("cost",), [1] * 50),
        (("cost",), [1]),
        (("dense_cost",), [None, 2, None]),
        (("dense_cost",), ["1"]),
        (("val_score",), "high"),
        (("test_score",), ...),
        (("epochs",), [[0.5]]),
        (("epochs",), [[0.5, "high"]]),
    ],
)
def test_a_damaged_note_of_a_finetune_is_one_line(path: tuple[str, ...], value: Any, tmp_path: Path) -> None:
    study = new_study(f"journal:///{tmp_path}/study.log")
    study.store_note("autoprune:finetuned", NOTE)
    assert not is_untrained(study, tmp_path)
    study.store_note("autoprune:finetuned", with_damage(NOTE, path, value))
    message = r"^toy: autoprune:finetuned is damaged: .*\. Restore the storage"
    with pytest.raises(StudyError, match=message):
        find_result(study, "best", IDENTITY)
    with pytest.raises(StudyError, match=message):
        saved_folder(study, RunSpec.of("digits"))


def test_a_model_that_is_copied_is_written_through_no_link(tmp_path: Path) -> None:
    """A received study may come with a folder of links that have the names of the files."""
    identity = {**IDENTITY, "folder": str(tmp_path / "runs")}
    study = new_study(f"journal:///{tmp_path}/study.log")
    study.store_note("autoprune:finetuned:trial-0", {**NOTE, "identity": identity})
    save_pruned(nn.Linear(2, 2), Plan({}), tmp_path / "runs" / "trial-0", extra={"trial": 0})
    (tmp_path / "runs" / "best").mkdir()
    for name in ("model.safetensors", "recipe.json"):
        (tmp_path / f"mine-{name}").write_text("mine")
        (tmp_path / "runs" / "best" / name).symlink_to(tmp_path / f"mine-{name}")
    found = find_result(study, "best", identity)
    assert found is not None
    assert found.folder == tmp_path / "runs" / "best"
    for name in ("model.safetensors", "recipe.json"):
        assert (tmp_path / f"mine-{name}").read_text() == "mine"
        copied, saved = found.folder / name, tmp_path / "runs" / "trial-0" / name
        assert copied.read_bytes() == saved.read_bytes()
