"""Functions of the experiments that search and finetune: a search that resumes, and one way to finetune.

study = searched(config)                                       # an open study with all its trials
fitted, test = finetuned(small, dense, config, setting, seed=0, checkpoint=Path("runs/x.training"))
"""

from __future__ import annotations

import copy
from pathlib import Path

from torch import nn

from autoprune import run
from autoprune.config.settings import RunConfig
from autoprune.errors import StudyError
from autoprune.execution import Setting
from autoprune.flow import schedule_of
from autoprune.run import Dense
from autoprune.study import SearchStudy, open_study
from autoprune.training import FitResult, evaluate, fit


def searched(config: RunConfig) -> SearchStudy:
    """Search, or resume the search, and return the finished study."""
    name, storage = str(config.search.study), str(config.search.storage)
    try:
        open_study(storage, name)
    except StudyError:
        run.search(config=config)
    else:
        run.resume(name, storage)
    return open_study(storage, name)


def finetuned(
    small: nn.Module, dense: Dense, config: RunConfig, setting: Setting, *, seed: int, checkpoint: Path
) -> tuple[FitResult, float]:
    """Finetune a model in place with the dense model as teacher, then evaluate it on the test part, once.

    Args:
        small: a candidate.
        dense: teacher and data.
        config: its [finetune] is the recipe.
        setting: how it runs.
        seed: of the finetune.
        checkpoint: the file from which an interrupted finetune resumes.

    Returns:
        The finetune's record, and the metric on the test part.
    """
    fitted = fit(
        small,
        dense.data,
        schedule_of(config.finetune),
        setting,
        dense.task,
        seed=seed,
        teacher=copy.deepcopy(dense.model),
        checkpoint=checkpoint,
    )
    if dense.data.test is None:
        raise AssertionError("the data have no test part")
    return fitted, evaluate(small, dense.data.test, dense.task, setting)
