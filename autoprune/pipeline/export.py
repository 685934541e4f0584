"""Writes a finetuned model for another runtime, or as the folder that `load_pruned` reads.

Before: `finetune`; after: onnxruntime, `torch.export.load`, `load_pruned`.

    export("digits", "onnx")                  # a study in runs/
    export("runs/digits/best", "pt2", output="small.pt2")
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autoprune.errors import CheckpointError, ExportError, suggest
from autoprune.export import EXPORTERS, ExportReport, load_pruned, read_recipe, save_pruned
from autoprune.export import export as export_model
from autoprune.pipeline.finetune import BEST, finetune, is_untrained
from autoprune.pipeline.places import find_storage
from autoprune.pipeline.stored import stored_config
from autoprune.rungs import asks_for_supernet
from autoprune.study import open_study
from autoprune.zoo import make_model

FOLDER_FORMAT = "safetensors"


def export(
    target: str | os.PathLike[str],
    format_name: str = "onnx",
    *,
    output: str | os.PathLike[str] | None = None,
    storage: str | None = None,
) -> ExportReport:
    """Write the finetuned model of a study, or one that was saved, and compare it with what was saved.

    A study that scores by a supernet needs no finetune: where there was none, its best candidate, as of now,
    is cut from the supernet, recalibrated and saved first, as `finetune` does with finetune.epochs = 0.

    Args:
        target: a study's name, or a folder that `save_pruned` wrote.
        format_name: "onnx", "pt2", or "safetensors" (a folder with weights and recipe).
        output: the file, or the folder for safetensors; default beside the saved model.
        storage: the study's, where it is not in runs/.

    Raises:
        ExportError: an unknown format, nothing to export yet, or outputs that differ.
        CheckpointError: the saved model cannot be loaded.
    """
    formats = (*EXPORTERS, FOLDER_FORMAT)
    if format_name not in formats:
        raise ExportError(
            f'--format: unknown "{format_name}"; known: {", ".join(formats)}.{suggest(format_name, formats)}'
        )
    folder = _saved_folder(target, storage)
    small = load_saved(folder)
    if format_name == FOLDER_FORMAT:
        return _export_folder(small, folder, Path(output) if output is not None else folder)
    path = Path(output) if output is not None else folder / f"model.{format_name}"
    shape = noted_architecture(folder)["input_shape"]
    return export_model(small, path, format=format_name, example_inputs=torch.zeros(1, *shape))


def load_saved(folder: str | os.PathLike[str]) -> nn.Module:
    """Load a model that `finetune` saved; the recipe names its architecture.

    Raises:
        CheckpointError: the folder holds no such model, or a script saved it without naming its architecture.
    """
    return load_pruned(folder, lambda: _architecture(folder))


def _architecture(folder: str | os.PathLike[str]) -> nn.Module:
    noted = noted_architecture(folder)
    return make_model(noted["name"], noted["classes"], noted["input_shape"][0])


def noted_architecture(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return name, classes and input_shape of the dense architecture, as `finetune` notes them in the recipe.

    Raises:
        CheckpointError: the folder holds no saved model, or its recipe does not name the architecture.
    """
    noted: Any = read_recipe(folder).extra.get("architecture")
    if not isinstance(noted, dict) or noted.get("name") is None:
        raise CheckpointError(
            f"{folder}: its recipe does not name the dense architecture; load it in Python with "
            "autoprune.load_pruned(folder, make_model) and call autoprune.export."
        )
    return noted


def _saved_folder(target: str | os.PathLike[str], storage: str | None) -> Path:
    if Path(target).is_dir():
        return Path(target)
    study = open_study(find_storage(str(target), storage), str(target))
    config = stored_config(study)
    folder = Path(str(config.output.folder)) / BEST
    if asks_for_supernet(config.score.rungs) and (not folder.is_dir() or is_untrained(study, folder)):
        return finetune(study.name, study.url, overrides=["finetune.epochs=0"]).folder
    if not folder.is_dir():
        raise ExportError(
            f"{target}: nothing to export yet; run `autoprune finetune {target} --storage {study.url}` first."
        )
    return folder


def _export_folder(small: nn.Module, folder: Path, output: Path) -> ExportReport:
    """Write weights and recipe once more, load them, and compare every tensor with what was saved."""
    recipe = read_recipe(folder)
    if output.resolve() != folder.resolve():
        save_pruned(small, recipe.plan, output, extra=recipe.extra)
    loaded, saved = load_saved(output).state_dict(), small.state_dict()
    differences = [
        float((loaded[name].double() - leaf.double()).abs().max())
        for name, leaf in saved.items()
        if leaf.numel()
    ]
    return ExportReport(output, FOLDER_FORMAT, max(differences, default=0.0))
