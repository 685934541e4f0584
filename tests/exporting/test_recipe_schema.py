"""Recipes that were changed: each is refused in one line, whatever was changed; none gives another model."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from autoprune.errors import CheckpointError, ExportError
from autoprune.exporting import load_pruned, read_recipe, save_pruned
from autoprune.graph.plan import Plan
from autoprune.rebuilding import rebuild
from autoprune.run import load_saved
from autoprune.tracing import trace
from autoprune.zoo import make_model
from tests.tracing.test_module_numbers import TOKENS, OwnHeadWidth
from tests.tracing.test_module_numbers import Net as Blocks

EXTRA = {"architecture": {"name": "digits_resnet", "classes": 10, "input_shape": [1, 8, 8]}}
IMAGES = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
Values = dict[str, Any]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pruned digits model with its recipe."""
    folder = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    model = make_model("digits_resnet", 10, 1).eval()
    prunable = trace(model, torch.zeros(1, 1, 8, 8))
    plan = Plan({group.name: np.arange(1, 1 + group.width // 2) for group in prunable.searchable})
    save_pruned(rebuild(prunable, plan), plan, folder, extra=EXTRA)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def refused(folder: Path, message: str = "") -> str:
    """Load the model as `bench` does, and return the one line with which it is refused."""
    with pytest.raises(CheckpointError, match=message) as caught:
        load_saved(folder)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 1000
    return text


def with_values(folder: Path, change: Callable[[Values], object]) -> None:
    values = json.loads((folder / "recipe.json").read_text())
    change(values)
    (folder / "recipe.json").write_text(json.dumps(values))


def put(*path: str | int, value: Any) -> Callable[[Values], object]:
    """Return what sets a value deep in a recipe."""

    def change(values: Values) -> None:
        holder: Any = values
        for step in path[:-1]:
            holder = holder[step]
        holder[path[-1]] = value

    return change


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def patch(module: str, attribute: str, value: Any) -> Callable[[Values], object]:
    """Return what changes a patch, or adds one."""

    def change(values: Values) -> None:
        values["patches"] = [each for each in values["patches"] if each[:2] != [module, attribute]]
        values["patches"].append([module, attribute, value])

    return change


def drop(key: str) -> Callable[[Values], object]:
    return lambda values: values.pop(key)


def group_of(values: Values) -> str:
    return str(next(iter(values["keep"])))


def keep(index: Any) -> Callable[[Values], object]:
    """Return what changes a keep index together with its width."""

    def change(values: Values) -> None:
        name = group_of(values)
        values["keep"][name] = index
        values["widths"][name] = len(index) if isinstance(index, list) else index

    return change


def shifted(by: int) -> Callable[[Values], object]:
    def change(values: Values) -> None:
        name = group_of(values)
        values["keep"][name] = [place + by for place in values["keep"][name]]

    return change


LEAF = ("tensors", "conv1.weight")
"""The first convolution; set from the real recipe in `test_names_of_the_net`."""

CHANGES: dict[str, tuple[Callable[[Values], object], str]] = {
    **{
        f"without {key}": (drop(key), rf"{key} is missing")
        for key in ("digest", "widths", "extra", "tensors")
    },
    **{f"no {key}": (drop(key), rf"{key} is missing") for key in ("ties", "patches", "keep", "inputs")},
    "no version": (drop("version"), "version: expected a number from 1 to 3"),
    "no format": (drop("format"), "not a recipe of a pruned model"),
    "version is text": (put("version", value="1"), "version: expected"),
    "version is true": (put("version", value=True), "version: expected"),
    "version is 0": (put("version", value=0), "version: expected"),
    "version is a fraction": (put("version", value=1.5), "version: expected"),
    "version is huge": (put("version", value=10**300), "Update autoprune"),
    "format is a list": (put("format", value=["autoprune-pruned"]), "not a recipe"),
    "digest is a number": (put("digest", value=7), "digest: got 7"),
    "digest is short": (put("digest", value="00"), "digest"),
    "digest is another": (put("digest", value="0" * 64), "is damaged, or not the file"),
    "widths are a list": (put("widths", value=[1]), "widths: got"),
    "widths are text": (lambda v: v["widths"].update(dict.fromkeys(v["widths"], "8")), "widths"),
    "a width is another": (lambda v: v["widths"].update({group_of(v): 1}), "the keep index has"),
    "a width is missing": (lambda v: v["widths"].pop(group_of(v)), "the keep index has"),
    "a width too many": (lambda v: v["widths"].update(more=1), "widths: more has no keep index"),
    "keep is a list": (put("keep", value=[]), "keep: got"),
    "keep is empty": (keep([]), "keep"),
    "keep is a number": (keep(3), "keep"),
    "keep is negative": (keep([-1, 2]), "keep"),
    "keep holds text": (keep(["0"]), "keep"),
    "keep holds a fraction": (keep([0.0, 1.0]), "keep"),
    "keep holds true": (keep([True]), "keep"),
    "keep holds null": (keep([None]), "keep"),
    "keep holds a huge number": (keep([10**30]), "keep"),
    "keep holds 2**62": (keep([2**62]), "keep"),
    "keep is unsorted": (keep([3, 1, 2]), "not in order"),
    "keep has one twice": (keep([1, 1, 2]), "not in order"),
    "keep is nested": (keep([[1]]), "keep"),
    "keep is beyond the layer": (shifted(100_000), "has no channel"),
    "keep of no layer": (
        lambda v: (v["keep"].update(nowhere=[0]), v["widths"].update(nowhere=1)),
        "keep.nowhere: the model has no such layer",
    ),
    "tensors are a list": (put("tensors", value=[]), "tensors: got"),
    "a tensor is null": (put(*LEAF, value=None), "tensors"),
    "a tensor of 4 values": (
        put(*LEAF, value=[[8], "float32", "buffer", True]),
        "expected a list of shape, ",
    ),
    "a shape is text": (put(*LEAF, 0, value="8"), r"shape: got '8'"),
    "a shape is negative": (put(*LEAF, 0, 0, value=-8), "shape"),
    "a shape is a fraction": (put(*LEAF, 0, 0, value=8.0), "shape"),
    "a shape is huge": (put(*LEAF, 0, 0, value=10**400), "shape"),
    "a shape is beyond memory": (put(*LEAF, 0, 0, value=2**39), "shape"),
    "a shape of other size": (put(*LEAF, 0, 0, value=1), "shape"),
    "a shape of more axes": (put(*LEAF, 0, value=[1, 2, 3, 4, 5]), "shape"),
    "a dtype of none": (put(*LEAF, 1, value="load"), "expected a type of torch"),
    "a dtype is a number": (put(*LEAF, 1, value=32), "dtype"),
    "a dtype of another": (put(*LEAF, 1, value="float64"), "is float64 in recipe.json"),
    "a kind of none": (put(*LEAF, 2, value="weight"), "kind"),
    "a kind of another": (put(*LEAF, 2, value="buffer"), "is stored as a buffer"),
    "requires_grad is text": (put(*LEAF, 3, value="yes"), "requires_grad"),
    "requires_grad is 1": (put(*LEAF, 3, value=1), "requires_grad"),
    "a layout of none": (put(*LEAF, 4, value="strided"), "layout"),
    "a layout of 5 axes": (put(*LEAF, 4, value="channels_last_3d"), "is for 5 axes, not 4"),
    "a tensor too many": (
        lambda v: v["tensors"].update(more=[[1], "float32", "buffer", False, "contiguous"]),
        "is damaged, or not the file",
    ),
    "a tensor is missing": (lambda v: v["tensors"].pop("bn1.weight"), "is damaged, or not the file"),
    "a tensor by another name": (
        lambda v: v["tensors"].update({"\x1b[2J": v["tensors"].pop(LEAF[1])}),
        "tensors",
    ),
    "ties are a list": (put("ties", value=[["a", "b"]]), "ties: got"),
    "a tie to nothing": (put("ties", value={"a": "b"}), "ties: b is not stored"),
    "a tie of what is stored": (put("ties", value={LEAF[1]: LEAF[1]}), "is stored and tied"),
    "a tie of what the model has not": (put("ties", value={"new": LEAF[1]}), "the model has no new"),
    "patches are a dict": (put("patches", value={}), "patches: got"),
    "a patch of 2 values": (put("patches", 0, value=["conv1", "groups"]), "expected a list of module, "),
    "a patch of text": (patch("conv1", "groups", "1"), "patches"),
    "a patch of null": (patch("conv1", "groups", None), "patches"),
    "a patch of true": (patch("conv1", "groups", True), "patches"),
    "a patch of no module": (patch("nowhere", "groups", 1), "the model has no such module"),
    "a patch of no attribute": (patch("conv1", "nothing", 1), "has no number of that name"),
    "a patch of the class": (patch("conv1", "__class__", 1), "has no number of that name"),
    "a patch of a method": (patch("conv1", "forward", 1), "has no number of that name"),
    "groups": (patch("conv1", "groups", 2), r"Patch conv1\.groups = 2: expected 1"),
    "groups as a fraction": (patch("conv1", "groups", 1.0), r"groups = 1\.0: expected 1"),
    "in_channels": (patch("conv1", "in_channels", 3), "in_channels = 3: expected 1"),
    "out_channels is the dense one": (patch("conv1", "out_channels", 16), "out_channels = 16: expected 8"),
    "out_channels is missing": (
        lambda v: v.update(patches=[p for p in v["patches"] if p[1] != "out_channels"]),
        "out_channels = 16: expected 8",
    ),
    "num_features": (patch("bn1", "num_features", 5), "num_features = 5: expected 8"),
    "stride": (patch("conv1", "stride", [2, 2]), r"stride = \[2, 2\]: no rebuild writes it"),
    "stride as it is": (patch("conv1", "stride", [1, 1]), "no rebuild writes it"),
    "padding": (patch("conv1", "padding", [0, 0]), "no rebuild writes it"),
    "dilation": (patch("conv1", "dilation", [2, 2]), "no rebuild writes it"),
    "kernel_size": (patch("conv1", "kernel_size", [1, 1]), "no rebuild writes it"),
    "eps": (patch("bn1", "eps", 1.0), "no rebuild writes it"),
    "momentum": (patch("bn1", "momentum", 0.5), "no rebuild writes it"),
    "a patch twice": (lambda v: v["patches"].append(v["patches"][0]), "given twice"),
    "inputs are text": (put("inputs", value="images"), "inputs"),
    "an input of no dtype": (put("inputs", value=[{"shape": [1]}]), "inputs"),
    "an input of a wrong dtype": (put("inputs", value=[{"shape": [1], "dtype": "ops"}]), "inputs"),
    "an input beyond memory": (
        put("inputs", value=[{"shape": [2**30, 2**9], "dtype": "float32"}]),
        "inputs: they have more than",
    ),
    "many inputs beyond memory": (
        put("inputs", value=[{"shape": [2**28], "dtype": "float32"}] * 3),
        "inputs: they have more than",
    ),
    "extra is a list": (put("extra", value=[]), "extra: got"),
    "architecture is a list": (put("extra", "architecture", value=[1]), "extra.architecture: got"),
    "architecture is text": (put("extra", "architecture", value="digits_resnet"), "extra.architecture: got"),
    "no architecture": (put("extra", value={}), "does not name the dense architecture"),
    "name is null": (put("extra", "architecture", "name", value=None), "does not name the dense"),
    "name is a number": (put("extra", "architecture", "name", value=7), r"extra\.architecture: name: got 7"),
    "name is unknown": (
        put("extra", "architecture", "name", value="digits_resne"),
        r'recipe\.json: extra\.architecture: unknown model "digits_resne"',
    ),
    "name has control characters": (put("extra", "architecture", "name", value="a\x00\x1b[2J"), "name"),
    "name of another model": (put("extra", "architecture", "name", value="resnet20"), "the model"),
    "classes are text": (put("extra", "architecture", "classes", value="10"), "classes"),
    "classes are 0": (put("extra", "architecture", "classes", value=0), "no tensor is for 0 classes"),
    "classes are a billion": (put("extra", "architecture", "classes", value=10**9), "classes"),
    "classes of others": (put("extra", "architecture", "classes", value=11), "no tensor is for 11 classes"),
    "no classes": (lambda v: v["extra"]["architecture"].pop("classes"), "classes is missing"),
    "input_shape of 2": (put("extra", "architecture", "input_shape", value=[8, 8]), "input_shape"),
    "input_shape is text": (put("extra", "architecture", "input_shape", value="188"), "input_shape"),
    "input_shape of nothing": (put("extra", "architecture", "input_shape", value=[1, 0, 8]), "input_shape"),
    "input_shape beyond memory": (
        put("extra", "architecture", "input_shape", value=[1, 2**20, 2**20]),
        "input_shape: got .*, expected at most",
    ),
    "input_shape of other channels": (
        put("extra", "architecture", "input_shape", value=[3, 8, 8]),
        "no tensor is for 3 channels",
    ),
}
"""{what is changed: (how, what the message says)}."""


def test_names_of_the_net(saved: Path) -> None:
    """The table above names layers of the real net."""
    values = json.loads((saved / "recipe.json").read_text())
    assert LEAF[1] in values["tensors"]
    given = {tuple(each[:2]): each[2] for each in values["patches"]}
    assert given["conv1", "out_channels"] == given["bn1", "num_features"] == 8


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_recipe_is_refused(copied: Path, name: str) -> None:
    change, message = CHANGES[name]
    with_values(copied, change)
    text = refused(copied, message)
    assert text.startswith(str(copied))
    assert not any(word in text for word in ("model.factory", "model.name", "batch"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("[1, 2", "is not JSON"),
        ("null", "not a recipe"),
        ("[]", "not a recipe"),
        ('"autoprune-pruned"', "not a recipe"),
        ("[" * 100_000, "nested too deep"),
        ('{"a":' * 100_000, "nested too deep"),
        ('{"version": 1' + "0" * 10_000 + "}", "is not JSON"),
        ('{"format": "autoprune-pruned", "format": "autoprune-pruned"}', "an object has a key twice"),
        ('{"format": "autoprune-pruned", "version": NaN}', "NaN is no number of JSON"),
        ('{"format": "autoprune-pruned", "version": -Infinity}', "-Infinity is no number of JSON"),
        ("\ufeff{}", "is not JSON"),
        ("\x00" * 100, "is not JSON"),
    ],
)
def test_a_text_that_is_no_recipe_is_refused(copied: Path, text: str, message: str) -> None:
    (copied / "recipe.json").write_text(text, encoding="utf-8")
    refused(copied, message)


def test_a_value_anywhere_may_be_of_any_kind(copied: Path) -> None:
    """Each value of the recipe by itself, replaced by values of other kinds."""
    whole = json.loads((copied / "recipe.json").read_text())
    expected = load_saved(copied)(IMAGES)
    strange: list[Any] = [None, True, -1, 10**25, 1e308, "\x07", [], {}, nested(50)]
    for key in ("digest", "widths", "inputs", "extra", "tensors", "ties", "patches", "keep"):
        for value in strange:
            with_values(copied, put(key, value=value))
            with contextlib.suppress(CheckpointError):
                assert torch.equal(load_saved(copied)(IMAGES), expected)
            (copied / "recipe.json").write_text(json.dumps(whole))


def resigned(folder: Path, content: bytes) -> None:
    """Write other tensors with the digest that they have, as who makes a file by hand can."""
    (folder / "model.safetensors").write_bytes(content)
    with_values(folder, put("digest", value=hashlib.sha256(content).hexdigest()))


def stored(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> bytes:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "other.safetensors")
    return (folder / "other.safetensors").read_bytes()


TENSORS: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "one less": (lambda t: t.pop("conv1.weight"), "is damaged, or not the file"),
    "one more": (lambda t: t.update(more=torch.zeros(1)), "is damaged, or not the file"),
    "another name": (lambda t: t.update(other=t.pop("conv1.weight")), "is damaged, or not the file"),
    "another shape": (lambda t: t.update({"conv1.weight": torch.zeros(1, 1, 3, 3)}), "has shape"),
    "another dtype": (
        lambda t: t.update({"conv1.weight": t["conv1.weight"].double()}),
        "is float32 in recipe",
    ),
    "integers": (lambda t: t.update({"conv1.weight": t["conv1.weight"].long()}), "is float32 in recipe"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_other_tensors_are_refused(copied: Path, name: str) -> None:
    change, message = TENSORS[name]
    resigned(copied, stored(copied, change))
    refused(copied, message)


@pytest.mark.parametrize("dtype", ["int64", "bool", "complex64"])
def test_tensors_and_recipe_may_agree_on_a_kind_that_is_not_the_models(copied: Path, dtype: str) -> None:
    to = getattr(torch, dtype)
    resigned(copied, stored(copied, lambda t: t.update({"conv1.weight": t["conv1.weight"].to(to)})))
    for requires_grad in (True, False):
        leaf = json.loads((copied / "recipe.json").read_text())["tensors"]["conv1.weight"]
        with_values(
            copied, put("tensors", "conv1.weight", value=[leaf[0], dtype, leaf[2], requires_grad, leaf[4]])
        )
        refused(copied, rf"conv1\.weight.*{dtype}")


@pytest.mark.parametrize(
    "header",
    [b"", b"{", b"[]", b"null", b"{}" * 5, b'{"a": 1}',
     b'{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}',
     b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4000000000]}}',
     b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
     b'{"a":{"dtype":"F4","shape":[8],"data_offsets":[0,4]}}', b"[" * 10_000],
)  # fmt: skip
@pytest.mark.parametrize("size", [None, 0, 2**63, 8])
def test_a_header_of_tensors_that_lies_is_refused(copied: Path, header: bytes, size: int | None) -> None:
    length = len(header) if size is None else size
    resigned(copied, length.to_bytes(8, "little") + header + b"\x00" * 4)
    refused(copied, r"model\.safetensors")


@pytest.mark.parametrize("file", ["recipe.json", "model.safetensors"])
def test_what_is_no_file_is_refused(copied: Path, file: str) -> None:
    import os

    (copied / file).unlink()
    os.mkfifo(copied / file)
    refused(copied, "expected a regular file")
    (copied / file).unlink()
    (copied / file).mkdir()
    refused(copied, "expected a regular file")


def test_numbers_that_nothing_reads_back_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="extra cannot be stored as JSON"):
        save_pruned(nn.Linear(2, 2), Plan({}), tmp_path, extra={"score": float("nan")})


@pytest.mark.parametrize(
    ("attribute", "value", "accepted"),
    [
        ("head_dim", 5, True),
        ("head_dim", 9, False),
        ("head_dim", 0, False),
        ("head_dim", -5, False),
        ("head_dim", 5.0, False),
        ("scale", 0.5, False),
        ("training", 0, False),
    ],
)
def test_numbers_of_a_modules_own_code_shrink_at_most(
    tmp_path: Path, attribute: str, value: Any, accepted: bool
) -> None:
    prunable = trace(Blocks(OwnHeadWidth), TOKENS)
    plan = Plan({"blocks.0.qkv": np.arange(5)})
    save_pruned(rebuild(prunable, plan), plan, tmp_path)
    with_values(tmp_path, patch("blocks.0", attribute, value))
    if accepted:
        load_pruned(tmp_path, lambda: Blocks(OwnHeadWidth))
        return
    with pytest.raises(CheckpointError, match=rf"recipe\.json: patches: Patch blocks\.0\.{attribute}"):
        load_pruned(tmp_path, lambda: Blocks(OwnHeadWidth))


def test_a_recipe_reads_back_equal(saved: Path) -> None:
    recipe = read_recipe(saved)
    again = copy.deepcopy(recipe)
    assert again == recipe
    assert recipe.extra == EXTRA
    assert all(
        (recipe.plan[name] == np.arange(1, 1 + width)).all() for name, width in recipe.plan.widths.items()
    )
