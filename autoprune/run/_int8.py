"""Exports a saved model as int8 ONNX, and measures the accuracy and the latency next to the float file's.

Example:
    report = export_int8("digits")
    report.score, report.float_score, report.ratio.ratio
"""

from __future__ import annotations

import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.config.rungs import score_text
from autoprune.data import first_batches
from autoprune.errors import ConfigError, ExportError, unknown
from autoprune.execution import Setting
from autoprune.exporting import (
    CALIBRATIONS,
    INT8,
    ONNX,
    Int8Facts,
    may_saturate,
    quantise,
    read_recipe,
    read_signature,
    run_onnx,
    update_extra,
)
from autoprune.latency import Measurement, Ratio
from autoprune.progress import Watch, watching
from autoprune.reporting import paired_interval
from autoprune.run._bench import bench
from autoprune.run._checks.trust import consent_of
from autoprune.run._export import export_saved
from autoprune.run._model_data import ModelData, find_data
from autoprune.run._resolving.dense import Dense
from autoprune.run._resolving.paths import require_unprotected
from autoprune.run._resolving.session import StudyResult
from autoprune.run._resolving.spec import ConfigSource
from autoprune.run._results.artefact import complete_artefact
from autoprune.run._results.flow_result import FlowResult
from autoprune.support.atomic import saving
from autoprune.support.events import Stage, Watcher
from autoprune.support.usercode import entry
from autoprune.training import Evaluation, measure

TOLERANCE = 0.01
"""Loss of the score, as a share of the float file's, above which the notes advise against the int8 file."""

_BATCH = 32
"""Largest number of images of a forward pass during the calibration."""


@dataclass(frozen=True)
class Int8Report:
    """An int8 file next to the float file that it was made from.

    Attributes:
        path: the int8 file.
        float_path: the float file, or None if it was temporary.
        metric: name of the score.
        score: of the int8 file in ONNX Runtime on the validation part.
        float_score: of the float file.
        interval: 95% interval of `score - float_score`, image by image, or None if the metric is no mean.
        val_images: number of images of the validation part.
        size_bytes: of the int8 file.
        float_size_bytes: of the float file.
        time: a forward pass of the int8 file at batch 1 on one thread of this CPU.
        float_time: of the float file, timed side by side.
        ratio: `time` over `float_time`.
        calibration: the method of the calibration.
        images: number of training images to calibrate with.
        reduce_range: whether weights have 7 bits.
        tolerance: loss of the score, as a share of the float file's, that is accepted.
    """

    path: Path
    float_path: Path | None
    metric: str
    score: float
    float_score: float
    interval: tuple[float, float] | None
    val_images: int
    size_bytes: int
    float_size_bytes: int
    time: Measurement
    float_time: Measurement
    ratio: Ratio
    calibration: str
    images: int
    reduce_range: bool
    tolerance: float

    @property
    def loses(self) -> bool:
        """Whether the score falls by more than the tolerance."""
        return self.float_score - self.score > self.tolerance * abs(self.float_score)

    @property
    def rows(self) -> list[list[str]]:
        """The comparison as texts: [quantity, float file, int8 file]."""
        return [
            [
                f"{self.metric} on the validation part",
                score_text(self.float_score, None),
                score_text(self.score, None),
            ],
            ["bytes", f"{self.float_size_bytes:,}", f"{self.size_bytes:,}"],
            ["ms a forward pass, batch 1", _milliseconds(self.float_time), _milliseconds(self.time)],
        ]

    @property
    def notes(self) -> list[str]:
        """Sentences on the loss of the score, the speed, and the CPUs on which they hold."""
        gain = self.score - self.float_score
        interval = ""
        if self.interval is not None:
            interval = f" (95% interval {self.interval[0]:+.4f} to {self.interval[1]:+.4f})"
        change = (
            f"int8 changes the {self.metric} by {gain:+.4f}{interval} on {self.val_images} validation images"
        )
        advice = (
            f", a loss of more than {self.tolerance:.0%}: keep the float file, or try another --calibration, "
            "more --images, or --reduce-range"
        )
        low, high = self.ratio.interval
        speed = "slower here" if low > 1 else "faster here" if high < 1 else "about as fast here"
        bits = (
            "Weights have 7 bits, so that sums of products do not saturate on x86 CPUs without VNNI."
            if self.reduce_range
            else "Weights have 8 bits. On x86 CPUs without VNNI, sums of products may saturate and lower the "
            "score: export for them with --reduce-range."
        )
        return [
            f"{change}{advice if self.loses else ''}.",
            f"It takes {self.ratio.ratio:.1%} of the float file's time ({low:.1%} to {high:.1%} in 95% of "
            f"timings) on this CPU, so it is {speed}. Other CPUs differ.",
            bits,
        ]

    @property
    def made(self) -> list[str]:
        """Sentences on how the file was made."""
        return [
            "It was made by ONNX Runtime's static quantisation (QDQ, int8 weights per channel, int8 "
            f"activations), calibrated by {self.calibration} on {self.images} training images."
        ]


@entry()
def export_int8(
    target: str | os.PathLike[str] | StudyResult | FlowResult,
    *,
    output: str | os.PathLike[str] | None = None,
    calibration: str = "minmax",
    images: int = 256,
    reduce_range: bool | None = None,
    opset: int | None = None,
    tolerance: float = TOLERANCE,
    storage: str | None = None,
    trust: bool = False,
    config: ConfigSource | None = None,
    watch: Watch = True,
) -> Int8Report:
    """Export the finetuned model of a study or a saved model as int8 ONNX, and compare it with the float one.

    The calibration reads training images without augmentation. The scores are measured on the validation part
    in ONNX Runtime, and both files are timed side by side. The test part is not read.

    Args:
        target: the name of a study, the result of a search, a finetune or a flow, or a folder that
            `save_pruned` wrote.
        output: the file to write, by default model.int8.onnx next to the saved model. The float file
            model.onnx is then written as well, and both are described in the model card.
        calibration: how the ranges of activations follow from the images: "minmax", "entropy", "percentile".
        images: number of training images to calibrate with.
        reduce_range: whether weights have 7 bits. By default they have if this CPU lacks VNNI.
        opset: version of ONNX's operators, by default that of the folder's model.onnx if there is one.
        tolerance: loss of the score, as a share, above which the notes advise against the int8 file.
        storage: URL of the study's storage, if it is not in runs/.
        trust: whether code that the study or the saved model names may run.
        config: a config of your own. It names the data, in [data], of a folder that neither a flow nor a
            study of this machine has made.
        watch: whether to show the progress, or a function that is called with its events.

    Returns:
        The files, with the scores and the times of both.

    Raises:
        ExportError: the model cannot be exported or quantised.
        ConfigError: an argument cannot be used, or nothing names the data.
        CheckpointError: the saved model cannot be loaded.

    Example:
        quantised = autoprune.export_int8("digits")
        quantised.path  # runs/digits/best/model.int8.onnx
    """
    _check_options(calibration, images)
    if config is None and isinstance(target, (StudyResult, FlowResult)):
        config = target.session.config
    consent = consent_of(trust, config)
    with watching(watch) as watcher, tempfile.TemporaryDirectory(prefix="autoprune-") as temporary:
        found = find_data(target, storage, consent, watcher, is_written=output is None)
        folder, dense, spec = found.folder, found.dense, found.spec
        path = Path(output) if output is not None else folder / INT8
        float_path = Path(temporary) / ONNX if output is not None else folder / ONNX
        _check_files(found, path, float_path)
        watcher(Stage(f"export to {ONNX}"))
        if opset is None and (folder / ONNX).is_file():
            opset = _opset_of(folder / ONNX)
        export_saved(folder, output=float_path, trust=trust, session=found.session, opset=opset, watch=None)
        reduced = may_saturate() if reduce_range is None else reduce_range
        batches = _calibration(dense, images, spec.search.seed)
        watcher(Stage(f"int8: calibrating by {calibration} on {sum(map(len, batches))} training images"))
        with saving(path, "int8 model", ExportError) as partial:
            quantise(float_path, partial, batches, method=calibration, reduce_range=reduced)
        report = _compared(
            path,
            float_path,
            dense,
            watcher,
            metric=spec.task.metric,
            calibration=calibration,
            images=sum(map(len, batches)),
            reduce_range=reduced,
            tolerance=tolerance,
        )
        if output is None:
            _describe(report, folder, watcher)
    return report


def _check_options(calibration: str, images: int) -> None:
    """Refuse a calibration that does not exist, or one without images."""
    if calibration not in CALIBRATIONS:
        raise ConfigError(unknown("--calibration", calibration, CALIBRATIONS))
    if images < 1:
        raise ConfigError(f"--images: got {images}, expected at least 1.")


def _check_files(found: ModelData, *outputs: Path) -> None:
    """Require that no output replaces a file of the model, and that the model is a whole one."""
    for each in outputs:
        require_unprotected(each, "--output", found.kept)
    if (part := read_recipe(found.folder).target) != "":
        raise ConfigError(
            f"--int8: {found.folder} was pruned in its part {part}, and only a whole model can be "
            "calibrated. Quantise model.onnx with onnxruntime.quantization."
        )


def _describe(report: Int8Report, folder: Path, watch: Watcher) -> None:
    """Add the comparison to the folder of the model and to its card."""
    facts = Int8Facts(made=report.made, rows=report.rows, notes=report.notes)
    update_extra(folder, {"int8": facts.model_dump(mode="json")})
    complete_artefact(folder, watch=watch)


def _opset_of(path: Path) -> int | None:
    """Return the opset of an ONNX file, or None if it cannot be read."""
    try:
        return read_signature(path).opset
    except Exception:  # the reader may raise anything, and the file is written again
        return None


def _calibration(dense: Dense, images: int, seed: int) -> list[NDArray[Any]]:
    """Return batches of training images without augmentation."""
    if not dense.data.input_shape:
        raise ConfigError(
            f"--int8: {dense.data.name} yields no batches of equal images, which the calibration needs. "
            "Quantise model.onnx with onnxruntime.quantization."
        )
    loader = dense.data.unchanged_train
    batch = max(1, loader.samples // max(1, len(loader)))
    drawn = first_batches(loader, min(math.ceil(images / batch), len(loader)), seed=seed)
    found = torch.cat([inputs.cpu() for inputs, _ in drawn])[:images].numpy()
    # ONNX Runtime's histograms need batches of one size.
    size = next(each for each in range(_BATCH, 0, -1) if len(found) % each == 0)
    return np.split(found, len(found) // size)


def _compared(
    path: Path,
    float_path: Path,
    dense: Dense,
    watch: Watcher,
    *,
    metric: str,
    calibration: str,
    images: int,
    reduce_range: bool,
    tolerance: float,
) -> Int8Report:
    watch(Stage("int8: scores of both files on the validation part"))
    floats, small = (_score(each, dense) for each in (float_path, path))
    interval = None
    if floats.samples is not None and small.samples is not None:
        interval = paired_interval(small.samples.double().numpy(), floats.samples.double().numpy())
    watch(Stage("int8: timing both files side by side"))
    first, second = bench([float_path, path], batch=1, threads=1, watch=watch).rows
    assert second.ratio is not None
    return Int8Report(
        path=path,
        float_path=None if path.parent != float_path.parent else float_path,
        metric=metric,
        score=small.score,
        float_score=floats.score,
        interval=interval,
        val_images=dense.data.val.samples,
        size_bytes=path.stat().st_size,
        float_size_bytes=float_path.stat().st_size,
        time=second.measurement,
        float_time=first.measurement,
        ratio=second.ratio,
        calibration=calibration,
        images=images,
        reduce_range=reduce_range,
        tolerance=tolerance,
    )


class _OnnxModel(nn.Module):
    """An ONNX file as a module of torch, so that it is scored as every other model."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._run = run_onnx(path)

    def forward(self, inputs: Tensor) -> Tensor:
        return self._run((inputs.contiguous(),))[0]


def _score(path: Path, dense: Dense) -> Evaluation:
    return measure(_OnnxModel(path), dense.data.val, dense.task, Setting())


def _milliseconds(measured: Measurement) -> str:
    low, high = measured.interval_ms
    return f"{measured.median_ms:.3g} ({low:.3g} to {high:.3g})"
