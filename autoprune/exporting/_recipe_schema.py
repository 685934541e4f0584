"""Check the names, types and ranges of the values in recipe.json.

A recipe may come from somebody else, so every value is checked when it is read. The error names the place of
the first wrong value.

Example:
    values = read_values(Path("best/recipe.json"))      # a RecipeFile, or a CheckpointError
    values.tensors["conv1.weight"].shape
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from autoprune.errors import CheckpointError, reason_of
from autoprune.graph.blocks import SUFFIX
from autoprune.support.files import read_json
from autoprune.support.schema import Strict, read_as

FORMAT = "autoprune-pruned"
VERSION = 3
"""The newest version that can be read. Only models without some of their blocks need it, others have 1."""

DTYPES = {
    str(value).removeprefix("torch."): value
    for value in vars(torch).values()
    if isinstance(value, torch.dtype)
}

MOST_VALUES = 2**28
"""Largest number of values of example inputs, which are made when the model is loaded: 1 GB in float32."""

_ADVICE = "Save the model again."


def _row(*names: str) -> BeforeValidator:
    """Return a validator that reads a list of values as a dict with these names."""

    def named(values: Any) -> Any:
        if not isinstance(values, list):
            return values
        if len(values) != len(names):
            raise ValueError(f"a list of {', '.join(names)}")
        return dict(zip(names, values, strict=True))

    return BeforeValidator(named)


def _dtype(name: str) -> str:
    if name not in DTYPES:
        raise ValueError("a type of torch, such as float32")
    return name


Size = Annotated[int, Field(ge=0, le=2**40)]
Shape = Annotated[list[Size], Field(max_length=64)]
Position = Annotated[int, Field(ge=0, lt=2**40)]
Number = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f\x7f]+$")]
Path_ = Annotated[str, StringConstraints(max_length=1000, pattern=r"^[^\x00-\x1f\x7f]*$")]
Dtype = Annotated[str, AfterValidator(_dtype)]


class LeafFile(Strict):
    """One stored tensor. `Leaf` explains the keys."""

    shape: Shape
    dtype: Dtype
    kind: Literal["parameter", "buffer"]
    requires_grad: bool
    layout: Literal["contiguous", "channels_last", "channels_last_3d"]


class PatchFile(Strict):
    """One number of one module. `Patch` explains the keys."""

    module: Path_
    attribute: Name
    value: Number | float | Annotated[list[Number | float | list[Number]], Field(max_length=64)]


class StandInFile(Strict):
    """The place of a module of a dropped branch. `StandIn` explains the keys."""

    path: Name
    gives: Literal["nothing", "zero", "zeros"]
    outputs: Annotated[int, Field(ge=0, le=64)]


class InputFile(Strict):
    """One example input that is a tensor."""

    shape: Shape
    dtype: Dtype


Input = InputFile | bool | Number | float | str | None


class RecipeFile(Strict):
    """All of recipe.json. `Recipe` explains the keys."""

    digest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    widths: dict[Name, Size]
    inputs: list[Input] | dict[str, Input] | None
    extra: dict[str, Any]
    tensors: dict[Name, Annotated[LeafFile, _row("shape", "dtype", "kind", "requires_grad", "layout")]]
    ties: dict[Name, Name]
    patches: list[Annotated[PatchFile, _row("module", "attribute", "value")]]
    keep: dict[Name, list[Position]]
    dropped: list[Annotated[StandInFile, _row("path", "gives", "outputs")]] = Field(default_factory=list)
    target: Path_ = ""


def _three_or_none(shape: list[int]) -> list[int]:
    if len(shape) not in (0, 3):
        raise ValueError("[channels, height, width], or [] for inputs of another structure")
    return shape


class Architecture(Strict):
    """The dense architecture, which `finetune` records in a recipe's `extra`.

    The shape is empty if the inputs are no batch of equal images.
    """

    name: Name
    classes: Annotated[int, Field(ge=0, le=10**6)]
    input_shape: Annotated[list[Annotated[int, Field(ge=1, le=2**20)]], AfterValidator(_three_or_none)]
    new_head: bool = False


def read_values(path: Path) -> RecipeFile:
    """Read and check recipe.json.

    Raises:
        CheckpointError: the file cannot be read, is not a recipe of a known version, or has a wrong value.
    """
    try:
        values = read_json(path, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({reason_of(error)}). Pass the folder that save_pruned wrote."
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{path}: is not JSON ({reason_of(error)}). {_ADVICE}") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise CheckpointError(f'{path}: not a recipe of a pruned model (its "format" is not "{FORMAT}").')
    version = values.get("version")  # its type is compared, since True is an integer too
    if type(version) is int and version > VERSION:
        shown = version if version < 10**6 else "of another kind"
        raise CheckpointError(
            f"{path}: got format version {shown}, expected at most {VERSION}. Update autoprune."
        )
    if type(version) is not int or version < 1:
        raise _wrong(path, "version", f"expected a number from 1 to {VERSION}")
    recipe = read_as(RecipeFile, values, where=str(path), error=CheckpointError, advice=_ADVICE)
    _check_together(path, recipe)
    return recipe


def read_architecture(path: Path, noted: Any) -> Architecture:
    """Check the architecture that a recipe records.

    Args:
        path: path of the recipe.
        noted: the value in its `extra`.

    Raises:
        CheckpointError: a value is wrong.
    """
    where = f"{path}: extra.architecture"
    found = read_as(Architecture, noted, where=where, error=CheckpointError, advice=_ADVICE)
    if math.prod(found.input_shape) > MOST_VALUES:
        raise CheckpointError(
            f"{where}.input_shape: got {found.input_shape}, expected at most {MOST_VALUES:,} values. "
            f"{_ADVICE}"
        )
    return found


def _check_together(path: Path, recipe: RecipeFile) -> None:
    """Raise an error if values that are valid by themselves do not fit each other."""
    for name, index in recipe.keep.items():
        if any(later <= earlier for earlier, later in itertools.pairwise(index)):
            raise _wrong(path, f"keep.{name}", "its channels are not in order, each once")
        if not index and not name.endswith(SUFFIX):
            raise _wrong(path, f"keep.{name}", "no channel is kept")
        if recipe.widths.get(name) != len(index):
            raise _wrong(path, f"widths.{name}", f"the keep index has {len(index)} channels")
    _refuse(path, "widths", set(recipe.widths) - set(recipe.keep), "has no keep index")
    _refuse(path, "ties", set(recipe.ties.values()) - set(recipe.tensors), "is not stored")
    _refuse(path, "ties", set(recipe.ties) & set(recipe.tensors), "is stored and tied")
    for name, leaf in recipe.tensors.items():
        wanted = {"channels_last": 4, "channels_last_3d": 5}.get(leaf.layout)
        if wanted not in (None, len(leaf.shape)):
            raise _wrong(
                path, f"tensors.{name}", f"{leaf.layout} is for {wanted} axes, not {len(leaf.shape)}"
            )
        dtype = DTYPES[leaf.dtype]
        if leaf.requires_grad and not (dtype.is_floating_point or dtype.is_complex):
            raise _wrong(path, f"tensors.{name}", f"{leaf.dtype} cannot require gradients")
    inputs = recipe.inputs.values() if isinstance(recipe.inputs, dict) else recipe.inputs or ()
    if sum(math.prod(each.shape) for each in inputs if isinstance(each, InputFile)) > MOST_VALUES:
        raise _wrong(path, "inputs", f"they have more than {MOST_VALUES:,} values")


def _refuse(path: Path, key: str, names: set[str], problem: str) -> None:
    if names:
        raise _wrong(path, key, f"{min(names)} {problem}")


def _wrong(path: Path, key: str, problem: str) -> CheckpointError:
    return CheckpointError(f"{path}: {key}: {problem}. {_ADVICE}")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("an object has a key twice")
    return values


def _refuse_constant(text: str) -> Callable[..., Any]:
    raise ValueError(f"{text} is no number of JSON")
