"""Retrains the best trial of a study, or a chosen one, evaluates it once on the test part, and saves it.

A killed finetune resumes after its last epoch, and a finished one is not repeated. If the trials were cut
from a supernet or repaired, the winner is as well. It may then need no finetune (finetune.epochs = 0).

Example:
    result = finetune("digits", "sqlite:///runs/digits.db")
    result.folder, result.test_score
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from torch import nn

from autoprune.data import UserLoaders, VisionData
from autoprune.errors import AutopruneError, StudyError
from autoprune.execution import Group
from autoprune.exporting import CARD, RECIPE, WEIGHTS, CardFacts, save_pruned
from autoprune.flow import to_values
from autoprune.progress import GIVEN_WATCH, Watch, watching
from autoprune.reporting import Epoch, summarise, tolerance_notes
from autoprune.run._checks.stored_run import StoredRun, open_run
from autoprune.run._checks.trust import require_own_path, signed_architecture, store_consent
from autoprune.run._resolving.dense import GIVEN_MODEL, Dense, given_dense
from autoprune.run._resolving.paths import check_writable, protected_files, require_unprotected
from autoprune.run._resolving.resolve import resolve_stored
from autoprune.run._resolving.run import Run
from autoprune.run._resolving.session import STUDY, Session, StudyRef, of_study
from autoprune.run._resolving.spec import ConfigSource, RunSpec
from autoprune.run._resolving.stored_config import objects_of, threads_of
from autoprune.run._resolving.together import announce, together
from autoprune.run._results.artefact import begin_artefact, complete_artefact, export_formats
from autoprune.run._results.dashboard import keep_files, publish
from autoprune.run._results.finetune_result import (
    BEST,
    FinetuneResult,
    find_result,
    record_result,
    trial_folder,
)
from autoprune.run._results.model_card import card_of_trial, score_part
from autoprune.run._results.saved_model import architecture_of, load_saved
from autoprune.run._results.tracking import curve_of, tracking
from autoprune.run._trials.cut_trial import CutTrial, cut_trial, train_fully
from autoprune.run._trials.retraining import race_has_trained, raced_spec, training_state
from autoprune.study import SearchStudy, TrialRecord
from autoprune.support.events import Stage, Watcher
from autoprune.support.usercode import entry
from autoprune.training import EpochRecord


@entry(study=STUDY, storage=(str, NoneType), trial=(int, NoneType), model=GIVEN_MODEL, watch=GIVEN_WATCH)
def finetune(
    study: StudyRef,
    storage: str | None = None,
    *,
    trial: int | None = None,
    model: nn.Module | None = None,
    data: VisionData | UserLoaders | None = None,
    overrides: Sequence[str] = (),
    trust: bool = False,
    config: ConfigSource | None = None,
    watch: Watch = True,
) -> FinetuneResult:
    """Retrain the best trial of a study fully, evaluate it once on the test part, and save it.

    The winner of a race is trained already, so it is only evaluated and saved.

    Under torchrun every process calls this function, with the same arguments. They train together, process 0
    alone writes, and all return its result.

    With finetune.epochs = 0 nothing is trained. The candidate is saved as it was scored before the first
    finetune: repaired if a rung repairs, and recalibrated under the trial's seed.

    Args:
        study: name of the study, or the result of its search, which also knows its storage, model and data.
        storage: URL of its storage, runs/STUDY.db by default.
        trial: number of a trial to retrain instead of the best one. It is saved in its own folder.
        model: the same dense model, if `search` received one.
        data: the same data.
        overrides: changes as "section.key=value": any key of [finetune], and the keys that `resume` accepts.
        trust: whether code that the study names may run although no config of yours named it here.
        config: a config of your own, as `search` accepts it. The code that it names is trusted.
        watch: called with events that report the progress. True shows them if there is a terminal or a
            notebook, and None or False shows nothing.

    Returns:
        The scores and costs of the saved model, next to those of the dense model.

    Raises:
        StudyError: the study or the trial does not exist, the trial is not complete, model or data differ
            from those of the study, this machine lacks the device of the trials, or the study names code or
            paths that are not trusted.
        TrialError: the training diverged.

    Example:
        tuned = autoprune.finetune("digits", model=model, data=loaders)
        tuned.test_score, tuned.model, tuned.folder
    """
    name, url, session = of_study(study, storage, Session(model, data, config))
    objects = session.config

    def lead(group: Group) -> FinetuneResult:
        nonlocal objects
        opened = open_run(name, url, overrides, trust=trust, config=session.config)
        with watching(watch) as show, opened as stored:
            given = given_dense(session.model, session.data, stored.running)
            objects = objects_of(stored.spec)
            return _finetune(stored, trial, given, show, group)

    result = together(lead, session.data)
    return dataclasses.replace(result, session=dataclasses.replace(session, config=objects))


def _finetune(
    stored: StoredRun, trial: int | None, given: Dense | None, watch: Watcher, group: Group
) -> FinetuneResult:
    """Finetune the best trial, or the trial with the given number."""
    study = stored.study
    as_raced = stored.spec
    if "finetune.learning_rate" not in stored.consent.given:
        stored = dataclasses.replace(stored, spec=raced_spec(study, as_raced))
    spec = stored.spec
    name = BEST if trial is None else trial_folder(trial)
    folder = spec.folder / name
    # In a received output folder this folder may be a link to elsewhere.
    require_own_path(study, "output.folder", folder, stored.consent)
    record = study.best() if trial is None else _complete_trial(study, trial)
    if trial is None and study.facts.tolerance is not None:
        watch(Stage(*tolerance_notes(summarise(study))))
    for file in (WEIGHTS, RECIPE):
        require_unprotected(folder / file, "output.folder", protected_files(study.url, spec))
    check_writable(spec.folder, "output.folder")
    store_consent(study, spec, stored.consent)
    identity = _identity(record, spec)
    with tracking(study, spec, watch, curve=curve_of(record.number)) as tracked:
        known = find_result(study, name, identity)
        if known is None:
            announce(group, stored.running)
            run = dataclasses.replace(resolve_stored(study, stored.running, given, tracked), group=group)
            return _train_and_save(run, stored, record, as_raced, folder, identity)
        watch(Stage(f"trial {record.number} is finetuned already, so the test part is not read again"))
        if not (known.folder / CARD).exists():  # an earlier version made it, or this command was stopped here
            _complete_known(known, stored, given, watch)
        return known


def _train_and_save(
    run: Run,
    stored: StoredRun,
    record: TrialRecord,
    as_raced: RunSpec,
    folder: Path,
    identity: dict[str, Any],
) -> FinetuneResult:
    """Train a trial, test it, and save it in a folder with all files that belong to it."""
    study, spec, watch = stored.study, stored.spec, run.watch
    cut = cut_trial(run, study, record)
    is_trained = race_has_trained(study, record, as_raced)
    watch(Stage(_announcement(record, cut, spec, is_trained=is_trained)))
    with threads_of(spec.search.engine, run.setting):
        score, epochs = train_fully(run, cut.small, record)
        tested = score_part(run, cut.small, test=True)
        scored = tested or score_part(run, cut.small, test=False)
        result = FinetuneResult(
            study=study.name,
            storage=study.url,
            folder=folder,
            trial=record.number,
            cost=cut.cost,
            dense_cost=run.dense_cost,
            val_score=score,
            test_score=None if tested is None else tested.scores[0],
            dense_val_score=study.facts.dense_score,
            dense_test_score=None if tested is None else tested.scores[1],
            epochs=_finite(epochs),
        )
    training = _training(spec, is_trained=is_trained)
    card = card_of_trial(study, run, record, result.scores, scored, training=training)
    extra = {**_extra(result, run, card), **signed_architecture(study, spec, stored.consent)}
    begin_artefact(folder)
    save_pruned(cut.small.cpu(), cut.plan, folder, extra=extra)
    record_result(study, result, identity)
    if spec.finetune.epochs:  # with 0 the state belongs to another finetune, which was stopped
        training_state(spec, record.candidate).unlink(missing_ok=True)
    _complete(result.folder, stored, cut.small, watch)
    return result


def _complete_known(known: FinetuneResult, stored: StoredRun, given: Dense | None, watch: Watcher) -> None:
    """Add the files that are missing to the folder of a stored result, if its model can be loaded."""
    try:
        dense = None if given is None else given.model
        small = load_saved(known.folder, trust=stored.consent.trust, model=dense)
        _complete(known.folder, stored, small, watch)
    except AutopruneError as error:
        watch(Stage(f"warning: {known.folder} is not completed: {error}"))


def _complete(folder: Path, stored: StoredRun, small: nn.Module, watch: Watcher) -> None:
    """Add exported files, the report and the card to the folder of a finetuned model."""
    export_formats(folder, small, stored.spec.output.formats, watch=watch)
    page = publish(stored.study, stored.spec, watch)
    complete_artefact(folder, page, watch=watch)
    keep_files(stored.study, watch)  # with the card, which is written last


def _finite(records: Sequence[EpochRecord]) -> tuple[Epoch, ...]:
    """Return the epochs of a training, or () if the metric was no number after one of them."""
    found = tuple(Epoch(each.loss, each.score) for each in records)
    return found if all(math.isfinite(each.loss + each.score) for each in found) else ()


def _identity(record: TrialRecord, spec: RunSpec) -> dict[str, Any]:
    """Return the values that identify a finetune. One with the same identity is not repeated."""
    return {
        "trial": record.number,
        "finetune": to_values(spec.finetune),  # as it reads back
        "folder": str(spec.folder),
    }


def _complete_trial(study: SearchStudy, number: int) -> TrialRecord:
    """Return the record of a complete trial.

    Raises:
        StudyError: no trial has that number, or it is not complete.
    """
    records = {record.number: record for record in study.records()}
    if number not in records:
        last = max(records, default=-1)
        hint = ", and this one is damaged" if 0 <= number < last else ""
        raise StudyError(f"--trial {number}: {study.name} has trials 0 to {last}{hint}.")
    if not records[number].is_whole:
        state = "was pruned" if records[number].pruned else f"is {records[number].state}"
        raise StudyError(
            f"--trial {number}: it {state}. Choose a complete one from `autoprune report {study.name}`."
        )
    return records[number]


def _announcement(record: TrialRecord, cut: CutTrial, spec: RunSpec, *, is_trained: bool) -> str:
    settings, repaired = spec.finetune, spec.is_repaired
    if is_trained:
        rate = f"{settings.epochs} epochs at the learning rate {settings.learning_rate:g}"
        intended = f"the race has trained it for {rate}, so it is only tested and saved"
    elif settings.epochs == 0:
        intended = f"no finetune, {'repaired and ' if repaired else ''}BatchNorm is recalibrated"
    else:
        start = " from repaired weights" if repaired else ""
        intended = f"finetuning for {settings.epochs} epochs{start}, teacher {settings.teacher}"
    return f"trial {record.number} ({cut.share:.1%} of the MACs): {intended}"


def _training(spec: RunSpec, *, is_trained: bool) -> str:
    """Return the sentence of a card on the training after the cut."""
    settings, repaired = spec.finetune, "repaired, then " if spec.is_repaired else ""
    if settings.epochs == 0:
        return f"{repaired}none: BatchNorm was recalibrated"
    by = f"{settings.epochs} epochs of {settings.optimizer} at {settings.learning_rate:g}"
    return f"{repaired}{by}, teacher {settings.teacher}{', in the race of the search' if is_trained else ''}"


def _extra(result: FinetuneResult, run: Run, card: CardFacts) -> dict[str, Any]:
    """Return the part of the recipe besides the plan: origin, dense architecture and scores."""
    return {
        "study": result.study,
        "trial": result.trial,
        "architecture": architecture_of(run),
        "card": card.model_dump(mode="json"),
        **result.scores,
    }
