"""The dense model with its data and task, loaded by name or passed by a caller, and checked on a few images.

Example:
    dense = load_dense(spec)
    prunable = trace(dense.model, dense.example_inputs)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import NoneType
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.data import (
    Batch,
    HeldBatches,
    UserLoaders,
    VisionData,
    first_batch,
    head,
    limited,
    load,
    seeded,
    wrap_loaders,
)
from autoprune.errors import ConfigError, a_kind
from autoprune.execution import Setting
from autoprune.execution.detour import Detour
from autoprune.graph.capture import missing_values, unchanged
from autoprune.rebuilding import narrow
from autoprune.run._resolving.input_hints import input_hint, label_hint
from autoprune.run._resolving.spec import RunSpec
from autoprune.support.modes import draws_kept
from autoprune.support.structures import described, moved, samples_in
from autoprune.support.usercode import forward, guarded
from autoprune.training import (
    NO_OUTPUTS,
    Task,
    cross_entropy,
    evaluate,
    find_output,
    holds_classes,
    main_output,
    metric_output,
)
from autoprune.zoo import find_heads, load_checkpoint, make_model, replace_heads

GIVEN_MODEL = (nn.Module, NoneType)
"""The classes of an optional argument `model`."""

_TRIED_IMAGES = 8
"""The images of the first, trial training step. BatchNorm needs more than one."""

_PREPARED_ALREADY = "task.prepare: only batches of loaders of your own are prepared. Leave it out."


@dataclass(frozen=True)
class Dense:
    """The dense model with its data and task.

    Attributes:
        model: the model, on the CPU and in evaluation mode.
        data: the data, with its parts on `device`.
        task: the loss and the metric.
        device: the device by its name in torch, such as "cuda:0".
        new_heads: names of its last layers, if these are new and not trained.
    """

    model: nn.Module
    data: VisionData
    task: Task
    device: str
    new_heads: tuple[str, ...] = ()

    @property
    def example_inputs(self) -> Any:
        """One image of zeros [1, C, H, W] in the shape of the data, or inputs of another structure."""
        return torch.zeros(1, *self.data.input_shape) if self.data.input_shape else self.data.example

    @property
    def gives_logits(self) -> bool:
        """Whether loss or metric read one tensor of outputs, not code of the user the whole output."""
        own_metric = self.task.evaluate is not None or hasattr(self.task.metric, "update")
        return self.task.has_loss_function or not own_metric


def own_copy(model: nn.Module) -> nn.Module:
    """Return a copy of a caller's model that `copy.deepcopy` can copy again.

    A forward pass may have left tensors with an autograd history on the model, which `copy.deepcopy` refuses.

    Raises:
        ConfigError: the model holds something that cannot be copied.
    """
    missing = missing_values(model)
    if missing:
        raise ConfigError(f"model: {missing}")
    advice = (
        "Remove from its modules the tensors that a forward pass left there, or give a new model that is "
        "loaded with these weights."
    )
    with guarded(f"model: {type(model).__name__} cannot be copied", ConfigError, advice=advice):
        return narrow(model, {})


def given_dense(
    model: nn.Module | None, data: VisionData | UserLoaders | None, spec: RunSpec
) -> Dense | None:
    """Combine a copy of a caller's model and its data with the task and device of a run.

    Returns:
        The dense model, or None if the caller passes neither model nor data.

    Raises:
        ConfigError: the caller passes only one of them, or one that cannot be used.
    """
    if (model is None) != (data is None):
        raise ConfigError("model and data: got only one of them, expected both or neither.")
    if model is None or data is None:
        return None
    task, device = spec.loss_and_metric, spec.device
    if not isinstance(data, VisionData):
        batch_size, prepare = spec.data.batch_size, spec.prepare
        data = wrap_loaders(data, device=device, batch_size=batch_size, prepare=prepare)
    elif spec.prepare is not None:
        raise ConfigError(_PREPARED_ALREADY)
    model = own_copy(model).cpu().eval()
    if spec.model.checkpoint is not None and not (spec.model.name or spec.model.factory):
        load_checkpoint(model, spec.model.checkpoint)  # that of a search that sparsified the model first
    with seeded(spec.train.seed):
        new_heads = fit_heads(model, data) if spec.model.new_head else ()
    return Dense(model, data, replace(task, dense=model), device, new_heads)


def try_model(dense: Dense) -> None:
    """Run the model on one image, to refuse early a model that returns no logits.

    Raises:
        ConfigError: the forward pass fails, or its output is no tensor of floats with one row per image.
    """
    if next(dense.model.parameters(), None) is None:
        raise ConfigError(
            f"model: {type(dense.model).__name__} has no parameters, so there is nothing to prune."
        )
    inputs = dense.example_inputs
    try:
        outputs = _outputs(dense.model, inputs)
    except ConfigError as error:
        hint = input_hint(dense.model, dense.data.input_shape)
        raise ConfigError(f"{str(error).rstrip('.')}.{hint}" if hint else str(error)) from error
    main = find_output(outputs)
    if main is None and not dense.gives_logits:
        return
    if main is None:
        raise ConfigError(
            f"model: its output is {a_kind(outputs)}, expected a tensor of logits. Another output "
            "needs a metric with update and compute, or task.evaluate, and a task.train_step or "
            'task.loss = "model".'
        )
    if dense.gives_logits and (not main.is_floating_point() or main.shape[:1] != (samples_in(inputs),)):
        raise ConfigError(
            f"model: its output for {'one image' if dense.data.input_shape else described(inputs)} is "
            f"{tuple(main.shape)} of {main.dtype}, "
            "expected logits, such as (1, classes) of torch.float32."
        )


def distils(spec: RunSpec) -> bool:
    """Return whether a run trains any model by distillation."""
    tuned = spec.finetune
    finetunes = tuned.teacher == "dense" and tuned.epochs > 0 and tuned.distill_weight > 0
    return finetunes or spec.score.teacher == "dense" or spec.has_supernet


def try_task(dense: Dense, *, distilled: bool = False) -> None:
    """Run model, loss and metric on one batch, so that a mismatch is reported before any training.

    Args:
        dense: model, data and task.
        distilled: whether the outputs will be the targets of a distillation.

    Raises:
        ConfigError: one of them fails or does not return one number, or the outputs cannot be distilled.
    """
    batch = inputs, targets = moved(first_batch(dense.data.val), "cpu")
    outputs = metric_output(_outputs(dense.model, inputs))
    is_tensor = isinstance(outputs, Tensor)
    outputs = outputs.float() if is_tensor else outputs
    classes = outputs.shape[1] if is_tensor and outputs.ndim == 2 else None
    learns_labels = dense.task.loss is cross_entropy and dense.task.has_loss_function
    if learns_labels and classes is not None and classes < dense.data.classes:
        raise ConfigError(
            f"model: it has {classes} outputs for data of {dense.data.classes} classes. "
            f"Build it with as many outputs.{label_hint(dense.data)}"
        )
    dense.task.require_numbers(outputs, targets)
    if dense.task.evaluate is not None:
        with draws_kept(dense.model):
            evaluate(own_copy(dense.model), HeldBatches([batch]), dense.task, Setting())
    if dense.task.compares and outputs.shape[1:] not in ((), (1,)):
        _require_classes(dense.task, outputs, targets)
    if distilled:
        _require_distillable(dense, batch, outputs)


def _require_distillable(dense: Dense, batch: Batch, outputs: Any) -> None:
    """Refuse a distillation of outputs that training does not give, or that fit no rule.

    Raises:
        ConfigError: the outputs cannot be distilled.
    """
    if dense.task.train_step is not None or not isinstance(outputs, Tensor):
        raise ConfigError(NO_OUTPUTS)
    holds_classes(dense.task.loss, outputs, batch[1])


def _require_classes(task: Task, outputs: Tensor, targets: Tensor) -> None:
    """Refuse the metric "kl" for outputs that are no distribution over classes.

    Raises:
        ConfigError: axis 1 of the outputs does not hold class logits.
    """
    try:
        is_distribution = holds_classes(task.loss, outputs, targets)
    except ConfigError:
        is_distribution = False
    if not is_distribution:
        raise ConfigError(
            f'task.metric: "kl" compares distributions over classes, and the outputs {tuple(outputs.shape)} '
            f'with targets {tuple(targets.shape)} hold none. Set task.metric to "nll".'
        )


def try_training(dense: Dense) -> None:
    """Compute the gradients of one training step on a copy, to refuse early a model that cannot be trained.

    Raises:
        ConfigError: model or loss fail in training mode, or no gradient reaches a parameter.
    """
    batch = moved(head(first_batch(dense.data.train), _TRIED_IMAGES), "cpu")
    trained = own_copy(dense.model).train()
    if not any(parameter.requires_grad for parameter in trained.parameters()):
        raise ConfigError(
            "model: no parameter of it requires a gradient, so there is nothing to train. Call "
            "requires_grad_(True)."
        )
    # The check whether this CPU computes convolutions wrongly comes later. Take the detour in any case.
    with draws_kept(trained), Detour():
        loss = dense.task.step(trained, batch).loss
        if not loss.requires_grad:
            raise ConfigError(
                "model: no gradient of its outputs reaches its parameters. Take .detach() and "
                "torch.no_grad() out of its forward pass."
            )
        where = f"model: its backward pass failed on inputs {described(batch[0])}"
        with guarded(where, ConfigError, memory_passes=True):
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped


def _outputs(model: nn.Module, inputs: Any) -> object:
    """Run the model, and remove the tensors that its forward pass may leave on its modules."""
    with unchanged(model), draws_kept(model), torch.no_grad():
        return forward(model, inputs)


def load_data(spec: RunSpec) -> VisionData:
    """Load the data that [data] names onto the device of the trials."""
    settings = spec.data
    if spec.prepare is not None and settings.loaders is None:
        raise ConfigError(_PREPARED_ALREADY)
    data = load(
        settings.name or settings.loaders or "",
        folder=settings.folder,
        batch_size=settings.batch_size,
        val_fraction=settings.val_fraction,
        seed=settings.seed,
        device=spec.device,
        augment=settings.augment,
        image_size=settings.image_size,
        workers=settings.workers,
        validation=settings.validation,
        prepare=spec.prepare,
    )
    return data if settings.most_samples is None else limited(data, settings.most_samples)


def make_architecture(spec: RunSpec, data: VisionData) -> tuple[nn.Module, tuple[str, ...]]:
    """Build the dense architecture that [model] names for some data, without a checkpoint's weights.

    Returns:
        The model, and the names of its last layers if these were replaced.
    """
    settings = spec.model
    model = make_model(
        settings.name or settings.factory or "",
        data.classes,
        channels_of(data.input_shape),
        settings.weights,
        any_classes=settings.new_head,
    )
    model = (own_copy(model) if settings.factory is not None else model).eval()
    is_fitting = settings.weights is None and settings.factory is None
    return model, fit_heads(model, data) if settings.new_head and not is_fitting else ()


def fit_heads(model: nn.Module, data: VisionData) -> tuple[str, ...]:
    """Replace the last layers of a model, in place, unless it has one output for each class.

    Returns:
        Their names, or () if they stay.
    """
    if not data.input_shape:
        raise ConfigError("model.new_head: the inputs are no batch of equal images. Leave it out.")
    inputs = torch.zeros(1, *data.input_shape)
    if main_output(_outputs(model, inputs)).shape[1:2] == (data.classes,):
        return ()
    heads = replace_heads(model, inputs, data.classes)
    outputs = tuple(main_output(_outputs(model, inputs)).shape)
    if outputs[1:2] != (data.classes,):
        raise ConfigError(
            f"model.new_head: with {data.classes} outputs of {', '.join(heads)} the model returns {outputs} "
            "for one image. Give a model.factory that makes the model for the classes of the data."
        )
    return heads


def channels_of(input_shape: Sequence[int]) -> int:
    """Return the channels of images, 3 if the inputs are no batch of equal images."""
    return input_shape[0] if input_shape else 3


def load_dense(spec: RunSpec, *, trained: bool = True) -> Dense:
    """Build the dense model, and load its weights and data.

    Args:
        spec: the settings, with names and paths filled in by `settle`.
        trained: whether to load the checkpoint. Without it the weights are random.

    Raises:
        ConfigError: a name or the device is unknown, or the model returns no logits.
        CheckpointError: the checkpoint is missing, corrupt or of another architecture.
        DataError: the data are missing or cannot be used.
    """
    named = (spec.model.name or spec.model.factory) and (spec.data.name or spec.data.loaders)
    if not named:
        raise ConfigError(
            "model and data: the study names none, because a script passed its own. Resume from Python, e.g. "
            "autoprune.resume(study, storage, model=model, data=data)."
        )
    device, task = spec.device, spec.loss_and_metric
    data = load_data(spec)
    with seeded(spec.train.seed):
        model, new_heads = make_architecture(spec, data)
    if trained and spec.model.checkpoint is not None:
        inputs = torch.zeros(1, *data.input_shape)
        search = partial(find_heads, model, inputs) if spec.model.new_head else None
        new_heads = load_checkpoint(model, spec.model.checkpoint, search)
    dense = Dense(model, data, replace(task, dense=model), device, new_heads)
    try_model(dense)
    return dense
