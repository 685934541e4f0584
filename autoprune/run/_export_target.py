"""Exports each thing that a caller may hold: a module, a study, a result, or the folder of a saved model.

Example:
    export(small, "small.onnx", example_inputs=images[:1])
    export(result, format="pt2")                             # the model of a search or a finetune
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from torch import nn

from autoprune.errors import ConfigError, ExportError
from autoprune.exporting import ExporterSpec, ExportReport
from autoprune.exporting import export as export_model
from autoprune.progress import Watch, watching
from autoprune.run._export import export_saved
from autoprune.run._resolving.session import Session, StudyResult, of_study
from autoprune.run._resolving.spec import ConfigSource
from autoprune.run._results.finetune_result import FinetuneResult
from autoprune.run._results.flow_result import FlowResult
from autoprune.support.events import Stage
from autoprune.support.usercode import entry
from autoprune.support.userfunction import path_of

_TARGETS = (nn.Module, str, os.PathLike, StudyResult, FlowResult)


@entry(ExportError, target=_TARGETS)
def export(
    target: nn.Module | str | os.PathLike[str] | StudyResult | FlowResult,
    path: str | os.PathLike[str] | None = None,
    format: str | Callable[..., Any] | ExporterSpec = "onnx",
    example_inputs: object = None,
    *,
    tolerance: float | None = None,
    opset: int | None = None,
    storage: str | None = None,
    dense: bool = False,
    trust: bool = False,
    config: ConfigSource | None = None,
    watch: Watch = True,
) -> ExportReport:
    """Write a model for a runtime, with a free batch size, and compare the file's outputs with the model's.

    If the search has trained its best model already, in a race or by rungs that train nothing, no finetune is
    needed. The model is then tested and saved first, as `finetune` does.

    Args:
        target: the model, the name of a study, the result of a search, a finetune or a flow, or a folder
            that `save_pruned` wrote. A module is exported in eval mode and not changed.
        path: the file to write, or the folder for "safetensors". A module needs one. For a study it lies next
            to the saved model by default. An older file is replaced only after the comparison has passed.
        format: "onnx", "pt2", "safetensors" (a folder with weights and recipe), or an exporter of your own
            as a function, an ExporterSpec, or "package.module:function".
        example_inputs: for a module: a Tensor, a tuple of inputs or a dict of keyword inputs, with the batch
            on axis 0. Models from `rebuild` or `load_pruned` do not need them.
        tolerance: for a module: largest difference over max(1, largest output): 1e-4 by default in float32.
        opset: version of ONNX's operators for "onnx", by default that of torch's exporter.
        storage: URL of the study's storage, if it is not in runs/.
        dense: export the dense model of the study instead of the small one, as "onnx" or "pt2".
        trust: whether code that the study or the saved model names may run although no config of yours
            named it here.
        config: a config of your own, as `search` accepts it. The code that it names is trusted.
        watch: called with events that report the progress. True shows them if there is a terminal or a
            notebook, and None or False shows nothing.

    Returns:
        The path, the format, and the largest difference to the outputs of the model.

    Raises:
        ExportError: the format is unknown or has no such opset, there is nothing to export yet, the path is
            missing or a file of another kind, the model cannot be exported, or the outputs differ by more
            than the tolerance.
        CheckpointError: the saved model cannot be loaded, or names code that is not trusted.
        StudyError: the study names code or paths that are not trusted.
        ConfigError: the model or the data that the study's config names cannot be loaded.

    Example:
        report = autoprune.export(model, "net.onnx", example_inputs=torch.zeros(1, 1, 8, 8))
        report.max_difference  # about 1e-6
    """
    format = format if isinstance(format, str) else path_of(format)
    if isinstance(target, nn.Module):
        given: dict[str, Any] = {"storage": storage, "dense": dense, "trust": trust, "config": config}
        _refuse(given, "a module takes path, format, example_inputs, tolerance and opset alone")
        if path is None:
            raise ExportError('export: a module needs the path of the file to write, such as "small.onnx".')
        with watching(watch) as show:
            show(Stage(f"exporting to {format}, and comparing the outputs"))
            return export_model(target, path, format, example_inputs, tolerance=tolerance, opset=opset)
    given = {"example_inputs": example_inputs, "tolerance": tolerance}
    _refuse(given, "only a module takes it, and a saved model knows its inputs")
    place, storage, session = _place(target, storage, is_dense=dense)
    return export_saved(
        place,
        format,
        output=path,
        storage=storage,
        dense=dense,
        trust=trust,
        config=config,
        session=session,
        opset=opset,
        watch=watch,
    )


def _place(
    target: str | os.PathLike[str] | StudyResult | FlowResult, storage: str | None, *, is_dense: bool
) -> tuple[str | os.PathLike[str], str | None, Session]:
    """Return the study or the folder of a target, the storage, and the objects of the caller."""
    if isinstance(target, FlowResult):
        return target.folder, storage, target.session
    if isinstance(target, FinetuneResult) and not is_dense:
        return target.folder, storage, target.session
    if isinstance(target, StudyResult):
        return of_study(target, storage)
    return target, storage, Session()


def _refuse(given: dict[str, Any], reason: str) -> None:
    """Refuse an argument that the target does not read."""
    unread = next((name for name, value in given.items() if value is not None and value is not False), None)
    if unread is not None:
        raise ConfigError(f"export: {unread}: {reason}. Leave it out.")
