"""Data sets by name: splits, hashes, files found and files broken."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from autoprune.data import load
from autoprune.data._memory import channel_statistics
from autoprune.data._sources import DEBIAN_FASHION_MNIST, digits, fashion_mnist, split
from autoprune.errors import DataError


def write_idx(path: Path, values: NDArray[np.uint8], *, zipped: bool = True) -> None:
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    content = header + values.tobytes()
    path.write_bytes(gzip.compress(content) if zipped else content)


def write_fashion(folder: Path, *, zipped: bool = True) -> None:
    rng = np.random.default_rng(0)
    ending = ".gz" if zipped else ""
    for prefix, count in (("train", 100), ("t10k", 20)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        write_idx(folder / f"{prefix}-images-idx3-ubyte{ending}", images, zipped=zipped)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{ending}", labels, zipped=zipped)


def test_digits_parts_do_not_meet_and_make_up_the_whole() -> None:
    data = load("digits", batch_size=64)
    assert data.test is not None
    assert data.train.samples + data.val.samples + data.test.samples == 1797
    assert data.input_shape == (1, 8, 8)
    assert data.classes == 10


def test_images_of_raw_pixels_become_the_inputs_of_the_loaders() -> None:
    data, pixels = load("digits"), digits(Path()).test.images
    assert data.test is not None
    steps = data.preprocessing
    assert steps is not None
    inputs = (pixels / 255 - torch.tensor(steps.mean)) / torch.tensor(steps.std)
    assert torch.allclose(torch.cat([images for images, _ in data.test]), inputs, atol=1e-5)
    assert data.class_names == tuple("0123456789")


def test_split_is_by_class_and_fixed() -> None:
    labels = torch.arange(200) % 4
    kept, held_out = split(labels, 0.1, seed=0)
    assert sorted([*kept.tolist(), *held_out.tolist()]) == list(range(200))
    assert torch.bincount(labels[held_out]).tolist() == [5, 5, 5, 5]
    assert torch.equal(held_out, split(labels, 0.1, seed=0)[1])
    assert not torch.equal(held_out, split(labels, 0.1, seed=1)[1])


def test_the_test_part_does_not_depend_on_the_split() -> None:
    first, second = load("digits", seed=0), load("digits", seed=1, val_fraction=0.3)
    assert first.test is not None
    assert second.test is not None
    assert torch.equal(next(iter(first.test))[1], next(iter(second.test))[1])


def test_fingerprint_follows_content_and_split() -> None:
    assert load("digits").fingerprint == load("digits", batch_size=7).fingerprint
    assert load("digits").fingerprint != load("digits", seed=1).fingerprint
    assert load("digits").fingerprint != load("digits", val_fraction=0.2).fingerprint


def test_only_training_images_are_augmented() -> None:
    data = load("digits", val_fraction=0.2)
    (first, _), (second, _) = next(data.val.batches(0, 0)), next(data.val.batches(1, 7))
    assert torch.equal(first, second)


def test_channel_statistics_equal_numpys() -> None:
    images = digits(Path()).train.images
    mean, std = channel_statistics(images)
    values = images.numpy() / 255
    assert mean.item() == pytest.approx(values.mean())
    assert std.item() == pytest.approx(values.std())


@pytest.mark.parametrize("zipped", [True, False])
def test_fashion_mnist_from_local_files(tmp_path: Path, zipped: bool) -> None:
    write_fashion(tmp_path, zipped=zipped)
    data = load("fashion-mnist", folder=tmp_path)
    assert (data.train.samples, data.val.samples) == (90, 10)
    assert data.input_shape == (1, 28, 28)


def test_debians_fashion_mnist() -> None:
    if not DEBIAN_FASHION_MNIST.is_dir():
        pytest.skip("the package dataset-fashion-mnist is not installed")
    arrays = fashion_mnist(Path("nowhere"))
    assert arrays.train.images.shape == (60000, 1, 28, 28)
    assert torch.bincount(arrays.test.labels).tolist() == [1000] * 10


def test_broken_files_are_named(tmp_path: Path) -> None:
    write_fashion(tmp_path)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte.gz: it is corrupt"):
        load("fashion-mnist", folder=tmp_path)
    content = bytearray(path.read_bytes())
    content[12] ^= 0xFF  # the compressed stream itself
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte.gz: it is corrupt"):
        load("fashion-mnist", folder=tmp_path)
    for length in (0, 3, 6):
        path.write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 2])[:length]))
        with pytest.raises(
            DataError, match=r"it is corrupt, expected an idx file of bytes with 1 dimensions"
        ):
            load("fashion-mnist", folder=tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte .* is missing"):
        load("fashion-mnist", folder=tmp_path)
    write_idx(path, np.full(100, 10, dtype=np.uint8))
    with pytest.raises(DataError, match=r"labels from 10 to 10, expected from 0 to 9"):
        load("fashion-mnist", folder=tmp_path)


def test_unknown_name_and_empty_validation_part() -> None:
    with pytest.raises(DataError, match=r'unknown data set "fashion".*Did you mean "fashion-mnist"'):
        load("fashion")
    with pytest.raises(DataError, match=r"data.val_fraction: 0.001 of .* 0 for validation"):
        load("digits", val_fraction=0.001)
