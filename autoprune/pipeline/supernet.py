"""The supernet of a study: trained once, before its first trial, and kept beside the study's output.

Before: `search` has made the study; after: every trial, and the finetune, cut their models from its weights.

    weights = prepare_supernet(study, config, dense, problem, watch)      # None where no rung asks for it
    prunable = with_weights(problem.prunable, weights)

The file's name holds the fingerprint of all that the training rests on, and the study notes the hash of its
content. A training that was killed goes on after its last epoch; a finished one is never repeated: another
study with the same fingerprint and output folder takes the file as it is. Where several machines train it at
once, the first to end counts: its note is never replaced, since trials are scored with those weights by then.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import socket
from pathlib import Path
from typing import Any

from torch import nn

from autoprune.atomic import saving
from autoprune.errors import CheckpointError, StudyError, TrialError
from autoprune.pipeline.dense import Dense
from autoprune.pipeline.events import Stage, Watcher
from autoprune.pipeline.identity import identify
from autoprune.pipeline.problem import Problem
from autoprune.pipeline.stored import stored_ranking, stored_setting
from autoprune.pipeline.train import schedule_of, tell_epochs
from autoprune.precision import Setting
from autoprune.rungs import asks_for_supernet
from autoprune.schema import Strict, read_as
from autoprune.settings import RunConfig
from autoprune.study import SearchStudy
from autoprune.supernet import SandwichSampler
from autoprune.tensorfile import write_tensors
from autoprune.train import fit
from autoprune.zoo import checkpoint_hash

_NOTE = "autoprune:supernet"


def prepare_supernet(
    study: SearchStudy, config: RunConfig, dense: Dense, problem: Problem, watch: Watcher
) -> Path | None:
    """Return the file of a study's supernet, trained now if it is not there; None if no rung asks for it.

    The validation part is looked at for the record of each epoch only; the last epoch is what counts.

    Raises:
        CheckpointError: trials are scored with weights that are gone, changed, or those of another machine,
            which was faster; or nothing can be written.
        TrialError: the training diverged.
    """
    known = known_supernet(study, config)
    if known is not None or not asks_for_supernet(config.score.rungs):
        return known
    setting = stored_setting(study)
    subnets = SandwichSampler(
        problem.prunable,
        stored_ranking(study, problem.prunable),
        problem.space,
        random=config.supernet.subnets,
        budget_share=config.supernet.budget_share,
        seed=config.supernet.seed,
    )
    fingerprint = _fingerprint(dense, problem, config, setting, subnets)
    path = Path(str(config.output.folder)) / f"supernet-{fingerprint[:16]}.safetensors"
    state = path.with_suffix(".training")
    if path.is_file():
        watch(Stage(f"supernet: {path.name} is there, of the same model, data, space and settings"))
    else:
        shared = _trained(dense, config, setting, subnets, state, watch)
        if not path.is_file():  # another process may have been faster, and scored trials with its own
            with saving(path, "supernet") as partial:
                write_tensors(shared.state_dict(), partial)
    state.unlink(missing_ok=True)
    note = {"path": str(path), "sha256": checkpoint_hash(path), "host": socket.gethostname()}
    counts = study.store_note_once(_NOTE, note)
    if counts == note:
        return path
    watch(Stage("supernet: another process was faster; trials are scored with the weights that it trained"))
    return _file_of(counts, study, config)


def known_supernet(study: SearchStudy, config: RunConfig) -> Path | None:
    """Return the file of weights that a study's trials are cut from; None where it has trained none.

    It is looked for in the output folder, then where it was written.

    Raises:
        CheckpointError: it is gone, or holds other weights.
    """
    note = study.note(_NOTE)
    return None if note is None else _file_of(note, study, config)


class _Note(Strict):
    path: str
    sha256: str
    host: str = "the machine that trained them"


def _file_of(note: Any, study: SearchStudy, config: RunConfig) -> Path:
    """Return the file that a note is about.

    Raises:
        CheckpointError: there is none with these weights.
        StudyError: the note is damaged.
    """
    where, advice = f"{study.name}: its note on the supernet is damaged", "restore the storage from a copy."
    noted = read_as(_Note, note, where=where, error=StudyError, advice=advice)
    written = Path(noted.path)
    moved = Path(str(config.output.folder)) / written.name
    there = [path for path in (moved, written) if path.is_file()]
    for path in there:
        if checkpoint_hash(path) == noted.sha256:
            return path
    way_back = (
        f"put them back: {noted.host} wrote them as {written}. Copy them from there, share that folder, or "
        "begin another search."
    )
    if not there:
        raise CheckpointError(
            f"supernet {moved}: there is no such file, and the trials of {study.name} were scored with its "
            f"weights; {way_back}"
        )
    raise CheckpointError(
        f"supernet {there[0]}: it does not hold the weights that the trials of {study.name} were scored "
        f"with; {way_back}"
    )


def _fingerprint(
    dense: Dense, problem: Problem, config: RunConfig, setting: Setting, subnets: SandwichSampler
) -> str:
    """Hash all that decides the weights, but for the threads and the machine."""
    facts = {
        **identify(dense, problem, config),
        "subnets": subnets.identity,
        "schedule": dataclasses.asdict(config.supernet),
        "batches": [config.data.batch_size, config.data.augment],
        "loss": config.task.loss,
        "setting": [setting.device, setting.label],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _trained(
    dense: Dense,
    config: RunConfig,
    setting: Setting,
    subnets: SandwichSampler,
    state: Path,
    watch: Watcher,
) -> nn.Module:
    """Return a copy of the dense model, trained with its sub-nets; goes on from `state` if there is one."""
    settings = config.supernet
    watch(
        Stage(
            f"training the supernet: {settings.epochs} epochs of {dense.data.train.samples:,} images, each "
            f"step the whole model, the smallest sub-net and {settings.subnets} random ones"
        )
    )
    shared = copy.deepcopy(dense.model)
    try:
        fit(
            shared,
            dense.data,
            schedule_of(settings),
            setting,
            dense.task,
            seed=settings.seed,
            subnets=subnets,
            on_epoch=tell_epochs(settings.epochs, watch),
            checkpoint=state,
        )
    except TrialError as error:
        raise TrialError(
            f"supernet: {error} Begin another search with a lower supernet.learning_rate than "
            f"{settings.learning_rate:g}."
        ) from error
    return shared
