"""The settings of a search: how candidates are proposed and scored, and the race at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from autoprune.config.settings._trainings import SupernetSettings
from autoprune.config.settings._values import (
    MOST,
    Flag,
    Names,
    NonNegativeFloat,
    Positive,
    PositiveFloat,
    Ratio,
    Real,
    Seed,
    Text,
    Workers,
)

WARM_STARTS = (
    "uniform",
    "reconstruction",
    "isomorphic",
    "taylor-knapsack",
    "sensitivity",
    "taylor",
    "l1",
    "bn",
)
"""The heuristics that a search tries first by default, the most promising ones first."""

RUNGS = ("repair", "25 steps", "75 steps")
"""The rungs of a search whose config names none."""


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
        objectives: "score" alone gives one winner. With keys of [budget] after it, the search gives a Pareto
            front. Then the share of the budget that a proposal fills is searched too, [budget] may be left
            out, and no trial is pruned.
        profile: "smoke", "balanced" or "thorough" fills the keys that decide how long a search takes, if the
            config leaves them out. `autoprune search --profile NAME` replaces them instead.
        engine: the engine that runs the trials.
        workers: trials at the same time, for engines with several workers.
        cpus_per_trial: CPU cores of each worker. By default the cores are shared equally.
        seed: of every draw. The same seed gives the same proposals, before and after a kill.
        storage: URL of the study's storage: an SQLite file (sqlite:///runs/STUDY.db by default), a journal,
            or a database server.
        study: name of the study, by default made from the names of model, data and budget.
        space: a file such as those of search_spaces/: the groups that are searched, their ranges, and those
            that share one ratio.
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
    profile: Text | None = None
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
class ScoreSettings:
    """How a candidate climbs: the rungs on which it is scored, from cheap to expensive.

    Attributes:
        rungs: "repair" or "calibrate" (BatchNorm is recalibrated), then finetunes such as "50 steps" or "1
            epoch". Finetunes add up: each goes on from the one before, so ["repair", "25 steps", "75
            steps"] has trained for 100 steps at the top. This is not one finetune of 100 steps. Every rung
            has its own optimiser, and its own cosine from `learning_rate` down to 0. So each score is that of
            a finished finetune. "repair" refits the layers of a candidate by least squares to the outputs of
            the dense model, and recalibrates BatchNorm. With ["repair", "calibrate"] the first score is that
            of the refit alone. Rungs that train nothing come first. "supernet" in place of "calibrate" cuts
            candidates from weights that [score.supernet] trains once, before the first trial. "repair" may
            follow it.
        calibration_batches: batches on which BatchNorm is recalibrated.
        moment_images: training images from which the moments of the dense model are measured, once a study
            and without labels. "repair", the warm start "reconstruction" and some criteria read them.
        learning_rate: highest learning rate of the finetunes, by default two fifths of
            finetune.learning_rate. A study keeps that of its start, even if [finetune] changes at a resume.
        optimizer: of the finetunes, by default finetune.optimizer. A study keeps that of its start as well.
        teacher: "dense" lets the finetunes follow the outputs of the dense model as well.
        supernet: the training of the weights for the rung "supernet".
    """

    rungs: Annotated[Names, Field(min_length=1)] = RUNGS
    calibration_batches: Positive = 20
    moment_images: Positive = 512
    learning_rate: PositiveFloat | None = None
    optimizer: Text | None = None
    teacher: Literal["dense", "none"] = "none"
    supernet: SupernetSettings = field(default_factory=SupernetSettings)


@dataclass(frozen=True)
class RaceSettings:
    """The race at the end of a search: the full training of its best trials, in which the weaker ones stop.

    The trainings follow [finetune], so that the winner is trained fully when the search ends. All entrants
    train for a sixteenth of its epochs. The best half of them goes on to a quarter of the epochs, and the
    best one to the end. The trial with one keep ratio for all groups always trains to the end, as a
    yardstick. After each stage a copy of each entrant is scored whose learning rate has fallen to 0 over a
    quarter as many steps. The entrants with the best mean rank over the scores so far go on, the last one of
    the rungs included. The ranks of a score weigh as much as the steps of its training.

    Attributes:
        entrants: how many of the best trials take part. The trial with one keep ratio and the best warm start
            of each family take part in any case. 1 means no race. There is none either if finetune.epochs is
            0, or if the best trial can be exported as it is scored, without any training. Nor is there one
            with several objectives or a tolerance: such trials differ in their costs, so their scores alone
            do not rank them.
        learning_rates: further learning rates to try besides finetune.learning_rate. The entrants that are
            left for the stage before the last one train to its end with each of them, from the start. All
            trainings go on with the learning rate of the highest mean score. A schedule of one epoch tries
            none.
    """

    entrants: Positive = 6
    learning_rates: Annotated[
        tuple[PositiveFloat, ...], Field(description="a list of positive numbers, such as [0.01]")
    ] = ()
