"""Loads a model that `finetune` saved, with the dense architecture that its recipe names.

Example:
    small = load_saved("runs/digits/best")
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autoprune.errors import CheckpointError, ConfigError
from autoprune.exporting import RECIPE, Architecture, Recipe, load_pruned, read_architecture, read_recipe
from autoprune.run._checks.trust import trusted_architecture
from autoprune.run._resolving.dense import channels_of, own_copy
from autoprune.run._resolving.run import Run
from autoprune.support.usercode import guarded
from autoprune.zoo import make_model, replace_heads


def load_saved(
    folder: str | os.PathLike[str], *, trust: bool = False, model: nn.Module | None = None
) -> nn.Module:
    """Load a model that `finetune` saved.

    Args:
        folder: the folder of the model, which may come from another machine.
        model: the dense model, if a caller has passed its own. The architecture is then not read from the
            recipe.
        trust: whether an architecture of the author's own code may be imported although no config of this
            user named it.

    Raises:
        CheckpointError: the folder holds no such model, its recipe names no architecture, or the architecture
            is code that is not trusted.
    """
    if model is not None:
        return load_pruned(folder, lambda: own_copy(model))
    noted, recipe = noted_architecture(folder), read_recipe(folder)
    if ":" not in noted.name:
        _require_head(noted, recipe, Path(folder) / RECIPE)
    with trusted_architecture(folder, noted.name, recipe.extra.get("own"), trust=trust):
        small = load_pruned(folder, lambda: _make(noted, Path(folder) / RECIPE))
    if noted.input_shape:
        key = f"{Path(folder) / RECIPE}: extra.architecture.input_shape"
        failed = guarded(f"{key}: the model does not run on {noted.input_shape}", CheckpointError)
        with failed, torch.no_grad():
            small(torch.zeros(1, *noted.input_shape))
    return small


def _require_head(noted: Architecture, recipe: Recipe, path: Path) -> None:
    """Check that some stored tensor has the noted classes and input channels.

    A damaged recipe could otherwise build a huge model. The check is valid for models of the zoo, which have
    a layer with each of these sizes, because neither is ever pruned.
    """
    shapes = [leaf.shape for leaf in recipe.tensors.values()]
    channels = noted.input_shape[0]
    for key, size, axis in (("classes", noted.classes, 0), ("input_shape", channels, 1)):
        if all(shape[axis : axis + 1] != (size,) for shape in shapes):
            what = f"{size} {'classes' if key == 'classes' else 'channels'}"
            raise CheckpointError(
                f"{path}: extra.architecture.{key}: no tensor is for {what}. Save the model again."
            )


def _make(noted: Architecture, recipe: Path) -> nn.Module:
    """Build the dense architecture. Errors start with the path of the recipe."""
    where = f"{recipe}: extra.architecture"
    try:
        with guarded(f"{where} cannot be made", CheckpointError):
            model = make_model(noted.name, noted.classes, channels_of(noted.input_shape))
            if noted.new_head:
                replace_heads(model.eval(), torch.zeros(1, *noted.input_shape), noted.classes)
            return model
    except ConfigError as error:
        reason = str(error).removeprefix("model.name: ").removeprefix("model.factory: ")
        raise CheckpointError(f"{where}: {reason}") from error


def architecture_of(run: Run) -> dict[str, Any]:
    """Return the note on the dense architecture for the recipe of a model that was cut from it."""
    model, data = run.spec.model, run.dense.data
    return {
        "name": model.name or model.factory,
        "classes": data.classes,
        "input_shape": list(data.input_shape),
        # A named architecture is made for any number of classes, and so are most factories.
        **({"new_head": True} if model.new_head and model.factory is not None else {}),
    }


def noted_architecture(folder: str | os.PathLike[str]) -> Architecture:
    """Return the dense architecture that `finetune` stored in the recipe.

    Raises:
        CheckpointError: the folder holds no saved model, or its recipe does not name the architecture.
    """
    noted: Any = read_recipe(folder).extra.get("architecture")
    if noted is None or (isinstance(noted, dict) and noted.get("name") is None):
        raise CheckpointError(
            f"{folder}: its recipe does not name the dense architecture. Load it in Python with "
            "autoprune.load_pruned(folder, make_model) and call autoprune.export."
        )
    return read_architecture(Path(folder) / RECIPE, noted)
