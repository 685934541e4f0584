"""The settings of one run as plain frozen dataclasses, one class a section of the config file.

Before: `parsing` checks what a file, a script or a study holds and fills them; after: `pipeline` hands their
values to every stage:

    RunConfig().search.trials                             # 60
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

MOST = 1_000_000
"""The largest count, length or factor that a setting takes: beyond it lie slips, and runs that never end."""

MOST_SECONDS = 86_400
"""The longest time limit: a day."""

_MOST_WORKERS = 1024
_MOST_AMOUNT = 10**18
_LONGEST_AMOUNT = 100
_LONGEST_TEXT = 4096
_LONGEST_COMMAND = 100_000

Flag = Annotated[bool, Field(strict=True)]
Positive = Annotated[int, Field(strict=True, ge=1, le=MOST)]
Count = Annotated[int, Field(strict=True, ge=0, le=MOST)]
Workers = Annotated[int, Field(strict=True, ge=1, le=_MOST_WORKERS)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Ratio = Annotated[Real, Field(gt=0, le=1)]
Share = Annotated[Real, Field(ge=0, lt=1)]
PositiveFloat = Annotated[Real, Field(gt=0, le=MOST)]
NonNegativeFloat = Annotated[Real, Field(ge=0, le=MOST)]
Seconds = Annotated[Real, Field(gt=0, le=MOST_SECONDS)]
Text = Annotated[
    str,
    Field(
        max_length=_LONGEST_TEXT,
        pattern=r"^[^\x00-\x1f\x7f-\x9f]*$",
        description=f"a string of at most {_LONGEST_TEXT:,} printable characters",
    ),
]
Command = Annotated[
    str,
    Field(
        max_length=_LONGEST_COMMAND,
        pattern=r"^[^\x00]*$",
        description=f"a string of at most {_LONGEST_COMMAND:,} characters",
    ),
]
Amount = (
    Annotated[
        Annotated[int, Field(strict=True, ge=0, le=_MOST_AMOUNT)]
        | Annotated[Real, Field(ge=0, le=_MOST_AMOUNT)]
        | Annotated[str, Field(max_length=_LONGEST_AMOUNT)],
        Field(description='a share such as "50%" or an amount such as "20M" or "4 ms"'),
    ]
    | None
)
Names = tuple[Text, ...]

WARM_STARTS = ("uniform", "reconstruction", "taylor-knapsack", "sensitivity", "taylor", "l1", "bn", "l2")
"""The heuristics that a search tries first, unless it is told otherwise; the most promising ones lead."""

RUNGS = ("calibrate", "25 steps", "75 steps")
"""The rungs of a search whose config names none."""


@dataclass(frozen=True)
class ModelSettings:
    """Where the dense model comes from: a name of the zoo or a factory, and its weights.

    `name` is "resnet20", "resnet56", "vgg16_bn", "densenet40", "digits_resnet" or any classifier of
    torchvision ("torchvision/NAME" for one that shares a name with these). In its place, `factory` is your
    own "mypkg.nets:make": a function that is called with those of `classes` (or `num_classes`) and
    `in_channels` that it takes, by these names, and returns the dense nn.Module, with as many outputs as
    there are classes.

    `checkpoint` is a file of weights: safetensors, or a state_dict that torch saved; where a named model has
    none, it is runs/NAME-DATA.safetensors. `weights` names those of torchvision in its place: "DEFAULT". A
    factory may load its own.

    `frozen` names modules, as `named_modules` does, whose channels all stay: ["layer1.0.conv1"].
    """

    name: Text | None = None
    factory: Text | None = None
    checkpoint: Text | None = None
    weights: Text | None = None
    frozen: Names = ()


@dataclass(frozen=True)
class DataSettings:
    """Where images and labels come from, and how the validation part is held out.

    `name` is "digits", "fashion-mnist", "cifar10" or "cifar100", which are read into memory from `folder`
    ("data" by default) or downloaded to it (the digits come with scikit-learn); or "folder", which so many
    `workers` stream: `folder` then holds train/ and val/, and perhaps test/, each with a folder of images for
    each class, which are scaled to `image_size` pixels a side (224 by default). Nothing else is scaled.

    In place of a name, `loaders` is your own "mypkg.data:make": a function that is called with those of
    `batch_size`, `folder` and `seed` that it takes, by these names, and returns (train, val),
    (train, val, test) or a dict with these keys, and "classes" where labels alone do not tell how many there
    are. Each is a torch DataLoader, or another iterable with a length that can be read again, of
    (inputs, targets): normalised float32 images [n, C, H, W], and labels [n] from 0 (or probabilities
    [n, classes]).

    `batch_size` is that of training. Where the images have no validation part of their own, as a folder and
    loaders do, `val_fraction` of the training part is held out, drawn by `seed`; or `validation` is
    "mypkg.data:held_out", a function that is called as above and returns one such loader, of images as the
    named set normalises them. That a checkpoint has seen this part is refused, or consented to by
    `checkpoint_saw_validation`.

    With `augment` training images are shifted, cropped and flipped at random, as suits the set; loaders do
    that themselves.
    """

    name: Text | None = None
    loaders: Text | None = None
    folder: Text | None = None
    batch_size: Positive = 128
    val_fraction: Annotated[Real, Field(gt=0, lt=1)] = 0.1
    augment: Flag = True
    validation: Text | None = None
    image_size: Positive | None = None
    workers: Annotated[Count, Field(le=_MOST_WORKERS)] = 2
    seed: Seed = 0
    checkpoint_saw_validation: Flag = False


@dataclass(frozen=True)
class TaskSettings:
    """The loss that training lowers and the metric that scores raise, by name or "mypkg.mod:function".

    `loss` is "cross_entropy"; `metric` is "accuracy" or "top5", both shares in [0, 1]. Your own are called
    as (outputs, targets), with the model's first output [n, ...] and what the loaders give: a loss for a
    batch, of which it returns the mean as a scalar tensor; a metric for a whole part at once, to return one
    number. A metric may also be a class or an object with `update(outputs, targets)`, `compute()` and perhaps
    `reset()`, as those of torchmetrics are: it gets batch by batch, so outputs need not be kept.
    """

    loss: Text = "cross_entropy"
    metric: Text = "accuracy"


@dataclass(frozen=True)
class BudgetSettings:
    """What the small model may cost: a share of the dense model ("50%") or an amount (20000000, "20M").

    `flops` are twice `macs`. Numbers take k, M, G (B) or T; `latency` us, ms or s, and is in ms without one,
    of a pass under [latency]. `size` is what is saved of it, parameters and buffers; `peak_memory` what
    weights and activations take at the fullest moment of a forward at batch 1, both in bytes ("5 MB"; kB, MB,
    GB, TB, or KiB, MiB, GiB, TiB).
    """

    flops: Amount = None
    macs: Amount = None
    params: Amount = None
    latency: Amount = None
    size: Amount = None
    peak_memory: Amount = None


@dataclass(frozen=True)
class LatencySettings:
    """Where and how a forward pass is timed: what budget.latency bounds and search.divisor = "auto" measures.

    `probe` is the runtime: "eager" (PyTorch as it is), "compile" (torch.compile), "onnx" (ONNX Runtime),
    "command", or a function of your own "mypkg.mod:function". "command" runs `command` in a shell, with the
    path of an ONNX file of that batch in place of "{onnx}"; it prints milliseconds last, and is ended if a
    run takes more than `command_seconds`. Your function is
    called as (model, inputs) -> milliseconds of `model(*inputs)`, where inputs is a tuple of tensors of
    `batch` images; both do well to return the median of several runs.

    `device` is the one that the model will run on ("cpu", "cuda", "cuda:1"), with `batch` images at a time,
    on so many CPU `threads` (at most the cores here, but for a "command"), in this `dtype` and layout
    (`channels_last`).

    Finalists and dense model are timed in turn until the interval of their ratio is within `tolerance` (0.02:
    two percent either way), or for `limit_seconds`, but six rounds at least. The table before the search has
    its own time, some 4 minutes. `table` is the file that keeps it, written where there is none; by default
    one in the output folder.
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


@dataclass(frozen=True)
class SearchSettings:
    """How sub-models are proposed, on which engine they run and where the study is kept.

    `sampler` is "gp" (Gaussian process), "tpe", "cmaes", "nsga2", "evolution", "policy_gradient", "ddpg",
    "importance", "kl" or "random". Proposals of "gp" take time that grows with the cube of the trials:
    seconds after 300; "tpe" and "evolution" suit thousands. A plan that was tried is not proposed again
    where there is a new one nearby, and a trial that fails counts to all samplers like the worst one before
    it.

    Heuristics named in `warm_starts` are tried before the sampler takes over, in that order, at most a third
    of the trials. They give their widths; which channels stay is `criterion`'s choice, so that "taylor" keeps
    as many of each group as Taylor's ranking would, but the same ones only under criterion = "taylor". Warm
    starts climb every rung. "reconstruction" gives the widths that lose the least output error within the
    budget: it measures the error of each group at every width, its readers refitted, from the moments of
    `score.moment_images` training images.

    `pruner` judges all other trials after each rung, by those that reached it, pruned ones too: "median" and
    "percentile" (the best quarter climbs on) by the sampler's own, "halving" ("asha") and "hyperband" by the
    warm starts as well; "none" lets every trial climb to the top.

    The warm start "sensitivity" scores `sensitivity_evaluations` cut models at most, each on
    `sensitivity_images` images of the validation part, after recalibration on `sensitivity_batches` batches.
    Of N keep ratios each is cut alone where there are 2N + 1 evaluations or more; with fewer, neighbours are
    cut together and share their scores. The sampler "kl" measures its divergences on `sensitivity_batches`
    batches, too.

    `criterion` ranks the channels that a width keeps: by the weights "l1", "l2", "lamp" (a norm's share of
    its layer), "bn" (the scale of the BatchNorm behind) or "fpgm" (the distance to the others); by gradients
    on training images "taylor" or "fisher"; by feature maps of training images "activation" (their mean
    size), "apoz" (the share of them that is not zero), "hrank" (their ranks) or "chip" (their independence of
    each other); "obs" and "lasso" by how well the layers that read a channel do without it; or "random".

    `device` trains and scores the trials ("auto": CUDA where there is one), in this `setting`: a number
    format (float32, bfloat16, float16) and a layout (contiguous, channels_last) such as "bfloat16
    channels_last"; "auto" measures which trains fastest, once a study.

    `space` is a file such as those of search_spaces/; `low` and `high`, the keep ratios between which groups
    are searched, and `divisor`, of which widths are multiples, stand in place of the file's (without one:
    0.1, 1.0 and 1). `divisor = "auto"` measures under [latency] which multiples of channels the runtime is
    fast at; so does a latency that is limited or minimised, where no divisor is given.

    Engines with several workers read `workers` and `cpus_per_trial`; "ray" alone `gpus_per_trial` (a share
    such as 0.5) and `address` (of a running cluster: "auto", "10.0.0.1:6379"; "local" for none). `device` is
    settled on the machine that begins the search: where that has no GPU, "auto" means the CPU, whatever the
    cluster has, and a warning says so unless `gpus_per_trial` is 0. Under "ray" the pruners "asha" and
    "halving" are Ray's ASHA; all others, "median" too, judge as in every engine.

    With `objectives` beside the score (of flops, macs, params, latency, size, peak_memory: the keys of
    [budget]) a search gives a front instead of one winner: the share of the budget that a proposal fills is
    then searched too, [budget] may be left out, and no trial is pruned.
    """

    sampler: Text = "gp"
    trials: Positive = 60
    objectives: Names = ("score",)
    engine: Text = "serial"
    workers: Workers = 2
    cpus_per_trial: PositiveFloat | None = None
    gpus_per_trial: NonNegativeFloat | None = None
    address: Text | None = None
    seed: Seed = 0
    storage: Text | None = None
    study: Text | None = None
    space: Text | None = None
    criterion: Text = "l1"
    pruner: Text = "median"
    device: Text = "auto"
    setting: Text = "auto"
    divisor: Positive | Literal["auto"] | None = None
    low: Ratio | None = None
    high: Ratio | None = None
    warm_starts: Names = WARM_STARTS
    sensitivity_evaluations: Positive = 80
    sensitivity_images: Positive = 500
    sensitivity_batches: Positive = 2


@dataclass(frozen=True)
class EvolutionSettings:
    """How search.sampler = "evolution" breeds; what is left out follows from the size of the search.

    `population` is how many may have children, the fittest that live (a fifth of the trials, 50 at most);
    `lifetime`, after how many further trials one dies (three populations); `tournament`, how many of the
    population compete to be a parent (a quarter of it). `crossover` is the probability that a child has two
    parents; `mutation`, that a keep ratio moves to another level (so that four do on average).
    """

    population: Annotated[int, Field(strict=True, ge=2, le=MOST)] | None = None
    lifetime: Positive | None = None
    tournament: Positive | None = None
    crossover: Annotated[Real, Field(ge=0, le=1)] = 0.5
    mutation: Ratio | None = None


@dataclass(frozen=True)
class ScoreSettings:
    """How a candidate climbs: "calibrate" (of BatchNorm) or "repair", then finetunes: "50 steps", "1 epoch".

    Finetunes add up: each goes on from the one before, so ["calibrate", "25 steps", "75 steps"] has trained
    for 100 steps at the top. That is not one finetune of 100: each rung has an optimiser of its own, and a
    cosine of its own from `learning_rate` down to 0, so that every score is that of a finetune at its end.

    "repair" refits the layers of a candidate by least squares, so that their outputs come as near to the
    dense model's as the channels that are left allow, and recalibrates BatchNorm. The finetunes go on from
    there. It needs no labels: what it reads of the dense model is measured once, before the first trial, on
    `moment_images` images of the training part (the criteria "obs" and "lasso" read the same). With
    ["repair", "calibrate"] the first of the two scores what the refit alone gives; the second recalibrates.

    Rungs that train nothing come first. "supernet" stands in place of "calibrate": candidates are then cut
    from weights that [supernet] trains once, before the first trial. "repair" may follow it.
    """

    rungs: Annotated[Names, Field(min_length=1)] = RUNGS
    calibration_batches: Positive = 20
    moment_images: Positive = 512
    learning_rate: PositiveFloat = 0.02
    teacher: Literal["dense", "none"] = "none"


@dataclass(frozen=True)
class ScheduleSettings:
    """A full training: epochs, optimiser, schedule and what smooths them.

    `optimizer` is "sgd" (Nesterov's) or "adamw"; `schedule` is "cosine", "one-cycle" (linear down) or
    "constant", after a linear rise over the share `warmup` of the steps. `momentum` is AdamW's first beta,
    too. `ema` is the decay per step of the average of the weights that is evaluated and kept; 0 for none.
    """

    epochs: Positive = 20
    learning_rate: PositiveFloat = 0.1
    optimizer: Text = "sgd"
    momentum: Share = 0.9
    weight_decay: NonNegativeFloat = 5e-4
    schedule: Text = "cosine"
    warmup: Share = 0.05
    label_smoothing: Share = 0.0
    ema: Share = 0.0
    seed: Seed = 0


@dataclass(frozen=True)
class TrainSettings(ScheduleSettings):
    """The dense model's training; with `when_missing` a search trains the checkpoint that is missing."""

    when_missing: Flag = False


@dataclass(frozen=True)
class FinetuneSettings(ScheduleSettings):
    """The winner's training, with the dense model as teacher unless it is told otherwise.

    Without epochs the winner stays as it was cut: BatchNorm alone is recalibrated. `distill_weight` is the
    share of the loss that follows the teacher: class logits by their softmax at `temperature`, values of a
    regression and logits of single classes by their squared error.
    """

    epochs: Count = 20
    learning_rate: PositiveFloat = 0.05
    teacher: Literal["dense", "none"] = "dense"
    distill_weight: Annotated[Real, Field(ge=0, le=1)] = 0.5
    temperature: PositiveFloat = 4.0


@dataclass(frozen=True)
class SupernetSettings(ScheduleSettings):
    """The training of weights that all sub-nets share, for the rung "supernet": see `autoprune.supernet`.

    A step trains the whole model on the labels, and the smallest sub-net and `subnets` random ones on what
    the whole one says; `budget_share` of the random ones fill the budget, the others have any size.

    They are trained after all that a search measures first: the ranking of channels, the warm starts and the
    statistics of the samplers "importance" and "kl" are those of the dense model.
    """

    subnets: Count = 2
    budget_share: Annotated[Real, Field(ge=0, le=1)] = 0.5
    temperature: PositiveFloat = 1.0


@dataclass(frozen=True)
class OutputSettings:
    """The folder that receives checkpoints, the finetuned model and reports; default runs/STUDY."""

    folder: Text | None = None


@dataclass(frozen=True)
class RunConfig:
    """All settings of one run; `dataclasses.asdict` gives what the study stores."""

    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    task: TaskSettings = field(default_factory=TaskSettings)
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    latency: LatencySettings = field(default_factory=LatencySettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    evolution: EvolutionSettings = field(default_factory=EvolutionSettings)
    score: ScoreSettings = field(default_factory=ScoreSettings)
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    supernet: SupernetSettings = field(default_factory=SupernetSettings)
    output: OutputSettings = field(default_factory=OutputSettings)
