"""Retrains the best plan of a study, or one that was picked, reads the test part once, and saves the model.

Before: `search`; after: `export`. A killed finetune goes on from its last epoch; a finished one stays. Where
the trials were cut from a supernet, so is the winner, which may need no finetune: finetune.epochs = 0.

    result = finetune("digits", "sqlite:///runs/digits.db")
    result.folder, result.test_score
"""

from __future__ import annotations

import copy
import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from autoprune.criteria import plan_from_importance
from autoprune.errors import CheckpointError, StudyError
from autoprune.export import read_recipe, save_pruned
from autoprune.graph import Cost, Plan
from autoprune.latency.placing import cpu_threads
from autoprune.pipeline.dense import Dense, load_dense
from autoprune.pipeline.events import Stage, Watcher, silent
from autoprune.pipeline.identity import identify
from autoprune.pipeline.latency import stored_tables
from autoprune.pipeline.places import check_writable
from autoprune.pipeline.problem import pose
from autoprune.pipeline.ranking import decode_ranking
from autoprune.pipeline.scoring import with_weights
from autoprune.pipeline.stored import change_config, stored_config, stored_setting
from autoprune.pipeline.supernet import known_supernet
from autoprune.pipeline.train import schedule_of, tell_epochs
from autoprune.precision import Setting
from autoprune.rebuild import rebuild
from autoprune.score import calibrate
from autoprune.settings import FinetuneSettings, RunConfig
from autoprune.study import SearchStudy, TrialRecord, open_study
from autoprune.train import evaluate, fit

BEST = "best"
"""The folder under the output folder that receives the finetuned model."""

TRIAL = "trial-"
"""How the folders begin that `finetune --trial` makes."""

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


def finetune(
    study: str,
    storage: str,
    *,
    trial: int | None = None,
    dense: Dense | None = None,
    overrides: Sequence[str] = (),
    watch: Watcher = silent,
) -> FinetuneResult:
    """Retrain the best plan of a study, evaluate it once on the test part and save it.

    With finetune.epochs = 0 nothing is trained: what is saved is the candidate as the foot of the ladder
    scored it, recalibrated under the trial's seed.

    Args:
        study: its name.
        storage: its URL.
        trial: the number of another one to retrain in the best one's place; it has a folder of its own.
        dense: the model and data that `search` was given, where it was given any.
        overrides: "section.key=value"; all of [finetune], and the keys that `resume` takes.
        watch: told how it goes on.

    Raises:
        StudyError: no trial has completed, or not the one that was named; or model or data are not those of
            the study; or its trials run on a device that is not here.
        TrialError: the training diverged.
    """
    opened = open_study(storage, study)
    config = change_config(stored_config(opened), overrides)
    best = opened.best() if trial is None else _complete(opened, trial)
    name = BEST if trial is None else f"{TRIAL}{trial}"
    folder = Path(str(config.output.folder))
    check_writable(folder, "output.folder")
    identity = {"trial": best.number, "finetune": dataclasses.asdict(config.finetune), "folder": str(folder)}
    known = _known_or_twin(opened, name, f"{TRIAL}{best.number}" if trial is None else BEST, identity)
    if known is not None:
        watch(Stage(f"trial {best.number} is finetuned already; the test part is not read again"))
        return known
    setting = stored_setting(opened)
    dense = dense or load_dense(config)
    problem = pose(dense, config, stored_tables(opened, config))
    opened.require(identify(dense, problem, config))
    plan = plan_from_importance(problem.prunable, best.widths, decode_ranking(opened.chosen["ranking"]))
    weights = known_supernet(opened, config)
    small = rebuild(problem.prunable if weights is None else with_weights(problem.prunable, weights), plan)
    share = (best.macs or 0) / int(problem.dense_cost.macs)
    watch(Stage(f"trial {best.number} ({share:.1%} of the MACs): {_intention(config.finetune)}"))
    state = folder / f"finetune-trial-{best.number}.training"
    with cpu_threads(setting.threads):
        val_score = _retrain(small, best, dense, config, setting, state, watch)
        test_score = _on_test(small, dense, setting)
        dense_test_score = _on_test(copy.deepcopy(dense.model), dense, setting)
    result = FinetuneResult(
        study=study,
        folder=folder / name,
        trial=best.number,
        cost=problem.cost(np.array([[best.widths[name] for name in problem.space.groups]])).one(),
        dense_cost=problem.dense_cost,
        val_score=val_score,
        test_score=test_score,
        dense_val_score=float(opened.chosen["dense_score"]),
        dense_test_score=dense_test_score,
    )
    _save(opened, result, small.cpu(), plan, dense, config, identity)
    state.unlink(missing_ok=True)
    return result


def _complete(study: SearchStudy, number: int) -> TrialRecord:
    """Return the record of a trial that climbed every rung.

    Raises:
        StudyError: there is none of that number, or it did not.
    """
    records = study.records()
    if not 0 <= number < len(records):
        raise StudyError(f"--trial {number}: {study.name} has trials 0 to {len(records) - 1}.")
    if not records[number].is_whole:
        state = "was stopped early" if records[number].stopped else f"is {records[number].state}"
        raise StudyError(
            f"--trial {number}: it {state}; choose a complete one from `autoprune report {study.name}`."
        )
    return records[number]


def _note(name: str) -> str:
    """Return where a study notes the result that lies in the folder `name`."""
    return _RESULT if name == BEST else f"{_RESULT}:{name}"


def saved_folder(study: SearchStudy, config: RunConfig) -> Path:
    """Return where the finetuned model of a study lies, or would: where its last finetune has put it.

    That is the output folder as the finetune was told it; the study's own where nothing is there any more.
    """
    stored = study.note(_RESULT)
    noted = Path(stored["identity"]["folder"]) / BEST if isinstance(stored, dict) else None
    return noted if noted is not None and noted.is_dir() else Path(str(config.output.folder)) / BEST


def is_untrained(study: SearchStudy, folder: Path) -> bool:
    """Tell whether a folder holds what finetune.epochs = 0 saved of a study: it is quickly made again."""
    stored = study.note(_RESULT)
    if not isinstance(stored, dict):
        return False
    identity = stored["identity"]
    return identity["finetune"]["epochs"] == 0 and Path(identity["folder"]) / BEST == folder


def _intention(settings: FinetuneSettings) -> str:
    if settings.epochs == 0:
        return "no finetune, BatchNorm is recalibrated"
    return f"finetuning for {settings.epochs} epochs, teacher {settings.teacher}"


def _retrain(
    small: nn.Module,
    best: TrialRecord,
    dense: Dense,
    config: RunConfig,
    setting: Setting,
    state: Path,
    watch: Watcher,
) -> float:
    """Train the small model in place, from `state` where there is one; returns its validation score."""
    settings = config.finetune
    if settings.epochs == 0:
        calibrate(small, dense.data, config.score.calibration_batches, setting, seed=best.seed or 0)
        return evaluate(small, dense.data.val, dense.task, setting)
    return fit(
        small,
        dense.data,
        schedule_of(settings),
        setting,
        dense.task,
        seed=settings.seed,
        teacher=copy.deepcopy(dense.model) if settings.teacher == "dense" else None,
        on_epoch=tell_epochs(settings.epochs, watch),
        checkpoint=state,
    ).score


def _on_test(model: nn.Module, dense: Dense, setting: Setting) -> float | None:
    return None if dense.data.test is None else evaluate(model, dense.data.test, dense.task, setting)


def _save(
    study: SearchStudy,
    result: FinetuneResult,
    small: nn.Module,
    plan: Plan,
    dense: Dense,
    config: RunConfig,
    identity: Mapping[str, Any],
) -> None:
    """Write the model with what it takes to load it, then record the result in the study."""
    scores = {
        "val_score": result.val_score,
        "test_score": result.test_score,
        "dense_val_score": result.dense_val_score,
        "dense_test_score": result.dense_test_score,
    }
    architecture = {
        "name": config.model.name or config.model.factory,
        "classes": dense.data.classes,
        "input_shape": list(dense.data.input_shape),
    }
    save_pruned(
        small,
        plan,
        result.folder,
        extra={"study": study.name, "trial": result.trial, "architecture": architecture, **scores},
    )
    costs = {
        "cost": dataclasses.astuple(result.cost),
        "dense_cost": dataclasses.astuple(result.dense_cost),
    }
    study.store_note(_note(result.folder.name), {"identity": dict(identity), **costs, **scores})


def _known_result(study: SearchStudy, name: str, identity: Mapping[str, Any]) -> FinetuneResult | None:
    """Return the result of the same finetune, where the folder `name` still holds the model."""
    stored = study.note(_note(name))
    if not isinstance(stored, dict) or stored["identity"] != identity:
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
        cost=Cost(*stored["cost"]),
        dense_cost=Cost(*stored["dense_cost"]),
        val_score=stored["val_score"],
        test_score=stored["test_score"],
        dense_val_score=stored["dense_val_score"],
        dense_test_score=stored["dense_test_score"],
    )


def _known_or_twin(
    study: SearchStudy, name: str, other: str, identity: Mapping[str, Any]
) -> FinetuneResult | None:
    """Return the result of the same finetune; one that lies under the `other` name is copied with its note.

    The best trial may be finetuned as such and by its number: its test score is read once all the same.
    """
    known = _known_result(study, name, identity)
    if known is not None:
        return known
    twin = _known_result(study, other, identity)
    if twin is None:
        return None
    folder = twin.folder.with_name(name)
    shutil.copytree(twin.folder, folder, dirs_exist_ok=True)
    study.store_note(_note(name), study.note(_note(other)))
    return dataclasses.replace(twin, folder=folder)
