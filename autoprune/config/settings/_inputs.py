"""The settings of the model, the data, the task and the budget."""

from __future__ import annotations

from dataclasses import dataclass, make_dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from autoprune.config.settings._values import (
    MOST_WORKERS,
    Amount,
    Command,
    Count,
    Flag,
    Names,
    Positive,
    Real,
    Seconds,
    Seed,
    Text,
    Tolerance,
)
from autoprune.cost import budget_keys


@dataclass(frozen=True)
class ModelSettings:
    """Where the dense model comes from: a name or a factory of your own, and its weights.

    Attributes:
        name: a model of the zoo, any classifier of torchvision, or "timm/NAME" for a model of timm.
            "torchvision/NAME" is the one of torchvision if the zoo has a model of the same name.
        factory: a function of your own, "mypkg.nets:make", in place of `name`. It is called with those of
            `classes` (or `num_classes`) and `in_channels` that it takes, by these names, and returns the
            dense nn.Module with one output per class. It may load its own weights.
        checkpoint: a file of weights: safetensors, or a state_dict that torch saved. The default for a named
            model is runs/NAME-DATA.safetensors.
        weights: the name of trained weights of torchvision or timm, such as "DEFAULT", in place of
            `checkpoint`.
        new_head: whether the last layer is replaced by a new one if the checkpoint or the weights are for
            another number of classes than the data have. `autoprune train` trains the model with the new
            layer, and writes it to runs/NAME-DATA-CHECKPOINT.safetensors. A search loads that file if it
            exists.
        target: the part of the model that is traced and made smaller, a module by its name in
            `named_modules`: "backbone". Use it if the whole cannot be traced, as detectors with their
            post-processing. Costs and budgets are those of the part. The whole is trained, scored and saved.
        frozen: modules, by their names in `named_modules`, whose channels all stay: ["layer1.0.conv1"].
    """

    name: Text | None = None
    factory: Text | None = None
    checkpoint: Text | None = None
    weights: Text | None = None
    new_head: Flag = False
    frozen: Names = ()
    target: Text | None = None


@dataclass(frozen=True)
class DataSettings:
    """Where images and labels come from, and how the validation part is held out.

    Attributes:
        name: a data set by its name. The digits come with scikit-learn, and the other named sets are
            downloaded. All of these are kept in memory. "folder" streams a folder of images instead.
        loaders: a function of your own, "mypkg.data:make", in place of `name`. It is called with those of
            `batch_size`, `folder` and `seed` that it takes, by these names. It returns (train, val), (train,
            val, test) or a dict with these keys, and "classes" if the labels alone do not show how many there
            are. Each part is a torch DataLoader, or another iterable with a length that can be read again. It
            yields (inputs, targets): normalised float32 images [n, C, H, W], and labels [n] from 0 (or
            probabilities [n, classes]).
        folder: the folder that named data sets are read from and downloaded to ("data" by default). For name
            = "folder" it holds train/ and val/, and perhaps test/, each with one folder of images per class.
        batch_size: images per training step.
        val_fraction: share of the training part that is held out for validation, if the data have no
            validation part of their own. A folder and loaders have one.
        augment: whether training images are shifted, cropped and flipped at random, as suits the data set.
            Loaders of your own augment by themselves.
        validation: a function of your own, "mypkg.data:held_out", that is called as `loaders` is and returns
            one loader, whose images are normalised as the named set normalises them. Its images are the
            validation part in place of the share `val_fraction`.
        image_size: pixels a side to which the images of a folder are scaled (224 by default). No other data
            are scaled.
        workers: processes that read the images of a folder.
        most_samples: images of each part that are read at most, rounded up to whole batches, for a trial run.
            All are read by default.
        seed: of the draw of the validation part.
        checkpoint_saw_validation: your consent to scores on images that the checkpoint was trained on.
            Without it such a checkpoint is refused.
    """

    name: Text | None = None
    loaders: Text | None = None
    folder: Text | None = None
    batch_size: Positive = 128
    val_fraction: Annotated[Real, Field(gt=0, lt=1)] = 0.1
    augment: Flag = True
    validation: Text | None = None
    image_size: Positive | None = None
    workers: Annotated[Count, Field(le=MOST_WORKERS)] = 2
    most_samples: Positive | None = None
    seed: Seed = 0
    checkpoint_saw_validation: Flag = False


@dataclass(frozen=True)
class TaskSettings:
    """The loss that training lowers and the metric that scores raise.

    Loss and metric are a name or a function of your own, "mypkg.mod:function". A function is called as
    (outputs, targets), with the first output of the model [n, ...] and the targets that the loaders give.
    `train_step`, `evaluate` and `prepare` are functions of your own for tasks that need more.

    Attributes:
        loss: of a batch. A function of your own returns the mean as a scalar tensor. "model" is for models
            that compute their loss themselves. In training mode such a model is called with its inputs and
            the targets. The targets are the last argument, or further keywords if they are a dict. It returns
            the loss, a dict of losses, which are added up, or an output with a field `loss`.
        metric: of a whole part. "nll" is the negative mean of the loss. "kl" is the negative mean
            Kullback-Leibler divergence to the outputs of the dense model, which runs on the same images each
            time. A function of your own returns one number, and higher is better. It may also be a class or
            an object with `update(outputs, targets)`, `compute()` and perhaps `reset()`, as in torchmetrics.
            This is called batch by batch, so that the outputs need not be kept in memory. If the output holds
            no tensor at its first place, as the list of a detector, the metric gets the whole output.
        train_step: is called as (model, (inputs, targets)), with the model in training mode, and returns the
            mean loss of the batch as a scalar tensor. It replaces `loss`. It neither calls backward nor steps
            an optimizer: autoprune does both.
        evaluate: is called as (model, loader), with the model in eval mode and without gradients, for each
            evaluation of a part. The loader yields (inputs, targets). It returns the score, or a dict.
            For a dict, set `metric` to the key of the score in it. "samples" in the dict, a tensor [n], lets
            the verdict pair models by their values, whose mean must be the score.
        prepare: is called with each batch of the loaders, on the CPU, and returns (inputs, targets). The
            inputs are a tensor, a tuple of arguments, or a dict of keyword arguments of the model. Targets
            may have any structure.
    """

    loss: Text = "cross_entropy"
    metric: Text = "accuracy"
    train_step: Text | None = None
    evaluate: Text | None = None
    prepare: Text | None = None


_BudgetKeys: Any = make_dataclass("_BudgetKeys", [(key, Amount, None) for key in budget_keys()], frozen=True)


@dataclass(frozen=True)
class BudgetSettings(_BudgetKeys):  # type: ignore[misc]  # its fields are the keys of autoprune.cost.COSTS
    """The most that the small model may cost: a share of the dense model ("50%") or an amount ("20M").

    Several limits may be given at once. Counts take the suffixes k, M, G (or B) and T. Bytes take kB, MB, GB,
    TB, KiB, MiB, GiB and TiB.
    """

    tolerance: Tolerance = None
    of: Text | None = None


_KEYS = [f"{key.name}: {key.help}" for key in budget_keys().values()]
_KEYS += [
    "tolerance: searches for the smallest model whose score is at most this far below the dense model's:",
    '    "0.5 points", each 0.01 of the score, or a number in the unit of the score. It takes the place of a',
    "    limit. The budget moves between trials, and no trial is pruned.",
    'of: the cost that is made small under `tolerance`, a key of this section: "flops" by default.',
]
BudgetSettings.__doc__ = "\n        ".join([f"{BudgetSettings.__doc__}\n    Attributes:", *_KEYS])


@dataclass(frozen=True)
class LatencySettings:
    """How a forward pass is timed, for budget.latency, an objective "latency" and search.divisor = "auto".

    Attributes:
        probe: the runtime: "eager" (PyTorch as it is), "compile" (torch.compile), "onnx" (ONNX Runtime),
            "command", or a function of your own, "mypkg.mod:function". The function is called as (model,
            inputs) and returns the milliseconds of `model(*inputs)`, at best the median of several runs. The
            inputs are a tuple of tensors of `batch` images.
        device: the device that the model will run on: "cpu", "cuda" or "cuda:1".
        batch: images per forward pass.
        threads: CPU threads, at most as many as there are cores here, except for the probe "command".
        dtype: number format of weights and images.
        channels_last: whether images lie in memory with their channels last.
        command: a shell command for the probe "command". "{onnx}" in it becomes the path of an ONNX file, and
            it prints milliseconds last, at best the median of several runs.
        command_seconds: seconds after which a command that has not ended is stopped.
        tolerance: finalists and the dense model are timed side by side until the interval of their ratio is
            this narrow: 0.02 is two percent either way.
        limit_seconds: seconds after which side-by-side timing ends all the same, but not before six rounds.
            The table before the search has its own time, about 4 minutes.
        table: file that keeps the latency table. It is written if it does not exist. The default lies in the
            output folder.
    """

    probe: Text = "eager"
    device: Text = "cpu"
    batch: Positive = 1
    threads: Positive = 1
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    channels_last: Flag = False
    command: Command | None = None
    command_seconds: Seconds = 600.0
    tolerance: Annotated[Real, Field(gt=0, lt=1)] = 0.02
    limit_seconds: Seconds = 10.0
    table: Text | None = None
