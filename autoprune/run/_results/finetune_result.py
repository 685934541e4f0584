"""The results of finetunes, stored in their study so that none is repeated and `export` finds the model.

Example:
    record_result(study, result, identity)
    find_result(study, BEST, identity)      # the same result, if its folder still holds the model
    saved_folder(study, spec)               # runs/digits/best
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from rich.table import Table
from torch import nn

from autoprune.config.settings import FinetuneSettings
from autoprune.errors import CheckpointError, StudyError
from autoprune.exporting import RECIPE, ExportReport, read_recipe
from autoprune.flow import to_values
from autoprune.graph import Cost, Plan
from autoprune.reporting import Epoch
from autoprune.run._resolving.session import Session
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._resolving.stored_config import stored_spec
from autoprune.run._results.saved_model import load_saved
from autoprune.run._results.tables import pruned_table, scores_line
from autoprune.run._trials.retraining import raced_spec
from autoprune.study import SearchStudy
from autoprune.support.atomic import saving
from autoprune.support.notebook import Shown
from autoprune.support.schema import Strict, read_as

BEST = "best"
"""The folder under the output folder that receives the finetuned model."""

_TRIAL = "trial-"
_RESULT = "autoprune:finetuned"


@dataclass(frozen=True, repr=False)
class FinetuneResult(Shown):
    """The folder, costs and scores of a finetuned model, and the costs and scores of the dense model.

    Attributes:
        study: name of the study.
        folder: the folder that `save_pruned` wrote.
        trial: number of the trial whose plan was retrained.
        cost: cost of the small model.
        dense_cost: cost of the dense model.
        val_score: score of the small model on the validation part, after the last epoch.
        test_score: score of the small model on the test part, or None if the data have none.
        dense_val_score: score of the dense model on the validation part.
        dense_test_score: score of the dense model on the test part, or None if the data have none.
        epochs: the epochs of the training, or () if nothing was trained or an earlier version trained it.
        storage: URL of the storage of the study.
        session: the objects that the caller of `finetune` has passed.
    """

    study: str
    folder: Path
    trial: int
    cost: Cost
    dense_cost: Cost
    val_score: float
    test_score: float | None
    dense_val_score: float
    dense_test_score: float | None
    epochs: tuple[Epoch, ...] = ()
    storage: str = ""
    session: Session = field(default_factory=Session, compare=False)

    def _headline(self) -> str:
        return f"{self.study}, trial {self.trial}: {scores_line(self)}, saved in {self.folder}"

    def _tables(self) -> list[Table]:
        return [pruned_table(self)]

    @property
    def place(self) -> tuple[str, str]:
        """The name of the study and the URL of its storage."""
        return self.study, self.storage

    @cached_property
    def model(self) -> nn.Module:
        """The small model, on the CPU and in evaluation mode, loaded from `folder`.

        Raises:
            CheckpointError: the folder is gone, or its recipe names no architecture that can be built.
        """
        return load_saved(self.folder, model=self.session.model).eval()

    @cached_property
    def plan(self) -> Plan:
        """The channels that the small model keeps."""
        return read_recipe(self.folder).plan

    def export(self, path: str | os.PathLike[str] | None = None, format: str = "onnx") -> ExportReport:
        """Export the small model, as `autoprune.export` does. By default the file lies in `folder`."""
        from autoprune.run._export import export_saved  # it imports this module

        return export_saved(self.folder, format, output=path, session=self.session)

    @property
    def scores(self) -> dict[str, float | None]:
        """The four scores by name."""
        return {
            "val_score": self.val_score,
            "test_score": self.test_score,
            "dense_val_score": self.dense_val_score,
            "dense_test_score": self.dense_test_score,
        }


def trial_folder(number: int) -> str:
    """Return the name of the folder, in the output folder, for a trial that was chosen by its number."""
    return f"{_TRIAL}{number}"


def record_result(study: SearchStudy, result: FinetuneResult, identity: Mapping[str, Any]) -> None:
    """Store a result in its study, under the name of its folder, with the settings that the study has now.

    Args:
        study: the study.
        result: the result of a finetune.
        identity: the trial, settings and output folder that it was made with.
    """
    costs = {name: getattr(result, name).known() for name in ("cost", "dense_cost")}
    epochs = [[epoch.loss, epoch.score] for epoch in result.epochs]
    values = {
        "identity": dict(identity),
        **costs,
        **result.scores,
        "epochs": epochs,
        "planned": _planned(study),
    }
    study.store_note(_note(result.folder.name), values)


def find_result(study: SearchStudy, name: str, identity: Mapping[str, Any]) -> FinetuneResult | None:
    """Return the result of the same finetune, if the folder `name` still holds its model.

    A trial can be finetuned as the best one and by its number. Its test score must be read only once, so if
    the model lies in the folder of the other name, that folder is copied together with its note.

    Raises:
        CheckpointError: the disk has no room for the copy.
        StudyError: the note is damaged.
    """
    known = _known_result(study, name, identity)
    if known is not None:
        return known
    other = trial_folder(identity["trial"]) if name == BEST else BEST
    twin = _known_result(study, other, identity)
    if twin is None:
        return None
    folder = twin.folder.with_name(name)
    for file in sorted(twin.folder.iterdir(), key=lambda file: file.name == RECIPE):  # completes the copy
        if file.is_file():
            # Replaced, never written in place: in a received folder these names may be links to elsewhere.
            with saving(folder / file.name, "copy of the finetuned model") as partial:
                shutil.copyfile(file, partial)
    study.store_note(_note(name), study.note(_note(other)))
    return dataclasses.replace(twin, folder=folder)


def saved_folder(study: SearchStudy, spec: RunSpec) -> Path:
    """Return the folder of a study's finetuned model, whether it exists or not.

    A finetune may have used another output folder than the study. That one is preferred if it still exists.
    """
    noted = _noted_folder(study, BEST)
    return noted if noted is not None and noted.is_dir() else spec.folder / BEST


def saved_trials(study: SearchStudy) -> list[Path]:
    """Return the existing folders of trials that were finetuned by their numbers."""
    noted = (_noted_folder(study, trial_folder(record.number)) for record in study.records())
    return [folder for folder in noted if folder is not None and folder.is_dir()]


def noted_folders(study: SearchStudy) -> list[Path]:
    """Return the folders of all finetunes of a study, whether they exist or not."""
    names = [BEST, *(trial_folder(record.number) for record in study.records())]
    return [folder for name in names if (folder := _noted_folder(study, name)) is not None]


def known_results(study: SearchStudy) -> list[FinetuneResult]:
    """Return the results of all finetunes of a study whose folders still hold the models."""
    noted = {key.removeprefix(_RESULT).lstrip(":") or BEST for key in study.noted(_RESULT)}
    names = [BEST, *(trial_folder(record.number) for record in study.records())]
    stored = {name: _stored(study, name) for name in names if name in noted}
    found = (
        _known_result(study, name, note["identity"]) for name, note in stored.items() if note is not None
    )
    return [result for result in found if result is not None]


def is_current(study: SearchStudy, result: FinetuneResult) -> bool:
    """Return whether a finetune is the one that its study plans now.

    A finetune whose settings differ by choice, as those of `finetune --set` do, is current until the study's
    own settings change.
    """
    stored, planned = _stored(study, result.folder.name), _planned(study)
    made = () if stored is None else (stored["identity"]["finetune"], stored.get("planned"))
    return any(each is not None and _with_defaults(each) == planned for each in made)


def _planned(study: SearchStudy) -> dict[str, Any]:
    """Return the settings of a finetune of the study without overrides, as JSON reads them back."""
    return to_values(raced_spec(study, stored_spec(study)).finetune)


class _Identity(Strict):
    trial: int
    folder: str
    finetune: dict[str, Any]


_OLDER_COSTS = ("macs", "params", "latency_ms", "size_bytes", "peak_memory_bytes")
"""The order of costs in notes of older versions, which stored no names."""


def _named(costs: Any) -> Any:
    """Add names to the costs of an older version, and drop unknown costs."""
    if isinstance(costs, list) and len(costs) <= len(_OLDER_COSTS):
        costs = dict(zip(_OLDER_COSTS, costs, strict=False))
    return {k: v for k, v in costs.items() if v is not None} if isinstance(costs, dict) else costs


def _with_counts(costs: dict[str, int | float]) -> dict[str, int | float]:
    if not {"macs", "params"} <= costs.keys():
        raise ValueError("MACs, parameters and perhaps other costs")
    return costs


_Costs = Annotated[dict[str, int | float], BeforeValidator(_named), AfterValidator(_with_counts)]


class _Stored(Strict):
    """The note on a finetune, as a study stores it."""

    identity: _Identity
    cost: _Costs
    dense_cost: _Costs
    val_score: float
    test_score: float | None
    dense_val_score: float
    dense_test_score: float | None
    epochs: list[Annotated[list[float], Field(min_length=2, max_length=2)]] = Field(default_factory=list)
    planned: dict[str, Any] | None = None  # an earlier version did not store it


def _stored(study: SearchStudy, name: str) -> dict[str, Any] | None:
    """Return the note on the finetune whose model lies in the folder `name`, or None if there is none.

    Raises:
        StudyError: the note is damaged.
    """
    values = study.note(_note(name))
    if values is None:
        return None
    where, advice = f"{study.name}: {_note(name)} is damaged", "Restore the storage from a copy."
    read = read_as(_Stored, values, where=where, error=StudyError, advice=advice)
    return {**values, "cost": read.cost, "dense_cost": read.dense_cost, "epochs": read.epochs}


def is_untrained(study: SearchStudy, folder: Path) -> bool:
    """Return whether a folder holds a model of finetune.epochs = 0, which is quickly made again."""
    stored = _stored(study, BEST)
    if stored is None:
        return False
    return stored["identity"]["finetune"].get("epochs") == 0 and _noted_folder(study, BEST) == folder


def _note(name: str) -> str:
    """Return the key of the study's note on the model in the folder `name`."""
    return _RESULT if name == BEST else f"{_RESULT}:{name}"


def _noted_folder(study: SearchStudy, name: str) -> Path | None:
    stored = _stored(study, name)
    return None if stored is None else Path(stored["identity"]["folder"]) / name


def _is_same(stored: Mapping[str, Any], identity: Mapping[str, Any]) -> bool:
    """Return whether a stored identity is equal to another one. A version may not have known all settings."""
    both = [{**each, "finetune": _with_defaults(each["finetune"])} for each in (stored, identity)]
    first, second = (json.dumps(each, sort_keys=True) for each in both)
    return first == second


def _with_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored settings of a finetune with the defaults of those that its version did not know."""
    return {**to_values(FinetuneSettings()), **settings}


def _known_result(study: SearchStudy, name: str, identity: Mapping[str, Any]) -> FinetuneResult | None:
    """Return the result of the same finetune, if the folder `name` still holds the model."""
    stored = _stored(study, name)
    if stored is None or not _is_same(stored["identity"], identity):
        return None
    folder = Path(identity["folder"]) / name
    try:
        if read_recipe(folder).extra.get("trial") != identity["trial"]:
            return None
    except CheckpointError:
        return None
    return FinetuneResult(
        study=study.name,
        storage=study.url,
        folder=folder,
        trial=int(identity["trial"]),
        cost=Cost(**stored["cost"]),
        dense_cost=Cost(**stored["dense_cost"]),
        val_score=stored["val_score"],
        test_score=stored["test_score"],
        dense_val_score=stored["dense_val_score"],
        dense_test_score=stored["dense_test_score"],
        epochs=tuple(Epoch(*each) for each in stored["epochs"]),
    )
