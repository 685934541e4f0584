"""The supernet of a study: trained once, before its first trial, and kept beside the study's output.

    weights = prepare_supernet(study, config, dense, problem, watch)      # None if no rung asks for it
    prunable = with_weights(problem.prunable, weights)

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

from autoprune.config.rungs import asks_for_supernet
from autoprune.config.settings import RunConfig
from autoprune.errors import TrialError
from autoprune.execution import Setting
from autoprune.run._dense import Dense
from autoprune.run._events import Stage, Watcher
from autoprune.run._identity import identify
from autoprune.run._problem import Problem
from autoprune.run._stored_config import stored_ranking, stored_setting
from autoprune.run._study_file import KeptFile
from autoprune.run._train import schedule_of, tell_epochs
from autoprune.score import SandwichSampler
from autoprune.study import SearchStudy
from autoprune.support.atomic import saving
from autoprune.support.tensorfile import write_tensors
from autoprune.train import fit
from autoprune.zoo import checkpoint_hash

_FILE = KeptFile("supernet", "weights")


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
        random=config.score.supernet.subnets,
        budget_share=config.score.supernet.budget_share,
        seed=config.score.supernet.seed,
    )
    path = _FILE.path(config, _facts(dense, problem, config, setting, subnets))
    state = path.with_suffix(".training")
    if path.is_file():
        watch(Stage(f"supernet: {path.name} is there, of the same model, data, space and settings"))
    else:
        shared = _trained(dense, config, setting, subnets, state, watch)
        if not path.is_file():  # another process may have been faster, and scored trials with its own
            with saving(path, "supernet") as partial:
                write_tensors(shared.state_dict(), partial)
    state.unlink(missing_ok=True)
    counts = _FILE.note_once(study, path)
    if counts.sha256 != checkpoint_hash(path):
        watch(Stage("supernet: another process was faster; trials are scored with what it trained"))
    return _FILE.require(counts, study, config)


def known_supernet(study: SearchStudy, config: RunConfig) -> Path | None:
    """Return the file of weights that a study's trials are cut from; None where it has trained none.

    It is looked for in the output folder, then where it was written.

    Raises:
        CheckpointError: it is gone, or holds other weights.
    """
    note = _FILE.noted(study)
    return None if note is None else _FILE.require(note, study, config)


def _facts(
    dense: Dense, problem: Problem, config: RunConfig, setting: Setting, subnets: SandwichSampler
) -> dict[str, Any]:
    """Return all that decides the weights, but for the threads and the machine."""
    return {
        **identify(dense, problem, config),
        "subnets": subnets.identity,
        "schedule": dataclasses.asdict(config.score.supernet),
        "batches": [config.data.batch_size, config.data.augment],
        "loss": config.task.loss,
        "setting": [setting.device, setting.label],
    }


def _trained(
    dense: Dense,
    config: RunConfig,
    setting: Setting,
    subnets: SandwichSampler,
    state: Path,
    watch: Watcher,
) -> nn.Module:
    """Return a copy of the dense model, trained with its sub-nets; goes on from `state` if there is one."""
    settings = config.score.supernet
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
            f"supernet: {error} Begin another search with a lower score.supernet.learning_rate than "
            f"{settings.learning_rate:g}."
        ) from error
    return shared
