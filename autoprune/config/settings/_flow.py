"""The settings of a flow, except for those of its trainings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from autoprune.config.settings._values import (
    MOST_PASSES,
    Flag,
    Floor,
    Names,
    NonNegativeFloat,
    Positive,
    Real,
    Share,
    Text,
)


@dataclass(frozen=True)
class FlowSettings:
    """The stages by which `autoprune prune` makes a model smaller.

    Attributes:
        method: a preset, which fills the keys that a config leaves out. `autoprune methods` lists them.
        stages: their order in a pass. By default ["select", "repair", "finetune"], after "sparsify" if there
            is a section [sparsify]. "rebuild" follows "select" and "sparsify" unless it is listed. A search
            with "sparsify" sparsifies the dense model first.
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
    passes: Annotated[int, Field(strict=True, ge=1, le=MOST_PASSES)] = 1
    narrow: Literal["all", "group", "stage"] = "all"
    checkpoints: Flag = False


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
class MaskSettings:
    """The stage "mask", which holds weights at zero while the others train on.

    The masks hold in all later stages. They are kept next to the weights, as masks.safetensors. Zeros alone
    do not run faster. If the flow has no "select", a stage "rebuild" after the finetune cuts the masked
    filters.

    Attributes:
        granularity: the units that are masked. "2:4" masks two weights of every four inputs.
        score: how weights are ranked. The units with the lowest mean score are masked.
        scope: "layer" masks the same share of every layer, and "global" ranks the units of all layers.
        sparsity: share of the weights that are masked at the end of the last pass. Each pass leaves the same
            share of the weights of the pass before. With "filter" the weights that read a masked channel are
            masked in addition.
        schedule: "one-shot" masks all weights before the finetune, and "cubic" more and more of them during
            the first three quarters of the finetune, most of them early.
        skip: modules that stay dense.
        images: training images for scores that run the model.
        file: masks that are read in place of made ones, as a flow or `autoprune.masks.save_masks` wrote them.
    """

    granularity: Text = "weight"
    score: Text = "magnitude"
    scope: Literal["layer", "global"] = "layer"
    sparsity: Share = 0.5
    schedule: Literal["one-shot", "cubic"] = "one-shot"
    skip: Names = ()
    images: Positive = 512
    file: Text | None = None


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
