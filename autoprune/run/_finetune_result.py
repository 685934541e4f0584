"""What the finetunes of a study gave: noted in the study, so that none is done twice and `export` finds it.

record_result(study, result, identity)
find_result(study, BEST, identity)      # the same, as long as its folder holds the model
saved_folder(study, spec)               # runs/digits/best
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from autoprune.errors import CheckpointError, StudyError
from autoprune.exporting import RECIPE, read_recipe
from autoprune.graph import Cost
from autoprune.run._spec import RunSpec
from autoprune.study import SearchStudy
from autoprune.support.atomic import saving
from autoprune.support.schema import Strict, read_as

BEST = "best"
"""The folder under the output folder that receives the finetuned model."""

_TRIAL = "trial-"
_RESULT = "autoprune:finetuned"


@dataclass(frozen=True)
class FinetuneResult:
    """A finetuned model: where it lies, what it costs and scores, and the dense model beside it.

    Attributes:
        study: its name.
        folder: what `save_pruned` wrote.
        trial: number of the trial whose plan it is.
        cost: of the small model.
        dense_cost: of the dense one.
        val_score: the small model's after the last epoch.
        test_score: the same on the test part, read once; None where the data have none.
        dense_val_score: the dense model's.
        dense_test_score: the dense model's; None where the data have no test part.
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

    @property
    def scores(self) -> dict[str, float | None]:
        """The four scores by their names."""
        return {
            "val_score": self.val_score,
            "test_score": self.test_score,
            "dense_val_score": self.dense_val_score,
            "dense_test_score": self.dense_test_score,
        }


def trial_folder(number: int) -> str:
    """Return the folder under the output folder that receives the model of a trial that was named."""
    return f"{_TRIAL}{number}"


def record_result(study: SearchStudy, result: FinetuneResult, identity: Mapping[str, Any]) -> None:
    """Note a result in its study under the name of its folder; the identity is what it was made from."""
    costs = {name: getattr(result, name).known() for name in ("cost", "dense_cost")}
    study.store_note(_note(result.folder.name), {"identity": dict(identity), **costs, **result.scores})


def find_result(study: SearchStudy, name: str, identity: Mapping[str, Any]) -> FinetuneResult | None:
    """Return the result of the same finetune, as long as the folder `name` holds its model.

    The best trial may be finetuned as such and by its number. Its test score is read once all the same: a
    model that lies under the other name is copied, with its note.

    Raises:
        CheckpointError: there is no room for the copy.
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
    for file in sorted(twin.folder.iterdir(), key=lambda file: file.name == RECIPE):  # by which it is found
        if file.is_file():
            # Never written in place: the folder may be a received one, with links of these names.
            with saving(folder / file.name, "copy of the finetuned model") as partial:
                shutil.copyfile(file, partial)
    study.store_note(_note(name), study.note(_note(other)))
    return dataclasses.replace(twin, folder=folder)


def saved_folder(study: SearchStudy, spec: RunSpec) -> Path:
    """Return where the finetuned model of a study lies, or would: where its last finetune has put it.

    That is the output folder as the finetune was told it; the study's own where nothing is there any more.
    """
    noted = _noted_folder(study, BEST)
    return noted if noted is not None and noted.is_dir() else spec.folder / BEST


def saved_trials(study: SearchStudy) -> list[Path]:
    """Return the folders of trials that were finetuned by their numbers, as far as they are there."""
    noted = (_noted_folder(study, trial_folder(record.number)) for record in study.records())
    return [folder for folder in noted if folder is not None and folder.is_dir()]


def known_results(study: SearchStudy) -> list[FinetuneResult]:
    """Return the results of all finetunes of a study whose folders still hold their models."""
    names = [BEST, *(trial_folder(record.number) for record in study.records())]
    stored = {name: _stored(study, name) for name in names}
    found = (
        _known_result(study, name, note["identity"]) for name, note in stored.items() if note is not None
    )
    return [result for result in found if result is not None]


class _Identity(Strict):
    trial: int
    folder: str
    finetune: dict[str, Any]


_OLDER_COSTS = ("macs", "params", "latency_ms", "size_bytes", "peak_memory_bytes")
"""The costs of an older version, which stored no names."""


def _named(costs: Any) -> Any:
    """Name the costs of an older version, and leave out those that are not known."""
    if isinstance(costs, list) and len(costs) <= len(_OLDER_COSTS):
        costs = dict(zip(_OLDER_COSTS, costs, strict=False))
    return {k: v for k, v in costs.items() if v is not None} if isinstance(costs, dict) else costs


def _with_counts(costs: dict[str, int | float]) -> dict[str, int | float]:
    if not {"macs", "params"} <= costs.keys():
        raise ValueError("MACs, parameters and perhaps other costs")
    return costs


_Costs = Annotated[dict[str, int | float], BeforeValidator(_named), AfterValidator(_with_counts)]


class _Stored(Strict):
    """The note on a finetune, as a study keeps it."""

    identity: _Identity
    cost: _Costs
    dense_cost: _Costs
    val_score: float
    test_score: float | None
    dense_val_score: float
    dense_test_score: float | None


def _stored(study: SearchStudy, name: str) -> dict[str, Any] | None:
    """Return the note on the finetune whose model lies in the folder `name`; None if there is none.

    Raises:
        StudyError: it is damaged.
    """
    values = study.note(_note(name))
    if values is None:
        return None
    where, advice = f"{study.name}: {_note(name)} is damaged", "restore the storage from a copy."
    read = read_as(_Stored, values, where=where, error=StudyError, advice=advice)
    return {**values, "cost": read.cost, "dense_cost": read.dense_cost}


def is_untrained(study: SearchStudy, folder: Path) -> bool:
    """Tell whether a folder holds what finetune.epochs = 0 saved of a study: it is quickly made again."""
    stored = _stored(study, BEST)
    if stored is None:
        return False
    return stored["identity"]["finetune"].get("epochs") == 0 and _noted_folder(study, BEST) == folder


def _note(name: str) -> str:
    """Return where a study notes the result that lies in the folder `name`."""
    return _RESULT if name == BEST else f"{_RESULT}:{name}"


def _noted_folder(study: SearchStudy, name: str) -> Path | None:
    stored = _stored(study, name)
    return None if stored is None else Path(stored["identity"]["folder"]) / name


def _known_result(study: SearchStudy, name: str, identity: Mapping[str, Any]) -> FinetuneResult | None:
    """Return the result of the same finetune, where the folder `name` still holds the model."""
    stored = _stored(study, name)
    if stored is None or stored["identity"] != identity:
        return None
    folder = Path(identity["folder"]) / name
    try:
        if read_recipe(folder).extra.get("trial") != identity["trial"]:
            return None
    except CheckpointError:
        return None
    return FinetuneResult(
        study=study.name,
        folder=folder,
        trial=int(identity["trial"]),
        cost=Cost(**stored["cost"]),
        dense_cost=Cost(**stored["dense_cost"]),
        val_score=stored["val_score"],
        test_score=stored["test_score"],
        dense_val_score=stored["dense_val_score"],
        dense_test_score=stored["dense_test_score"],
    )
