"""Trains the dense model, for `autoprune train` and for searches with train.when_missing.

Example:
    result = train(load_config("run.toml"))
    result.checkpoint, result.val_score
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from autoprune.config import find_profile
from autoprune.data import first_batch
from autoprune.errors import CheckpointError, ConfigError, StudyError, reason_of
from autoprune.execution import ALONE, Group, Setting, fit_to_machine
from autoprune.flow import epoch_reporter, naming_learning_rate, step_reporter
from autoprune.progress import GIVEN_WATCH, Watch, watching
from autoprune.run._resolving.budget_amounts import check_amounts
from autoprune.run._resolving.dense import Dense, load_dense, try_task, try_training
from autoprune.run._resolving.if_exists import IfExists, checked_action
from autoprune.run._resolving.paths import head_file, probe_writable, settle
from autoprune.run._resolving.seen_validation import read_history, save_dense, split_of
from autoprune.run._resolving.spec import ConfigSource, RunSpec
from autoprune.run._resolving.stored_config import read_setting
from autoprune.run._resolving.together import announce, fit_together, together
from autoprune.support.atomic import saving
from autoprune.support.events import Stage, Watcher, silent
from autoprune.support.files import read_json
from autoprune.support.threads import cpu_threads
from autoprune.support.usercode import entry
from autoprune.training import Choice, fastest_setting


@dataclass(frozen=True)
class TrainResult:
    """A trained dense model: its file, and its metric on the validation part after the last epoch."""

    checkpoint: Path
    val_score: float


@entry(watch=GIVEN_WATCH)
def train(config: ConfigSource, *, if_exists: IfExists = "error", watch: Watch = True) -> TrainResult:
    """Train the dense model of a config and write it to model.checkpoint.

    A killed training resumes after its last epoch when the function is called again. Under torchrun all
    processes that call this train together.

    Args:
        config: a RunConfig, a mapping of sections, the path of a TOML file, or an embedded config's name. It
            names the model and the data.
        if_exists: what to do if the checkpoint exists: "error" refuses, "resume" returns the result of the
            training that wrote it, and "overwrite" trains again and replaces it at the end.
        watch: called with events that report the progress. True shows them if there is a terminal or a
            notebook, and None or False shows nothing.

    Returns:
        The file and the validation score.

    Raises:
        ConfigError: the checkpoint exists already and may not be replaced, does not end in .safetensors, or
            cannot be written.
        AutopruneError: the model or the data cannot be loaded, or the training diverges.

    Example:
        result = autoprune.train("digits")
        result.val_score, result.checkpoint  # runs/digits/dense.safetensors
    """
    return together(lambda group: _train(config, group, watch, if_exists))


def _train(config: ConfigSource, group: Group, watch: Watch, if_exists: str) -> TrainResult:
    spec = settle(config, trained_head=False)
    path = _file_to_write(spec)
    require_real_run(spec)
    checked_action(if_exists)
    if path.exists():
        clear_finished(path)
        known = (read_history(path) or {}).get("val_score") if if_exists == "resume" else None
        if known is not None:
            return TrainResult(path, known)
        if if_exists != "overwrite":
            of = "" if if_exists == "error" else " without the score of a training"
            key = "new_head" if spec.model.new_head else "checkpoint"
            advice = "Replace" if spec.model.new_head else "Name another file, or replace"
            raise ConfigError(
                f'model.{key}: {path} exists already{of}. {advice} this one with if_exists = "overwrite".'
            )
    _ = spec.train_schedule
    check_amounts(spec.budget, required=False)  # or a search would refuse it after this training
    probe_writable(path.parent, "model.checkpoint")
    announce(group, spec)
    dense = load_dense(spec, trained=spec.model.new_head)
    if spec.model.new_head and not dense.new_heads:
        raise ConfigError(
            f"model.new_head: the last layer of {spec.model.checkpoint or 'the model'} has "
            f"{dense.data.classes} outputs, as the data need. It is not new, so nothing is left to train."
        )
    with watching(watch) as show:
        if spec.report.trackers:
            show(Stage("report.trackers is set, but only searches and finetunes log to trackers"))
        return train_dense(dense, spec, path, watch=show, group=group)


def _file_to_write(spec: RunSpec) -> Path:
    """Return the file to which the dense model is trained: not its checkpoint if its last layer is new."""
    if spec.model.new_head:
        return Path(head_file(spec)).absolute()
    if spec.model.checkpoint is None:
        raise ConfigError("model.checkpoint: not set. Name the .safetensors file that the training writes.")
    return trained_path(spec.model.checkpoint)


def require_real_run(spec: RunSpec) -> None:
    """Refuse to train a checkpoint in a trial run, because every later search would load its weights.

    Raises:
        ConfigError: search.profile is that of a trial run.
    """
    name = spec.search.profile
    if name is not None and find_profile(name).is_trial_run:
        raise ConfigError(
            f'search.profile: "{name}" is a trial run, which trains no checkpoint that a real search would '
            f"load. Take the key out, and try the config with `autoprune search CONFIG --profile {name}`."
        )


def clear_finished(path: Path) -> None:
    """Remove the state of a training that was killed just after it wrote its weights to `path`."""
    if not path.is_file():
        return
    left_over = [file for file in _states_of(path) if file.is_file()]
    if left_over and read_history(path) is not None:
        for file in left_over:
            file.unlink(missing_ok=True)


def _states_of(path: Path) -> tuple[Path, Path]:
    """Return the two files that a training keeps next to its weights: its state and its setting."""
    state = path.with_suffix(".training")
    return state, state.with_suffix(".setting.json")


def trained_path(checkpoint: str) -> Path:
    """Return the file to which the dense model is trained.

    Raises:
        ConfigError: it does not end in .safetensors, the only format that a training writes.
    """
    path = Path(checkpoint)
    if path.suffix != ".safetensors":
        raise ConfigError(
            f"model.checkpoint: got {path}, expected a name that ends in .safetensors for the training."
        )
    return path


def train_dense(
    dense: Dense, spec: RunSpec, path: Path, *, watch: Watcher = silent, group: Group = ALONE
) -> TrainResult:
    """Train a dense model in place, and write its weights and history.

    Every epoch saves the state of the training, from which a killed training resumes.

    Args:
        dense: the untrained model, with its data and task.
        spec: the settings of the run.
        path: the file of weights to write.
        watch: called with events that report the progress.
        group: the processes that train together.
    """
    state, begun_with = _states_of(path)
    try_task(dense)
    try_training(dense)
    setting = _setting_of(begun_with, dense, spec, watch)
    watch(
        Stage(f"training the dense model: {spec.train.epochs} epochs of {dense.data.train.samples:,} images")
    )
    with cpu_threads(setting.threads), naming_learning_rate(spec.train):
        result = fit_together(
            group,
            dense.model,
            dense.data,
            spec.train_schedule,
            setting,
            dense.task.of_dense,
            seed=spec.train.seed,
            on_epoch=epoch_reporter(spec.train.epochs, watch),
            on_step=step_reporter(watch),
            checkpoint=state,
        )
    history = {
        "data": split_of(spec.data, dense.data),
        "config": dataclasses.asdict(spec.without_password()),
        "epochs": spec.train.epochs,
        "val_score": result.score if math.isfinite(result.score) else None,
    }
    save_dense(dense.model, path, history)
    for left_over in (state, begun_with):
        left_over.unlink(missing_ok=True)
    dense.model.cpu().eval()
    return TrainResult(path, result.score)


def _setting_of(path: Path, dense: Dense, spec: RunSpec, watch: Watcher) -> Setting:
    """Return the setting with which a killed training began, or measure the fastest for a new one."""
    if path.exists():
        try:
            begun = read_setting(read_json(path), where="it is damaged")
        except (OSError, ValueError, StudyError) as error:
            raise CheckpointError(
                f"{path}: cannot be read as the setting of a training ({reason_of(error)}). Remove it and "
                "the .training file next to it to start that training over."
            ) from error
        if begun.device != dense.device:
            raise CheckpointError(
                f"{path}: the training began on {begun.device}, but search.device is {dense.device} here. "
                "Resume it on that device, or remove this and the .training file next to it to start over."
            )
        return fit_to_machine(begun)
    setting = measure_setting(dense, spec, watch).setting
    with saving(path, "training setting") as partial:
        partial.write_text(json.dumps(setting.facts), "utf-8")
    return setting


def measure_setting(dense: Dense, spec: RunSpec, watch: Watcher) -> Choice:
    """Measure which number format and layout trains fastest here, or time the one that is named."""
    named = spec.named_setting
    if named is not None:  # the number of threads may have changed since it was parsed
        named = dataclasses.replace(named, threads=torch.get_num_threads())
    batch = first_batch(dense.data.train)
    choice = fastest_setting(dense.model, batch, dense.task, dense.device, only=named)
    for label, reason in choice.left_out.items():
        watch(Stage(f"{label} is left out: {reason}"))
    times = ", ".join(f"{label} {value:.1f} ms" for label, value in choice.milliseconds.items())
    watch(Stage(f"one training step: {times}, using {choice.setting.label} on {choice.setting.device}"))
    return choice
