"""The supernet of a study: trained once, before its first trial, and kept beside the study's output.

    weights = prepare_supernet(run, study)      # None if no rung asks for it
    prunable = with_weights(run.prunable, weights)

A training that was killed goes on after its last epoch. A finished one is never repeated: another study with
the same fingerprint and output folder takes the file as it is. If several machines train it at once, the
first to end counts: its note is never replaced, since trials are scored with those weights by then.
"""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

from torch import nn

from autoprune.errors import TrialError
from autoprune.run._events import Stage
from autoprune.run._identity import identify
from autoprune.run._run import Run
from autoprune.run._schedules import epoch_reporter
from autoprune.run._stored_config import stored_ranking
from autoprune.run._study_file import StudyFile
from autoprune.score import SandwichSampler
from autoprune.study import SearchStudy
from autoprune.support.atomic import saving
from autoprune.support.tensorfile import write_tensors
from autoprune.train import fit
from autoprune.zoo import checkpoint_hash

_FILE = StudyFile("supernet", "weights")


def prepare_supernet(run: Run, study: SearchStudy) -> Path | None:
    """Return the file of a study's supernet, trained now if it is not there; None if no rung asks for it.

    The validation part is looked at for the record of each epoch only; the last epoch is what counts.

    Raises:
        CheckpointError: trials are scored with weights that are gone, changed, or those of another machine,
            which was faster; or nothing can be written.
        TrialError: the training diverged.
    """
    known = known_supernet(run, study)
    if known is not None or not run.spec.has_supernet:
        return known
    settings = run.spec.score.supernet
    subnets = SandwichSampler(
        run.prunable,
        stored_ranking(study, run.prunable),
        run.space,
        random=settings.subnets,
        budget_share=settings.budget_share,
        seed=settings.seed,
    )
    path = _FILE.path(run.spec, _facts(run, subnets))
    state = path.with_suffix(".training")
    if path.is_file():
        run.watch(Stage(f"supernet: using {path.name}, of the same model, data, space and settings"))
    else:
        shared = _trained(run, subnets, state)
        if not path.is_file():  # another process may have been faster, and scored trials with its own
            with saving(path, "supernet") as partial:
                write_tensors(shared.state_dict(), partial)
    state.unlink(missing_ok=True)
    counts = _FILE.note_once(study, path)
    if counts.sha256 != checkpoint_hash(path):
        run.watch(Stage("supernet: another process was faster; trials are scored with what it trained"))
    return _FILE.require(counts, study, run.spec)


def known_supernet(run: Run, study: SearchStudy) -> Path | None:
    """Return the file of weights that a study's trials are cut from; None where it has trained none.

    It is looked for in the output folder, then where it was written.

    Raises:
        CheckpointError: it is gone, or holds other weights.
    """
    note = _FILE.noted(study)
    return None if note is None else _FILE.require(note, study, run.spec)


def _facts(run: Run, subnets: SandwichSampler) -> dict[str, Any]:
    """Return all that decides the weights, but for the threads and the machine."""
    spec, setting = run.spec, run.setting
    return {
        **identify(run),
        "subnets": subnets.identity,
        "schedule": dataclasses.asdict(spec.score.supernet),
        "batches": [spec.data.batch_size, spec.data.augment],
        "loss": spec.task.loss,
        "setting": [setting.device, setting.label],
    }


def _trained(run: Run, subnets: SandwichSampler, state: Path) -> nn.Module:
    """Return a copy of the dense model, trained with its sub-nets; goes on from `state` if there is one."""
    settings, dense = run.spec.score.supernet, run.dense
    run.watch(
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
            run.spec.supernet_schedule,
            run.setting,
            dense.task,
            seed=settings.seed,
            subnets=subnets,
            on_epoch=epoch_reporter(settings.epochs, run.watch),
            checkpoint=state,
        )
    except TrialError as error:
        raise TrialError(
            f"supernet: {error} Begin another search with a lower score.supernet.learning_rate than "
            f"{settings.learning_rate:g}."
        ) from error
    return shared
