"""The user's own loaders."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from autoprune.data import load, wrap_loaders
from autoprune.errors import DataError

Loaders = DataLoader[tuple[torch.Tensor, ...]]


def loader(count: int = 20, classes: int = 4, **changes: Any) -> Loaders:
    images = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(count))
    labels = torch.arange(count) % classes
    images[changes.get("nan_at", 0)] *= changes.get("factor", 1.0)
    return DataLoader(TensorDataset(images, labels + changes.get("add", 0)), batch_size=8)


def pair(batch_size: int) -> tuple[Loaders, Loaders]:
    assert batch_size == 128
    return loader(40), loader(16)


def triple_in_a_dict() -> dict[str, Any]:
    return {"train": loader(), "val": loader(), "test": loader(), "classes": 9}


def nan_in_val() -> tuple[Loaders, Loaders]:
    return loader(), loader(nan_at=17, factor=float("nan"))


def negative_label() -> tuple[Loaders, Loaders]:
    return loader(), loader(add=-1)


def too_few_classes() -> dict[str, Any]:
    return {"train": loader(), "val": loader(), "classes": 2}


def names_of_classes() -> dict[str, Any]:
    return {"train": loader(), "val": loader(), "classes": ["cat", "dog"]}


def no_class() -> dict[str, Any]:
    return {"train": loader(), "val": loader(), "classes": 0}


def empty_val() -> tuple[Loaders, list[Any]]:
    return loader(), []


def other_shape() -> tuple[Loaders, list[Any]]:
    return loader(), [(torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64))]


def once_only() -> tuple[Loaders, Any]:
    return loader(), iter(loader())


def alone() -> Loaders:
    return loader()


class Broken(Dataset[tuple[torch.Tensor, int]]):
    """Raises at its twelfth sample."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.zeros(3, 8, 8), {number: number % 4 for number in range(12)}[index]


def breaks_in_val() -> tuple[Any, Any]:
    return loader(), DataLoader(Broken(), batch_size=8)


def words_for_targets() -> tuple[Any, Any]:
    return loader(), [(torch.zeros(2, 3, 8, 8), ["cat", "dog"])]


def one_target_for_all() -> tuple[Any, Any]:
    return loader(), [(torch.zeros(2, 3, 8, 8), torch.tensor(1))]


def fails() -> None:
    raise OSError("disk on fire")


def digits_like() -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(torch.zeros(30, 1, 8, 8), torch.arange(30) % 10)]


def test_classes_and_shape_are_found() -> None:
    data = load(f"{__name__}:pair")
    assert (data.classes, data.input_shape, data.test) == (4, (3, 8, 8), None)
    assert (data.train.samples, len(data.train), data.val.samples) == (40, 5, 16)
    assert data.fingerprint == load(f"{__name__}:pair").fingerprint


def test_the_names_of_the_classes_are_those_of_the_data_set() -> None:
    train = loader()
    assert wrap_loaders((train, loader())).class_names == ()
    for names, found in ((["a", "b", "c", "d"], ("a", "b", "c", "d")), (["a"], ()), (4, ())):
        train.dataset.classes = names  # type: ignore[attr-defined]  # as torchvision's data sets have them
        assert wrap_loaders((train, loader())).class_names == found


def test_a_dict_may_name_the_classes() -> None:
    data = load(f"{__name__}:triple_in_a_dict")
    assert data.classes == 9
    assert data.test is not None
    assert data.fingerprint != load(f"{__name__}:pair").fingerprint


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nan_in_val", "val: the inputs have NaN or infinite values"),
        ("negative_label", "val: got label -1, expected 0 or more"),
        ("too_few_classes", "got label 3, expected 0 to 1"),
        ("names_of_classes", r"\"classes\": got \['cat', 'dog'\], expected the number of classes"),
        ("no_class", '"classes": got 0, expected the number of classes'),
        ("empty_val", "val: the part is empty"),
        ("other_shape", r"train images are \(3, 8, 8\) and val images \(1, 8, 8\), expected the same shape"),
        ("alone", r"got a DataLoader, expected \(train, val\)"),
        ("once_only", "can be read only once"),
        ("breaks_in_val", r"data .*:breaks_in_val: val: reading a batch failed: KeyError: 12"),
        ("words_for_targets", "val: targets are a list, expected a tensor"),
        ("one_target_for_all", r"val: got a batch of inputs \(2, 3, 8, 8\) and targets \(\)"),
        ("fails", "failed: OSError: disk on fire"),
    ],
)
def test_each_mistake_is_named_in_one_line(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        load(f"{__name__}:{name}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.uint8])
def test_images_of_another_number_format_are_refused(dtype: torch.dtype) -> None:
    part = [(torch.ones(2, 3, 8, 8, dtype=dtype), torch.arange(2))]
    said = rf"train: inputs are {dtype}, expected normalised torch\.float32 images\. Convert them"
    with pytest.raises(DataError, match=said):
        wrap_loaders((part, loader()))


def test_soft_targets_may_have_any_floating_format() -> None:
    made = [(torch.ones(2, 3, 8, 8), torch.eye(2, dtype=torch.bfloat16))]
    assert wrap_loaders((made, made)).classes == 2


def test_a_data_set_that_breaks_after_the_scan_is_named() -> None:
    source = DataLoader(Broken(), batch_size=8)
    data = wrap_loaders({"train": loader(), "val": loader(), "test": source}, name="m:make")
    assert data.test is not None
    with pytest.raises(DataError, match=r"data m:make: test: reading a batch failed: KeyError: 12"):
        list(data.test)


@pytest.mark.slow
def test_an_error_in_a_loaders_worker_is_one_line() -> None:
    source = DataLoader(Broken(), batch_size=8, num_workers=1)
    with pytest.raises(DataError, match=r"val: reading a batch failed: KeyError: 12$"):
        wrap_loaders((loader(), source))


def test_loaders_in_hand_are_wrapped_as_those_of_a_function() -> None:
    made = {"train": loader(40), "val": loader(16), "test": loader(24)}
    data = wrap_loaders(made)
    assert (data.classes, data.input_shape, data.train.samples) == (4, (3, 8, 8), 40)
    assert data.test is not None
    assert data.fingerprint == wrap_loaders(tuple(made.values())).fingerprint
    assert data.fingerprint != wrap_loaders((loader(40), loader(20))).fingerprint
    with pytest.raises(DataError, match=r"got a Tensor, expected \(train, val\)"):
        wrap_loaders(torch.zeros(3))  # type: ignore[arg-type]  # what a user may hand over by mistake


def test_a_separate_validation_part_replaces_the_held_out_share() -> None:
    data = load("digits", validation=f"{__name__}:digits_like")
    assert (data.val.samples, len(data.val)) == (30, 1)
    assert data.train.samples == load("digits").train.samples + load("digits").val.samples
    assert data.fingerprint != load("digits").fingerprint
    with pytest.raises(DataError, match=r"data.validation .*images \(3, 8, 8\)"):
        load("digits", validation=f"{__name__}:alone")


def test_another_validation_part_than_the_loaders_is_refused() -> None:
    with pytest.raises(DataError, match=r"data\.validation: .*:pair\" already returns a validation part"):
        load(f"{__name__}:pair", validation=f"{__name__}:digits_like")


def test_workers_that_keep_their_random_states_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    images = TensorDataset(torch.rand(8, 3, 8, 8), torch.arange(8))
    source = DataLoader(images, batch_size=8, num_workers=1, persistent_workers=True)
    wrap_loaders((source, loader()))
    assert "data loaders: train: persistent workers keep their random states" in caplog.text


@pytest.mark.parametrize("name", ["digits", f"{__name__}:pair"])
def test_a_size_of_images_is_refused_if_nothing_scales_them(name: str) -> None:
    with pytest.raises(
        DataError, match=rf'data\.image_size: got 32, but "{name}" is not scaled\. Leave it out'
    ):
        load(name, image_size=32)
