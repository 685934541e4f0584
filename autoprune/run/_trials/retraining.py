"""The full training of a candidate by the schedule of [finetune], the same in a race and in a finetune.

The state of a training is named by its settings and the candidate's widths, so that a finetune goes on from
the training of a race.

Example:
    trained = retrain(small, dense, spec, setting, state=training_state(spec, widths), until=5)
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from autoprune.config.settings import FinetuneSettings
from autoprune.execution import ALONE, Group, Setting
from autoprune.flow import epoch_reporter, naming_learning_rate, step_reporter
from autoprune.run._resolving.dense import Dense
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._resolving.together import fit_together
from autoprune.space import Candidate
from autoprune.study import SearchStudy, TrialRecord
from autoprune.support.events import Watcher, silent
from autoprune.training import EpochRecord, FitResult, fit, learning_rate_at

COOL_DOWN = 0.25
"""Length of a cool-down as a share of the steps before it."""


def training_settings(spec: RunSpec) -> str:
    """Return a fingerprint of [finetune], which all entrants of a race share.

    It is made of the settings that differ from their defaults, so that a later version may have more of them.
    """
    defaults = dataclasses.asdict(FinetuneSettings())
    given = dataclasses.asdict(spec.finetune)
    return _fingerprint({key: value for key, value in given.items() if value != defaults[key]})


def training_state(spec: RunSpec, widths: Mapping[str, int]) -> Path:
    """Return the file that keeps the state of the full training of a candidate, whether it exists or not."""
    criteria = widths.criteria if isinstance(widths, Candidate) else {}
    name = _fingerprint([training_settings(spec), dict(widths), criteria])
    return spec.folder / f"finetune-{name}.training"


def raced_spec(study: SearchStudy, spec: RunSpec) -> RunSpec:
    """Return the settings with the learning rate that the race of a study chose, if it ran under them."""
    race = study.race()
    if race is None or race.result.settings != training_settings(spec):
        return spec
    return spec.with_learning_rate(race.result.learning_rate)


def race_has_trained(study: SearchStudy, record: TrialRecord, spec: RunSpec) -> bool:
    """Return whether a race has trained a trial to the end, and the weights are in the output folder.

    Args:
        study: the study.
        record: the trial.
        spec: the settings with which the race ran.
    """
    entry, raced = study.race_entry(record.number), raced_spec(study, spec)
    if (
        entry is None
        or entry.settings != training_settings(spec)
        or not training_state(raced, record.candidate).is_file()
    ):
        return False
    chosen = None if raced is spec else raced.finetune.learning_rate
    return entry.at(spec.finetune.epochs, chosen) is not None


def retrain(
    small: nn.Module,
    dense: Dense,
    spec: RunSpec,
    setting: Setting,
    *,
    state: Path,
    until: int | None = None,
    watch: Watcher = silent,
    group: Group = ALONE,
) -> FitResult:
    """Train a candidate in place.

    Args:
        small: the candidate, cut and repaired.
        dense: the dense model, which may teach, and the data.
        spec: the settings, of which [finetune] counts.
        setting: how forward and backward passes run.
        state: the file that keeps the state of the training. If it exists, the training resumes from it.
        until: the epoch after which to stop, or None for the whole schedule.
        watch: called with an event for each epoch.
        group: the processes that train together.

    Raises:
        TrialError: the training diverged.
        CheckpointError: the state belongs to another training, or cannot be read or written.
    """
    settings = spec.finetune
    with naming_learning_rate(settings):
        return fit_together(
            group,
            small,
            dense.data,
            spec.finetune_schedule,
            setting,
            dense.task,
            seed=settings.seed,
            teacher=copy.deepcopy(dense.model) if settings.teacher == "dense" else None,
            on_epoch=epoch_reporter(settings.epochs, watch),
            on_step=step_reporter(watch),
            checkpoint=state,
            until=until,
        )


def cool_down(
    small: nn.Module, dense: Dense, spec: RunSpec, setting: Setting, *, after: int, best_score: float
) -> EpochRecord:
    """Return the score that a stopped training has once its learning rate has fallen to 0, on a copy.

    At a high learning rate the scores of good candidates are noise. The learning rate falls linearly, over a
    share COOL_DOWN of the steps that are trained so far.

    Args:
        small: the candidate after some epochs, which is not changed.
        dense: the dense model, which may teach, and the data.
        spec: the settings, of which [finetune] counts.
        setting: how forward and backward passes run.
        after: the epochs that the candidate was trained for.
        best_score: the best score of these epochs, which a learning rate by score follows.

    Raises:
        TrialError: the training diverged.

    Reference:
        Haegele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations", NeurIPS
        2024, section 3: short cool-downs of a longer training. Differs: they choose candidates.
    """
    whole, per_epoch = spec.finetune_schedule, len(dense.data.train)
    steps = after * per_epoch
    falling = dataclasses.replace(
        whole,
        epochs=None,
        steps=max(1, round(COOL_DOWN * steps)),
        learning_rate=learning_rate_at(whole, steps, whole.total_steps(per_epoch), best_score),
        # Without a warm-up, this schedule falls linearly to 0.
        schedule="one-cycle",
        warmup=0.0,
        rate_by_score=(),
    )
    cooled = fit(
        copy.deepcopy(small),
        dense.data,
        falling,
        setting,
        dense.task,
        seed=spec.finetune.seed + after,  # other batches than those of the first epochs
        teacher=copy.deepcopy(dense.model) if spec.finetune.teacher == "dense" else None,
    )
    return cooled.records[-1]


def _fingerprint(values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]
