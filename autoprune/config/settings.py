"""The settings of one run as plain frozen dataclasses, one class per section of the config file.

The docstrings are the config reference of the guide: `python -m tests.guide.reference` writes it.

Example:
    RunConfig().search.trials                             # 60
"""

from __future__ import annotations

from dataclasses import dataclass, field, make_dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from autoprune.cost import budget_keys

MOST = 1_000_000
"""The largest count, length or factor of a setting. Larger ones are slips, or runs that never end."""

MOST_SECONDS = 86_400
"""The longest time limit: a day."""

_MOST_WORKERS = 1024
_MOST_PASSES = 100
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
Tolerance = (
    Annotated[
        PositiveFloat | Annotated[str, Field(max_length=_LONGEST_AMOUNT)],
        Field(description='points such as "0.5 points" or a number above 0'),
    ]
    | None
)
Names = tuple[Text, ...]
RateByScore = Annotated[
    tuple[tuple[Real, PositiveFloat], ...],
    Field(description="a list of [score, learning rate] with rising scores, such as [[0.8, 0.001]]"),
]
Strength = Annotated[
    NonNegativeFloat | Annotated[tuple[NonNegativeFloat, ...], Field(min_length=1)],
    Field(description="a number of 0 or more, or a list of them"),
]
Options = Annotated[dict[str, Real], Field(description="a section of numbers, such as options = { t = 1.4 }")]
Floor = Annotated[
    Annotated[int, Field(strict=True, ge=0, le=MOST)] | Ratio,
    Field(description="channels, such as 2, or a share of the width, such as 0.1"),
]

WARM_STARTS = ("uniform", "reconstruction", "taylor-knapsack", "sensitivity", "taylor", "l1", "bn", "l2")
"""The heuristics that a search tries first by default, the most promising ones first."""

RUNGS = ("repair", "25 steps", "75 steps")
"""The rungs of a search whose config names none."""


@dataclass(frozen=True)
class ModelSettings:
    """Where the dense model comes from: a name or a factory of your own, and its weights.

    Attributes:
        name: a model of the zoo, or any classifier of torchvision. "torchvision/NAME" is the one of
            torchvision if the zoo has a model of the same name.
        factory: a function of your own, "mypkg.nets:make", in place of `name`. It is called with those of
            `classes` (or `num_classes`) and `in_channels` that it takes, by these names, and returns the
            dense nn.Module with one output per class. It may load its own weights.
        checkpoint: a file of weights: safetensors, or a state_dict that torch saved. The default for a named
            model is runs/NAME-DATA.safetensors.
        weights: the name of trained weights of torchvision, such as "DEFAULT", in place of `checkpoint`.
        frozen: modules, by their names in `named_modules`, whose channels all stay: ["layer1.0.conv1"].
    """

    name: Text | None = None
    factory: Text | None = None
    checkpoint: Text | None = None
    weights: Text | None = None
    frozen: Names = ()


@dataclass(frozen=True)
class DataSettings:
    """Where images and labels come from, and how the validation part is held out.

    Attributes:
        name: a data set by its name. The digits come with scikit-learn, and the other named sets are
            downloaded. All of these are kept in memory. "folder" streams a folder of images instead.
        loaders: a function of your own, "mypkg.data:make", in place of `name`. It is called with those of
            `batch_size`, `folder` and `seed` that it takes, by these names. It returns (train, val), (train,
            val, test) or a dict with these keys, and "classes" if the labels alone do not show how many there
            are. Each part is a torch DataLoader, or another iterable with a length that can be read again, of
            (inputs, targets): normalised float32 images [n, C, H, W], and labels [n] from 0 (or probabilities
            [n, classes]).
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
    workers: Annotated[Count, Field(le=_MOST_WORKERS)] = 2
    seed: Seed = 0
    checkpoint_saw_validation: Flag = False


@dataclass(frozen=True)
class TaskSettings:
    """The loss that training lowers and the metric that scores raise.

    Both are a name or a function of your own, "mypkg.mod:function", that is called as (outputs, targets): the
    first output of the model [n, ...], and the targets that the loaders give.

    Attributes:
        loss: of a batch. A function of your own returns the mean as a scalar tensor.
        metric: of a whole part. "nll" is the negative mean of the loss, and "kl" the negative mean
            Kullback-Leibler divergence to the outputs of the dense model, which runs on the same images each
            time. A function of your own returns one number, and higher is better. A class or an object with
            `update(outputs, targets)`, `compute()` and perhaps `reset()`, as in torchmetrics, is called batch
            by batch instead, so that the outputs need not be kept in memory.
    """

    loss: Text = "cross_entropy"
    metric: Text = "accuracy"


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


@dataclass(frozen=True)
class EvolutionSettings:
    """How the sampler "evolution" breeds. A key that is left out follows from the size of the search.

    Attributes:
        population: how many trials may have children: the fittest that live. A fifth of the trials by
            default, at most 50.
        lifetime: after how many further trials one dies, three populations by default.
        tournament: how many of the population compete to be a parent, a quarter of it by default.
        crossover: probability that a child has two parents.
        mutation: probability that a keep ratio moves to another level, such that four move on average by
            default.
    """

    population: Annotated[int, Field(strict=True, ge=2, le=MOST)] | None = None
    lifetime: Positive | None = None
    tournament: Positive | None = None
    crossover: Annotated[Real, Field(ge=0, le=1)] = 0.5
    mutation: Ratio | None = None


@dataclass(frozen=True)
class RaySettings:
    """Where the engine "ray" runs trials.

    Attributes:
        address: of a running Ray cluster: "auto", "10.0.0.1:6379", or "local" for none.
        gpus_per_trial: GPUs of each trial, such as 0.5. By default the GPUs are shared equally.
    """

    address: Text | None = None
    gpus_per_trial: NonNegativeFloat | None = None


@dataclass(frozen=True)
class SearchSettings:
    """How sub-models are proposed, trained and scored, and the place of the study.

    Attributes:
        sampler: how keep ratios are proposed. The time for a proposal of "gp" grows with the cube of the
            trials: seconds after 300 of them. "tpe" and "evolution" suit thousands. No sampler proposes a
            plan twice if a new one is near, and a failed trial counts like the worst one before it.
        trials: how many sub-models are scored, warm starts included.
        objectives: "score" alone gives one winner. With keys of [budget] after it the search gives a Pareto
            front: the share of the budget that a proposal fills is then searched too, [budget] may be left
            out, and no trial is pruned.
        engine: the engine that runs the trials.
        workers: trials at the same time, for engines with several workers.
        cpus_per_trial: CPU cores of each worker. By default the cores are shared equally.
        seed: of every draw. The same seed gives the same proposals, before and after a kill.
        storage: URL of the study's storage: an SQLite file (sqlite:///runs/STUDY.db by default), a journal,
            or a database server.
        study: name of the study, by default made from the names of model, data and budget.
        space: a file such as those of search_spaces/: which groups are searched, in which range, and which
            share one ratio.
        criterion: how the channels of a group are ranked. The width decides how many stay, the ranking which.
            With a list of several names each trial chooses one of them for each keep ratio, and the report
            compares them. Warm starts use the first.
        depth: whether residual blocks may be dropped as a whole, in addition to narrowing. The shortcut of a
            dropped block stays. `autoprune inspect` lists the blocks.
        pruner: which trials stop after a rung. It judges a trial by all trials that reached the rung, pruned
            ones too. "halving", "asha" and "hyperband" count warm starts as well. Warm starts climb every
            rung.
        device: the device that trains and scores trials: "auto" (CUDA if there is a GPU), "cpu", "cuda" or
            "cuda:1". It is settled on the machine that begins the search: if that has no GPU, "auto" means
            the CPU, whatever a cluster has, and a warning follows unless `ray.gpus_per_trial` is 0.
        setting: number format (float32, bfloat16, float16) and layout (contiguous, channels_last) of
            trainings, such as "bfloat16 channels_last". "auto" measures once a study which trains fastest.
        divisor: widths are multiples of it. "auto" measures under [latency] at which multiples of channels
            the runtime is fast, and is the default if latency is limited or minimised. Otherwise the default
            is the value of `space`, or 1.
        low: smallest keep ratio, by default the value of `space`, or 0.1.
        high: largest keep ratio, by default the value of `space`, or 1.0.
        warm_starts: heuristics whose widths are tried before the sampler takes over, in this order, in at
            most a third of the trials. They give widths alone: "taylor" keeps as many channels of each group
            as a ranking by Taylor would, but the same channels only if `criterion` is "taylor".
            "reconstruction" measures the output error of each group at every width on score.moment_images
            training images and gives the widths with the least error within the budget. With `depth` the
            second one is "depth", which drops blocks. The others keep all blocks, if the budget allows.
        sensitivity_evaluations: most cut models that the warm start "sensitivity" scores. It cuts each of N
            keep ratios alone if this is 2N + 1 or more. With fewer, neighbours are cut together and share
            their scores.
        sensitivity_images: images of the validation part on which each of them is scored.
        sensitivity_batches: batches on which each of them is recalibrated, and on which the sampler "kl"
            measures its divergences.
        evolution: the rates of the sampler "evolution".
        ray: where the engine "ray" runs trials.
    """

    sampler: Text = "gp"
    trials: Positive = 60
    objectives: Names = ("score",)
    engine: Text = "serial"
    workers: Workers = 2
    cpus_per_trial: PositiveFloat | None = None
    seed: Seed = 0
    storage: Text | None = None
    study: Text | None = None
    space: Text | None = None
    criterion: Text | Annotated[Names, Field(min_length=1)] = "l1"
    depth: Flag = False
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
    evolution: EvolutionSettings = field(default_factory=EvolutionSettings)
    ray: RaySettings = field(default_factory=RaySettings)

    @property
    def criteria(self) -> tuple[str, ...]:
        """The criteria that a trial chooses from, usually one."""
        return (self.criterion,) if isinstance(self.criterion, str) else tuple(self.criterion)


@dataclass(frozen=True)
class ScheduleSettings:
    """A full training: its length, optimiser and schedule.

    Attributes:
        epochs: passes over the training part.
        learning_rate: the highest one.
        optimizer: "sgd" has Nesterov momentum.
        momentum: of SGD, or the first beta of Adam and AdamW.
        weight_decay: of the weights of convolutions and linear layers.
        schedule: how the learning rate falls after the warm-up. "one-cycle" falls linearly, "step" to a tenth
            after half of the steps and again after three quarters.
        warmup: share of the steps in which the learning rate rises linearly.
        rate_by_score: learning rates by the score on the validation part, in place of `schedule`. With [[0.8,
            0.001]] the rate is 0.001 after the first epoch with a score of 0.8 or more. It never rises again.
        label_smoothing: share of the target that is spread over all classes.
        ema: decay per step of the average of the weights that is evaluated and kept, or 0 for no average.
        seed: of the order of the images and of all other draws.
    """

    epochs: Positive = 20
    learning_rate: PositiveFloat = 0.1
    optimizer: Text = "sgd"
    momentum: Share = 0.9
    weight_decay: NonNegativeFloat = 5e-4
    schedule: Text = "cosine"
    warmup: Share = 0.05
    rate_by_score: RateByScore = ()
    label_smoothing: Share = 0.0
    ema: Share = 0.0
    seed: Seed = 0


@dataclass(frozen=True)
class SupernetSettings(ScheduleSettings):
    """The training of weights that all sub-models share, for the rung "supernet".

    A step trains the whole model on the labels, and the smallest sub-model and some random ones on the
    outputs of the whole one. The ranking of channels, the warm starts and the statistics of samplers stay
    those of the dense model.

    Attributes:
        subnets: random sub-models per step.
        budget_share: share of the random sub-models that fill the budget. The others have any size.
        temperature: of the softmax by which sub-models follow the whole one.
    """

    subnets: Count = 2
    budget_share: Annotated[Real, Field(ge=0, le=1)] = 0.5
    temperature: PositiveFloat = 1.0


@dataclass(frozen=True)
class ScoreSettings:
    """How a candidate climbs: the rungs on which it is scored, from cheap to expensive.

    Attributes:
        rungs: "repair" or "calibrate" (BatchNorm is recalibrated), then finetunes such as "50 steps" or "1
            epoch". Finetunes add up: each goes on from the one before, so ["repair", "25 steps", "75
            steps"] has trained for 100 steps at the top. This is not one finetune of 100: every rung has its
            own optimiser and its own cosine from `learning_rate` down to 0, so that each score is that of a
            finished finetune. "repair" refits the layers of a candidate by least squares to the outputs of
            the dense model, and recalibrates BatchNorm. With ["repair", "calibrate"] the first score is that
            of the refit alone. Rungs that train nothing come first. "supernet" in place of "calibrate" cuts
            candidates from weights that [score.supernet] trains once, before the first trial. "repair" may
            follow it.
        calibration_batches: batches on which BatchNorm is recalibrated.
        moment_images: training images from which the moments of the dense model are measured, once a study
            and without labels, for "repair", the warm start "reconstruction" and the criteria that read
            moments.
        learning_rate: highest learning rate of the finetunes.
        teacher: "dense" lets the finetunes follow the outputs of the dense model as well.
        supernet: the training of the weights for the rung "supernet".
    """

    rungs: Annotated[Names, Field(min_length=1)] = RUNGS
    calibration_batches: Positive = 20
    moment_images: Positive = 512
    learning_rate: PositiveFloat = 0.02
    teacher: Literal["dense", "none"] = "none"
    supernet: SupernetSettings = field(default_factory=SupernetSettings)


@dataclass(frozen=True)
class RaceSettings:
    """The race at the end of a search: the full training of its best trials, in which the weaker ones stop.

    The trainings follow [finetune], so that the winner is trained fully when the search ends. All entrants
    train for a sixteenth of its epochs. The best quarter of them goes on to a quarter of the epochs, and the
    best one to the end. The trial with one keep ratio for all groups always trains to the end, as a
    yardstick. After each stage a copy of each entrant is scored whose learning rate has fallen to 0 over a
    quarter as many steps.

    Attributes:
        entrants: how many of the best trials take part. The trial with one keep ratio and the best warm start
            of each family take part in any case. 1 turns the race off. There is no race either if
            finetune.epochs is 0, if the best trial can be exported as it is scored, without any training, or
            if there are several objectives or a tolerance: such trials differ in their costs, so the better
            score of two says nothing.
    """

    entrants: Positive = 6


@dataclass(frozen=True)
class TrainSettings(ScheduleSettings):
    """The training of the dense model, by `autoprune train` or by a search that finds no checkpoint.

    Attributes:
        when_missing: whether a search trains the checkpoint if there is none.
    """

    when_missing: Flag = False


@dataclass(frozen=True)
class FinetuneSettings(ScheduleSettings):
    """The training of the winner.

    Attributes:
        epochs: passes over the training part. With 0 the winner stays as it was cut, and BatchNorm alone is
            recalibrated.
        teacher: "dense" lets the winner follow the outputs of the dense model. "none" trains on labels alone.
        distill_weight: share of the loss that follows the teacher.
        temperature: of the softmax by which class logits follow the teacher. Values of a regression and
            logits of single classes follow it by squared error instead.
    """

    epochs: Count = 20
    learning_rate: PositiveFloat = 0.05
    teacher: Literal["dense", "none"] = "dense"
    distill_weight: Annotated[Real, Field(ge=0, le=1)] = 0.5
    temperature: PositiveFloat = 4.0


@dataclass(frozen=True)
class FlowSettings:
    """The stages by which `autoprune prune` makes a model smaller.

    Attributes:
        method: a preset, which fills the keys that a config leaves out. `autoprune methods` lists them.
        stages: their order in a pass. By default ["select", "repair", "finetune"], after "sparsify" if there
            is a section [sparsify]. "rebuild" follows "select" unless it is listed. A search with "sparsify"
            sparsifies the dense model first.
        passes: how often the stages are repeated. Each pass begins with the model of the one before, and the
            budget is reached in equal steps of the logarithm of its costs.
        narrow: the part of the model that one pass narrows. "group" narrows one group after the other, in the
            order of execution, and "stage" all groups of one map size. The widths are chosen once for the
            whole budget, the channels at the beginning of each pass, and there are as many passes as needed.
        checkpoints: whether each epoch of a training writes PASS-STAGE.pth, a dict of "epoch", "optimizer"
            and "state_dict" that torch.load(path, weights_only=True) reads.
    """

    method: Text | None = None
    stages: Names = ()
    passes: Annotated[int, Field(strict=True, ge=1, le=_MOST_PASSES)] = 1
    narrow: Literal["all", "group", "stage"] = "all"
    checkpoints: Flag = False


@dataclass(frozen=True)
class SparsifySettings(ScheduleSettings):
    """The stage "sparsify": a training with a penalty that drives channels to zero.

    Attributes:
        penalty: the quantity that is penalised.
        strength: factor of the penalty. Of several, each is tried in a training of a quarter of the epochs,
            and the one whose model scores highest after `share` of its channels are cut is trained in full.
        share: share of the channels that are cut to compare strengths.
        initial_scale: value of all penalised BatchNorm scales before the training of the first pass, such as
            0.5 for a model that is trained from scratch. By default they stay.
        options: numbers that the penalty takes by name, such as `t` of "polarization".
    """

    penalty: Text = "bn-l1"
    strength: Strength = 1e-4
    share: Share = 0.5
    initial_scale: PositiveFloat | None = None
    options: Options = field(default_factory=dict)


@dataclass(frozen=True)
class SelectSettings:
    """The stage "select", which chooses the channels that stay.

    Attributes:
        by: how the widths of a pass are chosen.
        criterion: how the channels of a group are ranked. By default `search.criterion`, or for
            "global-threshold" the sizes that the penalty acts on, which are the BatchNorm scales if nothing
            was sparsified.
        floor: channels that each group keeps at least, or the share of its width at the beginning of the
            pass. "search" reads `search.low` instead.
        share: share of the channels that each pass cuts, in place of a budget, for "global-threshold" and
            "uniform".
        threshold: channels of this size and smaller ones are cut, in place of a budget, for
            "global-threshold".
        ranking: "independent" ranks each group in the model at the beginning of the pass. "greedy" ranks
            group after group, in the order of execution, in the model as pruned so far: weights that read
            removed channels do not count. With the criterion "lasso" the layers are also refitted in between.
        residual: "shortcut" ranks the channels of a residual stream by the layer that starts its shortcut
            alone, such as a projection. "all" ranks them by all layers that write into the stream.
        remove: the channels that go: the "least" important ones, or the "most" important ones as a control.
        ties: "stage" gives all groups of one map size the same keep ratio.
        skip_fall: groups stay whole if the metric falls by more than this when they alone are cut to
            `skip_at` of their channels. By default no group is tested.
        skip_at: keep ratio of that test.
    """

    by: Text = "library"
    criterion: Text | None = None
    floor: Floor = 1
    share: Share | None = None
    threshold: NonNegativeFloat | None = None
    ranking: Literal["independent", "greedy"] = "independent"
    residual: Literal["all", "shortcut"] = "all"
    remove: Literal["least", "most"] = "least"
    ties: Literal["none", "stage"] = "none"
    skip_fall: NonNegativeFloat | None = None
    skip_at: Annotated[Real, Field(gt=0, lt=1)] = 0.5


@dataclass(frozen=True)
class RepairSettings:
    """The stage "repair", which refits the layers of the smaller model by least squares.

    Attributes:
        mode: "closed" refits each layer by itself, "sequential" layer after layer from the outputs of the
            repaired layers before it.
        images: training images that it reads, without labels.
    """

    mode: Text = "closed"
    images: Positive = 512


@dataclass(frozen=True)
class OutputSettings:
    """Where results are written.

    Attributes:
        folder: receives checkpoints, the finetuned model and reports, runs/STUDY by default.
    """

    folder: Text | None = None


@dataclass(frozen=True)
class RunConfig:
    """All settings of one run. The study stores them as `dataclasses.asdict` gives them."""

    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    task: TaskSettings = field(default_factory=TaskSettings)
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    latency: LatencySettings = field(default_factory=LatencySettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    score: ScoreSettings = field(default_factory=ScoreSettings)
    race: RaceSettings = field(default_factory=RaceSettings)
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    flow: FlowSettings = field(default_factory=FlowSettings)
    sparsify: SparsifySettings = field(default_factory=SparsifySettings)
    select: SelectSettings = field(default_factory=SelectSettings)
    repair: RepairSettings = field(default_factory=RepairSettings)
    output: OutputSettings = field(default_factory=OutputSettings)
