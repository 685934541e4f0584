from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from autoprune.errors import CheckpointError, DataError
from autoprune.reconstruction import measure_model
from autoprune.reconstruction._second_moments import load_moments, moments, save_moments
from tests.reconstruction.nets import Residual, images, traced, trained_like

ALL = 10**6


def test_moments_are_those_of_explicit_patches() -> None:
    model = trained_like(Residual())
    batch = images()
    measured = moments(traced(model), [batch[:16], (batch[16:], "labels")], positions=ALL)
    patches = functional.unfold(batch, 3, padding=1).transpose(1, 2).reshape(-1, 27)
    layer = measured.layers["stem.0.weight"]
    torch.testing.assert_close(layer.second[0], patches.T @ patches / len(patches))
    torch.testing.assert_close(layer.covariance[0], torch.cov(patches.T, correction=0))
    assert (measured.images, layer.rows, measured.left_out) == (40, len(patches), {})


def test_so_many_images_are_taken_and_the_model_stays_as_it_was() -> None:
    model = trained_like(Residual()).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    measured = measure_model(model, [images(), images()], images=50, positions=2)
    assert measured.images == 50
    assert measured.layers["stem.0.weight"].rows == 100
    assert all(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_images_that_are_not_finite_are_refused() -> None:
    batch = images()
    batch[0, 0, 0, 0] = torch.inf
    with pytest.raises(DataError, match=r"moments: the inputs of stem\.0\.weight are not finite"):
        measure_model(trained_like(Residual()), [batch], positions=ALL)


class Twice(nn.Module):
    """Calls one convolution twice, and multiplies with a matrix that no layer has."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.mix = nn.Parameter(torch.eye(3))

    def forward(self, batch: Tensor) -> Tensor:
        """Return [n, 3]."""
        mixed: Tensor = self.conv(self.conv(batch)).mean(dim=(2, 3)) @ self.mix
        return mixed


def test_weights_without_moments_are_named_with_the_reason() -> None:
    measured = measure_model(Twice().double(), [images()])
    assert measured.layers == {}
    assert measured.left_out == {
        "mix": "no convolution or linear layer multiplies its input with it",
        "conv.weight": "the model calls it more than once",
    }


def test_a_file_gives_them_back(tmp_path: Path) -> None:
    measured = measure_model(trained_like(Residual()), [images()], limit_bytes=30_000)
    assert {layer.span for layer in measured.layers.values()} == {1, 9}
    path = tmp_path / "kept" / "moments.safetensors"
    save_moments(measured, path)
    again = load_moments(path)
    assert again.layers.keys() == measured.layers.keys()
    for name, layer in measured.layers.items():
        assert torch.equal(again.layers[name].second, layer.second)
        assert torch.equal(again.layers[name].mean, layer.mean)
        assert again.layers[name].rows == layer.rows
        assert again.layers[name].span == layer.span
    assert (again.images, again.left_out) == (measured.images, measured.left_out)
    (plain := path.with_name("plain")).touch()
    assert path.stat().st_mode == plain.stat().st_mode  # workers of other users may read it, too


@pytest.mark.parametrize(
    "content", [b"", b"no tensors", b"\x08\0\0\0\0\0\0\0{}      "], ids=["empty", "text", "other"]
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "moments.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"^moments .*moments\.safetensors: .*\. Delete the file"):
        load_moments(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "the data gave no images"),
        ([{"images": 1}], "got a batch with a dict"),
        ([torch.zeros(2, 5, 4, 4)], "the model failed on a batch"),
    ],
    ids=["no batch", "a dict", "other channels"],
)
def test_data_that_does_not_fit_is_one_line(data: list[object], message: str) -> None:
    with pytest.raises(DataError, match=f"^moments: {message}"):
        measure_model(trained_like(Residual()), data)
