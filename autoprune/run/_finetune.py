"""Retrains the best plan of a study, or one that was picked, reads the test part once, and saves the model.

A killed finetune goes on from its last epoch; a finished one stays. If the trials were cut from a supernet or
repaired, so is the winner, which may need no finetune: finetune.epochs = 0.

    result = finetune("digits", "sqlite:///runs/digits.db")
    result.folder, result.test_score
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
from torch import nn

from autoprune.config.rungs import asks_for_repair
from autoprune.config.settings import RunConfig
from autoprune.criteria import plan_from_importance
from autoprune.data import UserLoaders, VisionData
from autoprune.errors import StudyError, TrialError
from autoprune.execution import Setting
from autoprune.exporting import RECIPE, WEIGHTS, save_pruned
from autoprune.graph import Cost, Plan
from autoprune.rebuilding import rebuild
from autoprune.reconstruction import repair_closed
from autoprune.run._dense import GIVEN_MODEL, Dense, given_dense, load_dense
from autoprune.run._events import GIVEN_WATCH, Stage, Watcher, silent
from autoprune.run._finetune_result import BEST, FinetuneResult, find_result, record_result, trial_folder
from autoprune.run._identity import identify
from autoprune.run._latency import stored_tables
from autoprune.run._moments import StudyMoments, prepare_moments
from autoprune.run._paths import check_writable, find_storage, kept_files, require_free
from autoprune.run._problem import pose
from autoprune.run._scoring import with_weights
from autoprune.run._stored_config import (
    change_config,
    on_device_of,
    stored_config,
    stored_ranking,
    stored_setting,
    threads_of,
)
from autoprune.run._supernet_training import known_supernet
from autoprune.run._train import naming_learning_rate, schedule_of, tell_epochs
from autoprune.run._trust import (
    Consent,
    consent_of,
    keep_consent,
    require_place,
    require_places,
    signed_architecture,
    trusted,
)
from autoprune.score import calibrate
from autoprune.study import SearchStudy, TrialRecord, open_study
from autoprune.support.usercode import entry
from autoprune.train import evaluate, fit


@entry(study=str, storage=(str, NoneType), trial=(int, NoneType), model=GIVEN_MODEL, watch=GIVEN_WATCH)
def finetune(
    study: str,
    storage: str | None = None,
    *,
    trial: int | None = None,
    model: nn.Module | None = None,
    data: VisionData | UserLoaders | None = None,
    overrides: Sequence[str] = (),
    trust: bool = False,
    config: RunConfig | str | Path | Mapping[str, Any] | None = None,
    watch: Watcher | None = None,
) -> FinetuneResult:
    """Retrain the best plan of a study fully, evaluate it once on the test part, and save it.

    With finetune.epochs = 0 nothing is trained: the candidate is saved as the last rung before a training
    scored it, repaired if a rung repairs, and recalibrated under the trial's seed.

    Args:
        study: its name.
        storage: its URL; default runs/STUDY.db.
        trial: the number of another trial to retrain in place of the best; it has a folder of its own.
        model: the same dense model, if `search` was given it.
        data: the same data.
        overrides: "section.key=value"; all of [finetune], and the keys that `resume` takes.
        trust: whether code that the study names may run although no config of this user's own named it here.
        config: a config of your own, as `search` takes it, whose names are trusted.
        watch: called with events as the training goes on.

    Raises:
        StudyError: no trial has completed, or not the one that was named; or model or data are not those of
            the study, or its trials run on a device that is not here, or it names code or places that are not
            trusted.
        TrialError: the training diverged.
    """
    watch = watch or silent
    url = find_storage(study, storage)
    consent = consent_of(trust, config, overrides)
    opened = open_study(url, study)
    changed = change_config(stored_config(opened), overrides)
    with trusted(opened, changed, consent):
        require_places(opened, changed, consent)
        dense = given_dense(model, data, on_device_of(stored_setting(opened), changed))
        return _finetune(opened, changed, trial, dense, consent, watch)


def _finetune(
    opened: SearchStudy,
    config: RunConfig,
    trial: int | None,
    dense: Dense | None,
    consent: Consent,
    watch: Watcher,
) -> FinetuneResult:
    """Finetune the best trial, or the one of that number, once the study's config is trusted."""
    name = BEST if trial is None else trial_folder(trial)
    folder = Path(str(config.output.folder))
    require_place(opened, "output.folder", folder / name, consent)  # it may be a link that was received
    record = opened.best() if trial is None else _complete(opened, trial)
    for file in (WEIGHTS, RECIPE):
        require_free(folder / name / file, "output.folder", kept_files(opened.url, config))
    check_writable(folder, "output.folder")
    keep_consent(opened, config, consent)
    identity = _identity(record, config, folder)
    known = find_result(opened, name, identity)
    if known is not None:
        watch(Stage(f"trial {record.number} is finetuned already; the test part is not read again"))
        return known
    setting = stored_setting(opened)
    dense = dense or load_dense(on_device_of(setting, config))
    cut = _cut(opened, record, config, dense, watch)
    watch(Stage(_intention(record, cut, config)))
    state = folder / f"finetune-trial-{record.number}.training"
    with threads_of(config.search.engine, setting):
        result = FinetuneResult(
            study=opened.name,
            folder=folder / name,
            trial=record.number,
            cost=cut.cost,
            dense_cost=cut.dense_cost,
            val_score=_retrain(cut.small, record, dense, config, setting, state, watch),
            test_score=_on_test(cut.small, dense, setting, watch),
            dense_val_score=opened.facts.dense_score,
            dense_test_score=_on_test(copy.deepcopy(dense.model), dense, setting, watch),
        )
    extra = {**_extra(result, config, dense), **signed_architecture(opened, config, consent)}
    save_pruned(cut.small.cpu(), cut.plan, result.folder, extra=extra)
    record_result(opened, result, identity)
    if config.finetune.epochs:  # else a state that is there is of another finetune, which was stopped
        state.unlink(missing_ok=True)
    return result


def _identity(record: TrialRecord, config: RunConfig, folder: Path) -> dict[str, Any]:
    """Tell what a finetune is of, and how: one with the same is not repeated."""
    return {
        "trial": record.number,
        "finetune": dataclasses.asdict(config.finetune),
        "folder": str(folder),
    }


@dataclass(frozen=True)
class _Cut:
    """The small model before its finetune, the plan that cut it, and what it and the dense one cost."""

    small: nn.Module
    plan: Plan
    cost: Cost
    dense_cost: Cost


def _cut(study: SearchStudy, record: TrialRecord, config: RunConfig, dense: Dense, watch: Watcher) -> _Cut:
    """Cut a trial's plan from the weights that the trials were cut from, and repair it if they were.

    Raises:
        StudyError: model or data are not those of the study.
        CheckpointError: the supernet or the moments of the study are gone.
    """
    problem = pose(dense, config, stored_tables(study, config))
    study.require(identify(dense, problem, config))
    plan = plan_from_importance(problem.prunable, record.widths, stored_ranking(study, problem.prunable))
    cut_from = with_weights(problem.prunable, known_supernet(study, config))
    small = rebuild(cut_from, plan)
    moments = StudyMoments(cut_from, dense.data, config, stored_setting(study), watch)
    prepared = prepare_moments(study, moments)
    if prepared is not None:
        small = repair_closed(cut_from, plan, small, prepared[1]).model
    widths = np.array([[record.widths[name] for name in problem.space.groups]], dtype=np.int64)
    return _Cut(small, plan, problem.cost(widths).one(), problem.dense_cost)


def _complete(study: SearchStudy, number: int) -> TrialRecord:
    """Return the record of a trial that climbed every rung.

    Raises:
        StudyError: there is none of that number, or it did not.
    """
    records = {record.number: record for record in study.records()}
    if number not in records:
        last = max(records, default=-1)
        hint = ", and this one is damaged" if 0 <= number < last else ""
        raise StudyError(f"--trial {number}: {study.name} has trials 0 to {last}{hint}.")
    if not records[number].is_whole:
        state = "was pruned" if records[number].pruned else f"is {records[number].state}"
        raise StudyError(
            f"--trial {number}: it {state}; choose a complete one from `autoprune report {study.name}`."
        )
    return records[number]


def _intention(record: TrialRecord, cut: _Cut, config: RunConfig) -> str:
    share = int(cut.cost.macs) / int(cut.dense_cost.macs)
    settings, repaired = config.finetune, asks_for_repair(config.score.rungs)
    if settings.epochs == 0:
        intended = f"no finetune, {'repaired and ' if repaired else ''}BatchNorm is recalibrated"
    else:
        start = " from repaired weights" if repaired else ""
        intended = f"finetuning for {settings.epochs} epochs{start}, teacher {settings.teacher}"
    return f"trial {record.number} ({share:.1%} of the MACs): {intended}"


def _retrain(
    small: nn.Module,
    best: TrialRecord,
    dense: Dense,
    config: RunConfig,
    setting: Setting,
    state: Path,
    watch: Watcher,
) -> float:
    """Train the small model in place, from `state` where there is one; returns its validation score.

    Raises:
        TrialError: the training diverged, or the score is not finite.
    """
    score = _trained(small, best, dense, config, setting, state, watch)
    if not math.isfinite(score):  # the metric may have been mended since the last epoch
        score = evaluate(small, dense.data.val, dense.task, setting)
    if not math.isfinite(score):
        raise TrialError(
            f"finetune: task.metric is {score} on the validation part after the training, expected a finite "
            "number; mend the metric and give the same command again: the trained weights are kept."
        )
    return score


def _trained(
    small: nn.Module,
    best: TrialRecord,
    dense: Dense,
    config: RunConfig,
    setting: Setting,
    state: Path,
    watch: Watcher,
) -> float:
    settings = config.finetune
    if settings.epochs == 0:
        calibrate(small, dense.data, config.score.calibration_batches, setting, seed=best.seed or 0)
        return evaluate(small, dense.data.val, dense.task, setting)
    with naming_learning_rate(settings):
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


def _on_test(model: nn.Module, dense: Dense, setting: Setting, watch: Watcher) -> float | None:
    """Return the score on the test part; None if there is no such part, or the score is not finite."""
    if dense.data.test is None:
        return None
    score = evaluate(model, dense.data.test, dense.task, setting)
    if math.isfinite(score):
        return score
    watch(Stage(f"warning: task.metric is {score} on the test part, so no test score is kept"))
    return None


def _extra(result: FinetuneResult, config: RunConfig, dense: Dense) -> dict[str, Any]:
    """Return what the recipe holds beside the plan: where it comes from, what loads it, what it scored."""
    architecture = {
        "name": config.model.name or config.model.factory,
        "classes": dense.data.classes,
        "input_shape": list(dense.data.input_shape),
    }
    return {"study": result.study, "trial": result.trial, "architecture": architecture, **result.scores}
