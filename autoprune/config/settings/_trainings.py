"""The settings of trainings: of the dense model, of a supernet, of a sparse model and of the winner."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from autoprune.config.settings._values import (
    Count,
    Flag,
    NonNegativeFloat,
    Options,
    Positive,
    PositiveFloat,
    RateByScore,
    Real,
    Seed,
    Share,
    Strength,
    Text,
)


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
class TrainSettings(ScheduleSettings):
    """The training of the dense model, by `autoprune train` or by a search or flow that finds no checkpoint.

    Attributes:
        when_missing: whether a search or a flow trains the checkpoint if there is none.
    """

    when_missing: Flag = False


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
class SparsifySettings(ScheduleSettings):
    """The stage "sparsify": a training with a penalty that drives channels to zero.

    Attributes:
        penalty: the quantity that is penalised.
        strength: factor of the penalty. Each of several is tried in a training of a quarter of the epochs.
            Then `share` of the channels is cut, and the strength with the highest score is trained in full.
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
