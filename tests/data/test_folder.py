"""Image folders, streamed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from autoprune.data import VisionData, load
from autoprune.errors import DataError


def write_images(folder: Path, parts: tuple[str, ...] = ("train", "val"), count: int = 5) -> None:
    rng = np.random.default_rng(0)
    for part in parts:
        for name in ("cats", "dogs"):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{number}.png")


def open_folder(folder: Path, workers: int = 0) -> VisionData:
    return load("folder", folder=folder, batch_size=4, image_size=24, workers=workers)


@pytest.mark.parametrize("workers", [0, 1])
def test_parts_shapes_and_reproducible_batches(tmp_path: Path, workers: int) -> None:
    write_images(tmp_path)
    data = open_folder(tmp_path, workers)
    assert (data.classes, data.input_shape, data.test) == (2, (3, 24, 24), None)
    assert (len(data.train), data.train.samples, len(data.val), data.val.samples) == (2, 8, 3, 10)
    first, again, other = (next(data.train.batches(0, epoch)) for epoch in (1, 1, 2))
    assert first[0].shape == (4, 3, 24, 24)
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
    assert data.class_names == ("cats", "dogs")


def test_the_stated_steps_make_an_image_an_input(tmp_path: Path) -> None:
    """The image has the size to which the shorter side is scaled already, so only the crop is left."""
    write_images(tmp_path)
    steps = open_folder(tmp_path).preprocessing
    assert steps is not None
    size = steps.resize
    assert size is not None
    pixels = np.random.default_rng(1).integers(0, 256, (size, size, 3), dtype=np.uint8)
    for place in (tmp_path / "val").rglob("*.png"):
        Image.fromarray(pixels).save(place)
    middle = round((size - 24) / 2)
    values = torch.from_numpy(pixels[middle : middle + 24, middle : middle + 24] / 255).permute(2, 0, 1)
    expected = (values - torch.tensor(steps.mean)[:, None, None]) / torch.tensor(steps.std)[:, None, None]
    assert torch.allclose(next(iter(open_folder(tmp_path).val))[0][0], expected.float(), atol=1e-5)


def test_the_plain_training_part_is_changed_by_no_chance(tmp_path: Path) -> None:
    """Its images are those of the validation part's pipeline, in the order of the training part."""
    write_images(tmp_path, ("train",))
    shutil.copytree(tmp_path / "train", tmp_path / "val")
    data = open_folder(tmp_path)
    middles = torch.cat([images for images, _ in data.val])
    plain, labels = next(data.unchanged_train.batches(3, 0))
    assert torch.equal(labels, next(data.train.batches(3, 0))[1])
    assert all(any(torch.equal(image, middle) for middle in middles) for image in plain)
    changed, _ = next(data.train.batches(3, 0))
    assert not any(any(torch.equal(image, middle) for middle in middles) for image in changed)


def test_fingerprint_follows_the_files(tmp_path: Path) -> None:
    write_images(tmp_path)
    before = open_folder(tmp_path).fingerprint
    assert before == open_folder(tmp_path).fingerprint
    (tmp_path / "val" / "cats" / "0.png").unlink()
    assert before != open_folder(tmp_path).fingerprint


def test_missing_parts_and_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.folder: missing\. Set it to the folder"):
        load("folder")
    with pytest.raises(DataError, match=r"train is missing"):
        open_folder(tmp_path)
    write_images(tmp_path, ("train",))
    with pytest.raises(DataError, match=r"val is missing"):
        open_folder(tmp_path)
    (tmp_path / "val" / "cats").mkdir(parents=True)
    with pytest.raises(DataError, match=r"Found no valid file for the classes cats"):
        open_folder(tmp_path)
    Image.new("RGB", (30, 30)).save(tmp_path / "val" / "cats" / "0.png")
    with pytest.raises(DataError, match=r'val/ and train/ differ in their classes, e.g. "dogs"'):
        open_folder(tmp_path)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named_in_one_line(tmp_path: Path, workers: int) -> None:
    write_images(tmp_path)
    (tmp_path / "val" / "cats" / "3.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"3.png cannot be read as an image") as raised:
        list(open_folder(tmp_path, workers).val)
    assert "\n" not in str(raised.value)


def test_another_validation_part_is_refused(tmp_path: Path) -> None:
    """It would have no effect: the folder has its own."""
    write_images(tmp_path)
    with pytest.raises(DataError, match=r"data\.validation: a folder has its own part val/"):
        load("folder", folder=tmp_path, validation="mypkg.data:held_out")
