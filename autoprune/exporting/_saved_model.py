"""Save pruned models to a folder with model.safetensors and recipe.json, and load them without running code.

Example:
    save_pruned(small, plan, "best/", extra={"accuracy": 0.93})
    small = load_pruned("best/", make_model)      # bit-identical outputs
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from autoprune.errors import CheckpointError, ExportError, PlanError, a_kind, printable, reason_of
from autoprune.exporting._recipe import Leaf, Recipe, describe, example_from, from_file, named_leaves, to_json
from autoprune.exporting._recipe_schema import DTYPES, FORMAT, read_values
from autoprune.graph.attached import note_example, note_plan
from autoprune.graph.capture import named_tensors
from autoprune.graph.patches import apply_patches, require_written
from autoprune.graph.plan import Plan
from autoprune.support.atomic import replacing, saving
from autoprune.support.files import open_regular, read_json, require_regular
from autoprune.support.tensorfile import write_tensors
from autoprune.support.usercode import call_user, entry, guarded

WEIGHTS, RECIPE = "model.safetensors", "recipe.json"
_PREVIOUS = "model.safetensors.previous"
_GROUP_SUFFIX = re.compile(r"(:in)?(:\d+)?$")
"""Ending of a group's name after the name of a layer."""


@entry(ExportError, small=nn.Module, plan=Plan, folder=(str, os.PathLike))
def save_pruned(
    small: nn.Module, plan: Plan, folder: str | os.PathLike[str], *, extra: Mapping[str, object] | None = None
) -> None:
    """Write a pruned model as safetensors and a JSON recipe. Other files in the folder are kept.

    A model that is already in the folder is replaced only after the new one is written. So the folder always
    holds one complete model, even if the process is killed.

    Args:
        small: the rebuilt model. Its parameters and all its buffers are stored, from any device, in any
            dtype.
        plan: the plan with which it was rebuilt.
        folder: the folder, which is made if it is missing.
        extra: JSON values to add to the recipe.

    Raises:
        ExportError: the folder cannot be written or holds the weights of a model that is not pruned, or a
            tensor or a value in `extra` cannot be stored.

    Example:
        autoprune.save_pruned(small, plan, "small")
    """
    folder = Path(folder)
    _require_own(folder)
    recipe = describe(small, plan, extra or {})
    try:
        json.dumps(to_json(recipe), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ExportError(
            f"{folder}: extra cannot be stored as JSON ({error}). Pass plain values."
        ) from error
    try:
        # The recipe names its tensors by their digest. It is renamed last, so until then the folder still
        # holds the previous recipe with the previous tensors, which were set aside.
        with replacing(folder / RECIPE) as recipe_part, replacing(folder / WEIGHTS) as weights_part:
            _write_tensors(small, weights_part)
            values = to_json(replace(recipe, digest=_digest(weights_part)))
            text = json.dumps(values, indent=1, allow_nan=False)
            recipe_part.write_text(text, encoding="utf-8")
            _set_aside(folder)
        (folder / _PREVIOUS).unlink(missing_ok=True)
    except (OSError, ValueError) as error:  # a name with a null character is a ValueError
        raise ExportError(
            f"{printable(str(folder))}: cannot be written ({reason_of(error)}). Choose another folder."
        ) from error


@entry(CheckpointError, folder=(str, os.PathLike), make_model=Callable)
def load_pruned(folder: str | os.PathLike[str], make_model: Callable[[], nn.Module]) -> nn.Module:
    """Load a pruned model into its dense architecture. Nothing is traced, and no pickle is read.

    Args:
        folder: folder that `save_pruned` wrote.
        make_model: makes the dense architecture with any weights. On the meta device it takes no memory.

    Returns:
        The model in eval mode, on the devices that `make_model` chose, with the CPU instead of meta.

    Raises:
        CheckpointError: files are missing, damaged or too new, or the architecture is not the stored one. The
            message names the first tensor that differs and both shapes.

    Example:
        small = autoprune.load_pruned("small", make_model)
    """
    folder = Path(folder)
    recipe = read_recipe(folder)
    tensors = _read_tensors(folder, recipe)
    model = call_user(make_model, "load_pruned: make_model", CheckpointError)
    if not isinstance(model, nn.Module):
        raise CheckpointError(
            f"load_pruned: make_model returned {a_kind(model)}, expected a torch.nn.Module."
        )
    with guarded(f"{folder}: the weights cannot be put into the model of make_model", CheckpointError):
        dense = [(name, tuple(tensor.shape)) for name, tensor in named_tensors(model, shared=True)]
        _drop(model, recipe, f"{folder}")
        _check_architecture(model, recipe, f"{folder}")
        _check_numbers(model, recipe, folder / RECIPE, dense)
        for name, leaf in recipe.tensors.items():
            _put(model, name, _as_leaf(tensors[name], leaf, _device_of(model, name)))
        for name, first in recipe.ties.items():
            _put(model, name, _get(model, first))
    apply_patches(model, recipe.patches)
    example = example_from(recipe)
    if example is not None:
        note_example(model, example, recipe.target)
    note_plan(model, recipe.plan)
    return model.eval()


def read_recipe(folder: str | os.PathLike[str]) -> Recipe:
    """Read the recipe of a saved model: its plan, its shapes and its `extra`.

    Raises:
        CheckpointError: the file is missing, damaged or has a newer version.
    """
    return from_file(read_values(Path(folder) / RECIPE))


def update_extra(folder: Path, values: Mapping[str, object]) -> None:
    """Replace values in the `extra` of a saved model's recipe. Its tensors stay as they are.

    Raises:
        CheckpointError: the recipe is missing or damaged.
        ExportError: the recipe cannot be written.
    """
    read_values(folder / RECIPE)
    content = read_json(folder / RECIPE)
    content["extra"] = {**content["extra"], **values}
    with saving(folder / RECIPE, "recipe", ExportError) as partial:
        partial.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")


def _require_own(folder: Path) -> None:
    """Raise an error if the folder holds weights that `save_pruned` did not write, such as the dense model's.

    The metadata of the file decides, because a save that was killed may leave its weights without a recipe.
    """
    weights = folder / WEIGHTS
    if not weights.exists() or (folder / RECIPE).exists():
        return
    metadata = None
    with contextlib.suppress(OSError, safetensors.SafetensorError):
        require_regular(weights)
        with safetensors.safe_open(weights, "pt") as file:
            metadata = file.metadata()
    if metadata is None or metadata.get("format") != FORMAT:
        raise ExportError(
            f"{weights}: exists already and is not a pruned model (there is no {RECIPE}). Choose another "
            "folder."
        )


def _write_tensors(model: nn.Module, path: Path) -> None:
    leaves, _ = named_leaves(model)
    for name, tensor in leaves.items():
        if tensor.is_meta or tensor.layout != torch.strided:
            kind = "on the meta device" if tensor.is_meta else f"of layout {tensor.layout}"
            raise ExportError(f"{path.parent}: tensor {name} is {kind} and cannot be stored.")
    try:
        write_tensors(leaves, path, metadata={"format": FORMAT})
    except (KeyError, ValueError, RuntimeError) as error:
        raise ExportError(f"{path.parent}: the tensors cannot be stored ({error}).") from error


def _set_aside(folder: Path) -> None:
    """Rename the tensors of the folder's recipe to their second name, under which they can be loaded too."""
    weights, previous = folder / WEIGHTS, folder / _PREVIOUS
    if previous.exists():  # an earlier save was killed here
        with contextlib.suppress(CheckpointError):
            if _digest(previous) == read_recipe(folder).digest:
                os.replace(previous, weights)
    if weights.exists():
        os.replace(weights, previous)


def _digest(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_tensors(folder: Path, recipe: Recipe) -> dict[str, Tensor]:
    """Read the tensors that belong to the recipe, and check them."""
    path = folder / WEIGHTS
    advice = "Restore the file or save the model again."
    found = [file for file in (path, folder / _PREVIOUS) if file.exists()]
    if not found:
        raise CheckpointError(f"{path}: is missing. {advice}")
    try:
        intact = next((file for file in found if _digest(file) == recipe.digest), None)
        tensors = {} if intact is None else safetensors.torch.load_file(intact)
    except Exception as error:  # the reader may raise anything for a damaged header
        raise CheckpointError(f"{path}: cannot be read ({reason_of(error)}). {advice}") from error
    if intact is None or set(tensors) != set(recipe.tensors):
        raise CheckpointError(f"{path}: is damaged, or not the file that {RECIPE} was written with. {advice}")
    for name, leaf in recipe.tensors.items():
        if tuple(tensors[name].shape) != leaf.shape:
            raise CheckpointError(
                f"{folder}: {name} has shape {list(leaf.shape)} in {RECIPE}, but {list(tensors[name].shape)} "
                f"in {path.name}. {advice}"
            )
        if tensors[name].dtype != DTYPES[leaf.dtype]:
            raise CheckpointError(
                f"{folder}: {name} is {leaf.dtype} in {RECIPE}, but {tensors[name].dtype} in {path.name}. "
                f"{advice}"
            )
    return tensors


def _drop(model: nn.Module, recipe: Recipe, where: str) -> None:
    """Put stand-ins in the places of the modules of dropped blocks."""
    known = {path for path, _ in model.named_modules(remove_duplicate=False) if path}
    for each in recipe.dropped:
        if each.path not in known:
            raise CheckpointError(
                f"{where}: the model has no module {each.path}, which the stored one leaves out. Let "
                "make_model return the dense architecture that was pruned."
            )
    for each in recipe.dropped:
        model.set_submodule(each.path, each.make())


def _check_architecture(model: nn.Module, recipe: Recipe, where: str) -> None:
    """Compare names, kinds and shapes of the dense architecture's tensors with the stored ones."""
    dense = dict(named_tensors(model, shared=True))
    stored = recipe.leaves
    hint = "Let make_model return the dense architecture that was pruned."
    for name, leaf in stored.items():
        if name not in dense:
            raise CheckpointError(
                f"{where}: the model has no {name}, which is stored with shape {list(leaf.shape)}. {hint}"
            )
        shape = tuple(dense[name].shape)
        if len(shape) != len(leaf.shape) or any(
            small > full for small, full in zip(leaf.shape, shape, strict=True)
        ):
            raise CheckpointError(
                f"{where}: {name} is stored with shape {list(leaf.shape)}, "
                f"but has {list(shape)} in the model. {hint}"
            )
        if _kind_of(DTYPES[leaf.dtype]) != _kind_of(dense[name].dtype):
            raise CheckpointError(
                f"{where}: {name} is stored as {leaf.dtype}, but is {dense[name].dtype} in the model. {hint}"
            )
        if isinstance(dense[name], nn.Parameter) != (leaf.kind == "parameter"):
            raise CheckpointError(
                f"{where}: {name} is stored as a {leaf.kind}, but is not one in the model. {hint}"
            )
    for name, tensor in dense.items():
        if name not in stored:
            raise CheckpointError(
                f"{where}: {name} is not stored, but has shape {list(tensor.shape)} in the model. {hint}"
            )


def _kind_of(dtype: torch.dtype) -> tuple[bool, bool]:
    """Return whether a type is floating, and whether it is complex. The number of bits may differ."""
    return dtype.is_floating_point, dtype.is_complex


def _check_numbers(
    model: nn.Module, recipe: Recipe, path: Path, dense: Sequence[tuple[str, tuple[int, ...]]]
) -> None:
    """Compare the patches and the keep indices with the architecture and the stored shapes.

    Args:
        model: the architecture, without the dropped blocks.
        recipe: the recipe.
        path: its file.
        dense: (name, shape) of the tensors of the whole architecture, after whose layers groups are named.
    """
    shapes = {name: leaf.shape for name, leaf in recipe.leaves.items()}
    try:
        require_written(model, recipe.patches, shapes)
    except PlanError as error:
        raise CheckpointError(f"{path}: patches: {error}") from error
    for name, index in recipe.plan.items():
        if not len(index):  # a dropped block
            continue
        layer = _GROUP_SUFFIX.sub("", name)
        sizes = [
            size for leaf, shape in dense if leaf == layer or leaf.startswith(f"{layer}.") for size in shape
        ]
        if int(index[-1]) >= max(sizes, default=0):
            problem = f"{layer} has no channel {index[-1]}" if sizes else "the model has no such layer"
            raise CheckpointError(f"{path}: keep.{name}: {problem}. Save the model again.")


def _as_leaf(tensor: Tensor, leaf: Leaf, device: torch.device) -> Tensor:
    tensor = tensor.to(device).contiguous(memory_format=leaf.memory_format)
    if leaf.kind == "parameter":
        return nn.Parameter(tensor, requires_grad=leaf.requires_grad)
    return tensor


def _device_of(model: nn.Module, name: str) -> torch.device:
    device = _get(model, name).device
    return torch.device("cpu") if device.type == "meta" else device


def _get(model: nn.Module, name: str) -> Tensor:
    path, _, attribute = name.rpartition(".")
    tensor: Tensor = getattr(model.get_submodule(path), attribute)
    return tensor


def _put(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Replace a parameter or buffer. `setattr` keeps whether a buffer is persistent."""
    path, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(path), attribute, tensor)
