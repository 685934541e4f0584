"""Trains the supernet of a study, once and before its first trial.

A killed training resumes after its last epoch. A finished one is not repeated: another study with the same
fingerprint and output folder reuses the file. If several machines train at the same time, the first one to
finish notes its file in the study. The note is never replaced, because trials may be scored with its weights.

Example:
    weights = prepare_supernet(run, study)      # None if no rung cuts candidates from a supernet
    prunable = with_weights(run.prunable, weights)
"""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

from torch import nn

from autoprune.errors import TrialError
from autoprune.flow import epoch_reporter, step_reporter
from autoprune.run._resolving.identity import identify
from autoprune.run._resolving.run import Run
from autoprune.run._resolving.stored_config import stored_ranking
from autoprune.run._resolving.study_file import StudyFile
from autoprune.score import SandwichSampler
from autoprune.study import SearchStudy
from autoprune.support.atomic import saving
from autoprune.support.events import Stage
from autoprune.support.tensorfile import write_tensors
from autoprune.training import fit
from autoprune.zoo import checkpoint_hash

SUPERNET = StudyFile("supernet", "weights")


def prepare_supernet(run: Run, study: SearchStudy) -> Path | None:
    """Return the weights of a study's supernet, and train it if the file does not exist.

    The weights of the last epoch are used. The validation part is evaluated only to report each epoch.

    Returns:
        The file of weights, or None if no rung cuts candidates from a supernet.

    Raises:
        CheckpointError: the trials were scored with weights that are missing here, have changed, or lie on
            another machine that was faster. Or the file cannot be written.
        TrialError: the training diverged.
    """
    known = known_supernet(run, study)
    if known is not None or not run.spec.has_supernet:
        return known
    settings = run.spec.score.supernet
    subnets = SandwichSampler(
        run.prunable,
        stored_ranking(study, run.prunable, None),
        run.space,
        random=settings.subnets,
        budget_share=settings.budget_share,
        seed=settings.seed,
    )
    path = SUPERNET.path(run.spec, _facts(run, subnets))
    state = path.with_suffix(".training")
    if path.is_file():
        run.watch(Stage(f"supernet: using {path.name}, of the same model, data, space and settings"))
    else:
        shared = _trained(run, subnets, state)
        if not path.is_file():  # another process may have been faster, and scored trials with its own
            with saving(path, "supernet") as partial:
                write_tensors(shared.state_dict(), partial)
    state.unlink(missing_ok=True)
    counts = SUPERNET.note_once(study, path)
    if counts.sha256 != checkpoint_hash(path):
        run.watch(Stage("supernet: another process was faster, so trials are scored with its weights"))
    return SUPERNET.require(counts, study, run.spec)


def known_supernet(run: Run, study: SearchStudy) -> Path | None:
    """Return the weights of a study's supernet, from the output folder or the noted path.

    Returns:
        The file of weights, or None if the study has no supernet yet.

    Raises:
        CheckpointError: the file is missing, or holds other weights.
    """
    note = SUPERNET.noted(study)
    return None if note is None else SUPERNET.require(note, study, run.spec)


def _facts(run: Run, subnets: SandwichSampler) -> dict[str, Any]:
    """Return all settings that determine the weights, apart from the threads and the machine."""
    spec, setting = run.spec, run.setting
    most = spec.data.most_samples
    # Without a limit the name of the file stays the same as in earlier versions.
    limit = [] if most is None else [most]
    return {
        **identify(run),
        "subnets": subnets.identity,
        "schedule": dataclasses.asdict(spec.score.supernet),
        "batches": [spec.data.batch_size, spec.data.augment, *limit],
        "loss": run.dense.task.training_code,
        "setting": [setting.device, setting.label],
    }


def _trained(run: Run, subnets: SandwichSampler, state: Path) -> nn.Module:
    """Return a copy of the dense model, trained with its sub-nets. Resume from `state` if it exists."""
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
            on_step=step_reporter(run.watch),
            checkpoint=state,
        )
    except TrialError as error:
        raise TrialError(
            f"supernet: {error} Begin another search with a lower score.supernet.learning_rate than "
            f"{settings.learning_rate:g}."
        ) from error
    return shared
