"""The JSON documents of verbs that train, prune, inspect, export and time models."""

from __future__ import annotations

from typing import Literal

from pydantic import AliasPath, Field

from autoprune.cli._document_base import Costs, Document, Number, Pair, Text
from autoprune.cli._document_parts import (
    BenchPart,
    BlockPart,
    CurvePart,
    FlowStagePart,
    GroupPart,
    MethodPart,
    PrunedPart,
    RangePart,
    RemainingPart,
    TimePart,
)


class TrainDocument(Document):
    """The result of `train`.

    Attributes:
        checkpoint: the file of weights.
        val_score: the score on the validation part after the last epoch.
    """

    document: Literal["train"] = "train"
    checkpoint: Text
    val_score: Number


class PruneDocument(PrunedPart, Document):
    """The result of `prune`.

    Attributes:
        method: the preset.
        remaining: the weights and MACs that masks leave.
        stages: the stages of all passes.
    """

    document: Literal["prune"] = "prune"
    method: str | None
    remaining: RemainingPart | None
    stages: list[FlowStagePart]


class MethodsDocument(Document):
    """The result of `methods`.

    Attributes:
        methods: the presets.
    """

    document: Literal["methods"] = "methods"
    methods: list[MethodPart]


class InspectDocument(Document):
    """The result of `inspect`.

    Attributes:
        model: name of the model.
        groups: the channel groups.
        blocks: the residual branches that a search may drop.
        variables: number of keep ratios that are searched.
        dense_cost: {cost: the dense model's}.
        smallest: {cost: that of the smallest plan}.
        largest: {cost: that of the largest plan}.
        costs: {cost: its range} of limited and minimised costs.
        limits: {cost: its limit}, or null if the budget cannot be met.
        plans: number of distinct plans within the budget, or null if they are too many to count.
        problem: why the budget cannot be met, or "".
        memory_bytes: estimated peak memory of the search.
    """

    document: Literal["inspect"] = "inspect"
    model: str
    groups: list[GroupPart]
    blocks: list[BlockPart]
    variables: int
    dense_cost: Costs
    smallest: Costs
    largest: Costs
    costs: dict[str, RangePart]
    limits: Costs | None = Field(None, validation_alias=AliasPath("budget", "limits"))
    plans: int | None
    problem: str
    memory_bytes: int


class CurvesDocument(Document):
    """The result of `inspect --errors` and `inspect --sensitivity`.

    Attributes:
        title: the heading of the curves.
        value: name of the values.
        curves: the curves.
        baseline: the value of the dense model.
        files: the files that were written.
    """

    document: Literal["curves"] = "curves"
    title: str
    value: str
    curves: list[CurvePart]
    baseline: Number
    files: list[Text]


class ExportDocument(Document):
    """The result of `export`.

    Attributes:
        path: the file or the folder.
        format: its format.
        max_difference: largest absolute difference to the outputs in PyTorch.
        part: path of the submodule that the file holds, or "" for the whole model.
        opset: version of ONNX's operators, or null.
    """

    document: Literal["export"] = "export"
    path: Text
    format: str
    max_difference: Number
    part: str
    opset: int | None


class Int8Document(Document):
    """The result of `export --int8`.

    Attributes:
        path: the int8 file.
        float_path: the float file next to it, or null.
        metric: name of the score.
        score: of the int8 file on the validation part.
        float_score: of the float file.
        interval: 95% interval of the difference of the scores.
        val_images: number of validation images.
        size_bytes: of the int8 file.
        float_size_bytes: of the float file.
        time: of the int8 file at batch 1 on one thread.
        float_time: of the float file.
        ratio: time of the int8 file over the float file's.
        ratio_interval: its 95% interval.
        calibration: method of the calibration.
        images: number of training images to calibrate with.
        reduce_range: whether weights have 7 bits.
        loses: whether the score falls by more than the tolerance.
    """

    document: Literal["int8"] = "int8"
    path: Text
    float_path: Text | None
    metric: str
    score: Number
    float_score: Number
    interval: Pair | None
    val_images: int
    size_bytes: int
    float_size_bytes: int
    time: TimePart
    float_time: TimePart
    ratio: Number = Field(validation_alias=AliasPath("ratio", "ratio"))
    ratio_interval: Pair = Field(validation_alias=AliasPath("ratio", "interval"))
    calibration: str
    images: int
    reduce_range: bool
    loses: bool


class BenchDocument(Document):
    """The result of `bench`.

    Attributes:
        rows: the models, in the given order.
        batch: images of a forward pass.
        threads: CPU threads.
        device: the device.
    """

    document: Literal["bench"] = "bench"
    rows: list[BenchPart]
    batch: int
    threads: int
    device: str
