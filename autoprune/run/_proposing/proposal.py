"""Proposes a config for a model, data and a budget, after a look at all three.

Example:
    found = propose(Wishes("resnet20", "fashion-mnist", ("flops 50%",), checkpoint="dense.pt"))
    print(found.text)            # TOML with comments
    print(*found.notes)          # on the model and the data
"""

from __future__ import annotations

import copy
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from autoprune.config import parse_settings
from autoprune.config.settings import DataSettings
from autoprune.cost import amount
from autoprune.data import DEFAULT_IMAGE_SIZE, VisionData, first_batch, picture_size
from autoprune.errors import AutopruneError, CheckpointError, ConfigError, DataError
from autoprune.execution import Setting
from autoprune.graph import Prunable
from autoprune.graph.labels import OUTPUT
from autoprune.progress import GIVEN_WATCH, Watch, time_text, watching
from autoprune.run._measuring.expected_time import Pace
from autoprune.run._proposing.commented_config import write_commented
from autoprune.run._proposing.wishes import Wishes
from autoprune.run._resolving.dense import Dense, load_dense, try_task, try_training
from autoprune.run._resolving.input_faults import suspect
from autoprune.run._resolving.paths import file_name_of, settle
from autoprune.run._resolving.problem import build_unlimited_problem, check_unmeasured_limits, trace_dense
from autoprune.run._resolving.seen_validation import require_unseen_validation
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._trials.race_plan import expected_epochs
from autoprune.sparsity import scale_places
from autoprune.study import RUNS
from autoprune.support.events import Stage, Watcher
from autoprune.support.structures import samples_in
from autoprune.support.usercode import entry, forward
from autoprune.training import fastest_setting

_BATCHES_PER_EPOCH = 16
"""Least batches of an epoch. Small data get smaller batches than the default of 128."""

_SHOWN = 3


@dataclass(frozen=True)
class Proposal:
    """A proposed config.

    Attributes:
        text: the config as TOML, with comments.
        notes: sentences about the model, the data and the budget.
        expected: the expected time of the search on this machine.
    """

    text: str
    notes: tuple[str, ...]
    expected: str


@entry(watch=GIVEN_WATCH)
def propose(wishes: Wishes, *, watch: Watch = True) -> Proposal:
    """Look at a model and its data, and propose a config for a search. Nothing is written.

    Args:
        wishes: the answers of the user.
        watch: called with events that report the progress. True shows them if there is a terminal or a
            notebook, and None or False shows nothing.

    Raises:
        AutopruneError: the model, the data or the budget cannot be used, or do not belong together. The
            message says how to correct that.
    """
    with watching(watch) as show:
        draft = _Draft({name: dict(each) for name, each in wishes.sections().items()})
        _fit_pictures(draft)
        dense = _load(draft)
        spec = draft.spec
        try_task(dense)
        try_training(dense)
        draft.notes.append(_data_note(dense.data))
        _judge(draft, dense, wishes)
        _fit_batches(draft, dense.data)
        prunable = trace_dense(dense, spec)
        draft.notes.append(_model_note(prunable))
        draft.notes.append(_reach_note(prunable, spec))
        expected = _expected(draft.spec, dense, show)
        heading = (
            f"A search for a smaller {wishes.model} on {wishes.data}, made by `autoprune init`. Keys that "
            f"are left out have the defaults of `autoprune guide config`. {expected}"
        )
        return Proposal(
            write_commented(draft.sections, {**_WHY, **draft.why}, heading=heading),
            tuple(draft.notes),
            expected,
        )


@dataclass
class _Draft:
    """A config in the making: its sections, the comments that differ from _WHY, and notes for the user."""

    sections: dict[str, dict[str, Any]]
    why: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def spec(self) -> RunSpec:
        return settle(parse_settings(self.sections, where="init"))

    def set(self, path: str, value: Any, why: str) -> None:
        section, _, key = path.partition(".")
        self.sections.setdefault(section, {})[key] = value
        self.why[path] = why

    def train_first(self, path: str, reason: str) -> None:
        self.set("model.checkpoint", path, "the file of weights that the training writes")
        self.set("train.when_missing", True, f"trains the model before the search: {reason}")
        self.notes.append(f"The model is trained first: {reason}.")


def _fit_pictures(draft: _Draft) -> None:
    """Choose the size to which the images of a folder are scaled: that of a small image, or the usual 224."""
    data = draft.sections["data"]
    if data.get("name") != "folder" or "image_size" in data:
        return
    size = picture_size(Path(data["folder"]).expanduser())
    if size is not None and size < DEFAULT_IMAGE_SIZE:
        draft.set("data.image_size", size, f"pixels a side: the images of the folder have about {size}")


def _load(draft: _Draft) -> Dense:
    """Load the dense model, with a new last layer if its weights are for another number of classes."""
    spec, is_named = draft.spec, "checkpoint" in draft.sections["model"]
    checkpoint = spec.model.checkpoint
    if checkpoint is not None and not is_named and not Path(checkpoint).exists():
        draft.train_first(os.path.relpath(checkpoint), "no trained weights were named")
        return load_dense(spec, trained=False)
    try:
        return load_dense(spec)
    except (CheckpointError, ConfigError) as error:
        if checkpoint is None and spec.model.weights is None:
            raise
        draft.sections["model"]["new_head"] = True
        try:
            dense = load_dense(draft.spec)
        except AutopruneError:
            raise error from None
    other = f"the weights are for another number of classes than the {dense.data.classes} of the data"
    if not dense.new_heads:  # a training of the new layer has written its file already
        draft.set("model.new_head", True, f"replaces the last layer, which is trained already: {other}")
        return dense
    layers = " and ".join(dense.new_heads)
    draft.set("model.new_head", True, f"replaces the last layer, {layers}: {other}")
    draft.set("train.when_missing", True, f"trains the model with the new last layer first ({layers})")
    draft.notes.append(f"{other.capitalize()}: {layers} is replaced and trained first.")
    return dense


def _judge(draft: _Draft, dense: Dense, wishes: Wishes) -> None:
    """Check whether a trained model works on the data, and whether it was trained on the validation part.

    Raises:
        DataError: the images or labels are not those that it was trained on.
    """
    spec = draft.spec
    if spec.train.when_missing:
        return
    found = suspect(dense, spec)
    if found is not None and found.is_sure:
        raise DataError(found.text)
    if found is not None and spec.model.checkpoint is None:
        path = f"{RUNS}/{file_name_of(wishes.model)}.safetensors"
        draft.train_first(path, "on the data it is no better than chance")
    if found is not None:
        draft.notes.append(found.text)
    try:
        require_unseen_validation(draft.spec, dense.data)
    except DataError as error:
        if wishes.saw_validation:
            why = (
                "scores on images that the weights may have been trained on are accepted, and may be too high"
            )
            draft.set("data.checkpoint_saw_validation", True, why)
        elif not draft.spec.train.when_missing:
            draft.notes.append(f"A search will refuse this: {error}")


def _fit_batches(draft: _Draft, data: VisionData) -> None:
    """Choose smaller batches for small data, so that a short finetune has steps enough."""
    most = data.train.samples // _BATCHES_PER_EPOCH
    if most < DataSettings().batch_size and draft.spec.data.loaders is None:
        size = max(8, 2 ** max(1, most).bit_length() // 2)
        draft.set(
            "data.batch_size", size, f"images per training step: few, since there are {data.train.samples:,}"
        )


def _data_note(data: VisionData) -> str:
    parts = {"training": data.train, "validation": data.val, "test": data.test}
    counts = ", ".join(f"{part.samples:,} {name}" for name, part in parts.items() if part is not None)
    images = f" images of {' x '.join(map(str, data.input_shape))}" if data.input_shape else ""
    classes = f", {data.classes} classes" if data.classes else ""
    return f"Data: {counts}{images}{classes}."


def _model_note(prunable: Prunable) -> str:
    """Describe the groups that can be narrowed, the frozen ones with reasons, and missing BatchNorms."""
    frozen = [group for group in prunable.groups if group.frozen not in (None, OUTPUT)]
    shown = ", ".join(f"{group.name} ({group.frozen})" for group in frozen[:_SHOWN])
    more = f" and {len(frozen) - _SHOWN} more" if len(frozen) > _SHOWN else ""
    whole = f". Frozen: {shown}{more}" if frozen else ""
    norms = "" if scale_places(prunable.model, prunable) else " It has no BatchNorm in them to recalibrate."
    return (
        f"Model: {type(prunable.model).__name__}, {amount(int(prunable.cost().macs))} MACs, "
        f"{len(prunable.searchable)} channel groups can be narrowed{whole}.{norms}"
    )


def _reach_note(prunable: Prunable, spec: RunSpec) -> str:
    """Return the range of reachable budgets.

    Raises:
        BudgetError: no plan meets a limit. The message names the smallest reachable cost.
    """
    check_unmeasured_limits(prunable, spec)
    reach, dense = build_unlimited_problem(prunable, spec).space.reach(), prunable.cost()
    least = reach.smallest.one()
    return (
        f"Reachable: down to {int(least.macs) / int(dense.macs):.1%} of the MACs and "
        f"{int(least.params) / int(dense.params):.1%} of the parameters."
    )


def _expected(spec: RunSpec, dense: Dense, watch: Watcher) -> str:
    """Return the expected time of the search on this machine, from one training step and one forward pass."""
    watch(Stage("timing a training step"))
    batch = first_batch(dense.data.train)
    setting = Setting(dense.device, threads=torch.get_num_threads())
    choice = fastest_setting(dense.model, batch, dense.task, dense.device, only=setting, repeats=2)
    image_s = _image_seconds(dense, batch[0])
    pace = Pace(choice.step_ms / 1000, image_s)
    training = ""
    if spec.train.when_missing:
        seconds = spec.train.epochs * len(dense.data.train) * pace.step_s
        training = f"The training of the dense model takes about {time_text(seconds)}. "
    search = pace.announcement(spec, dense.data, None, expected_epochs(spec))
    return f"On this machine: {training}{search}."


def _image_seconds(dense: Dense, inputs: Any) -> float:
    model = copy.deepcopy(dense.model).to(dense.device)
    with torch.no_grad():
        started = time.perf_counter()
        forward(model, inputs)
    return (time.perf_counter() - started) / samples_in(inputs)


_WHY = {
    "model.name": "a model of the zoo, of torchvision or of timm",
    "model.factory": "your function that makes the model, and may take classes and in_channels",
    "model.checkpoint": "the trained weights of the dense model",
    "model.weights": "trained weights by name",
    "data.name": "the data set",
    "data.loaders": "your function that returns the loaders (train, val) or (train, val, test)",
    "data.folder": "the folder with train/ and val/, each with one folder of images for each class",
    "data.image_size": "pixels a side to which the images are scaled",
    "budget": "the most that the small model may cost: shares of the dense model, or amounts",
    "search.device": "the device of trainings: auto takes a GPU if there is one",
    "search.trials": "sub-models that are tried: more find better ones, and take longer in proportion",
    "score.rungs": "how a sub-model is scored: with refitted layers, then after short finetunes",
    "score.moment_images": "training images from which the refit is computed",
    "race.entrants": "the best sub-models that are trained against each other at the end",
    "race.learning_rates": "further learning rates that the race tries",
    "finetune.epochs": "length of the full training of the winner",
    "train.epochs": "length of the training of the dense model",
}
"""{key: its comment}, unless the model and the data give a more exact one."""
