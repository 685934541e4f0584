"""Loads a model that `finetune` saved: its recipe names the dense architecture.

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
from autoprune.run._trust import trusted_architecture
from autoprune.support.usercode import guarded
from autoprune.zoo import make_model


def load_saved(folder: str | os.PathLike[str], *, trust: bool = False) -> nn.Module:
    """Load a model that `finetune` saved; the recipe names its architecture.

    Args:
        folder: a model that `finetune` saved, here or elsewhere.
        trust: whether an architecture that is code is made although this user's own config did not name it.

    Raises:
        CheckpointError: the folder holds no such model, or a script saved it without naming its architecture,
            or the architecture is code that is not trusted.
    """
    noted, recipe = noted_architecture(folder), read_recipe(folder)
    if ":" not in noted.name:
        _require_head(noted, recipe, Path(folder) / RECIPE)
    with trusted_architecture(folder, noted.name, recipe.extra.get("own"), trust=trust):
        small = load_pruned(folder, lambda: _make(noted, Path(folder) / RECIPE))
    key = f"{Path(folder) / RECIPE}: extra.architecture.input_shape"
    with guarded(f"{key}: the model does not run on {noted.input_shape}", CheckpointError), torch.no_grad():
        small(torch.zeros(1, *noted.input_shape))
    return small


def _require_head(noted: Architecture, recipe: Recipe, path: Path) -> None:
    """Refuse classes and channels that no stored tensor has, before a model is made that large.

    Neither is ever pruned, and a model of the zoo has a layer of each.
    """
    shapes = [leaf.shape for leaf in recipe.tensors.values()]
    channels = noted.input_shape[0]
    for key, size, axis in (("classes", noted.classes, 0), ("input_shape", channels, 1)):
        if all(shape[axis : axis + 1] != (size,) for shape in shapes):
            what = f"{size} {'classes' if key == 'classes' else 'channels'}"
            raise CheckpointError(
                f"{path}: extra.architecture.{key}: no tensor is for {what}; save the model again."
            )


def _make(noted: Architecture, recipe: Path) -> nn.Module:
    """Make the dense architecture. Errors name the recipe that it comes from."""
    where = f"{recipe}: extra.architecture"
    try:
        with guarded(f"{where} cannot be made", CheckpointError):
            return make_model(noted.name, noted.classes, noted.input_shape[0])
    except ConfigError as error:
        reason = str(error).removeprefix("model.name: ").removeprefix("model.factory: ")
        raise CheckpointError(f"{where}: {reason}") from error


def noted_architecture(folder: str | os.PathLike[str]) -> Architecture:
    """Return the dense architecture, as `finetune` notes it in the recipe.

    Raises:
        CheckpointError: the folder holds no saved model, or its recipe does not name the architecture.
    """
    noted: Any = read_recipe(folder).extra.get("architecture")
    if noted is None or (isinstance(noted, dict) and noted.get("name") is None):
        raise CheckpointError(
            f"{folder}: its recipe does not name the dense architecture; load it in Python with "
            "autoprune.load_pruned(folder, make_model) and call autoprune.export."
        )
    return read_architecture(Path(folder) / RECIPE, noted)
