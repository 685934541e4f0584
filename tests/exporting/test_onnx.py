"""ONNX files: names, shapes and versions that a deployment relies on, and outputs at any batch size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime  # type: ignore[import-untyped]  # the package ships no types
import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.errors import ExportError
from autoprune.exporting import OnnxTensor, read_signature
from autoprune.exporting._onnx import _output_names


class Tiny(nn.Module):
    """A convolution whose argument has a name, with the outputs that a subclass makes of it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 3, 3)

    def forward(self, images: Tensor) -> object:
        return self.conv(images).relu()


class Pair(Tiny):
    def forward(self, images: Tensor) -> object:
        return self.conv(images), images.mean((1, 2, 3))


class Named(Tiny):
    def forward(self, images: Tensor) -> object:
        out = self.conv(images)
        return {"relu": out, "conv2d": {"deep": out.relu()}}


class Text(Tiny):
    def forward(self, images: Tensor) -> object:
        return self.conv(images), "not a tensor"


IMAGE = torch.zeros(1, 1, 6, 6)


def test_a_file_runs_at_any_batch_size_under_the_names_that_it_states(tmp_path: Path) -> None:
    report = autoprune.export(Tiny(), tmp_path / "net.onnx", example_inputs=IMAGE)
    signature = read_signature(report.path)
    assert signature.opset == report.opset
    assert signature.inputs == (OnnxTensor("images", ("batch", 1, 6, 6), "float32"),)
    assert signature.outputs == (OnnxTensor("output", ("batch", 3, 4, 4), "float32"),)
    session = onnxruntime.InferenceSession(report.path)
    for batch in (1, 2, 5, 33):
        images = torch.randn(batch, 1, 6, 6, generator=torch.Generator().manual_seed(batch))
        (found,) = session.run(["output"], {"images": images.numpy()})
        with torch.no_grad():
            expected = Tiny()(images)
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("model", "names"), [(Pair, ["output_0", "output_1"]), (Named, ["relu", "conv2d_deep"]), (Text, None)]
)
def test_several_outputs_have_the_names_of_their_places(model: type[Tiny], names: list[str] | None) -> None:
    assert _output_names(model(), (IMAGE,)) == names


def test_an_opset_is_kept_or_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.onnx"
    report = autoprune.export(Tiny(), path, example_inputs=IMAGE, opset=17)
    assert report.opset == read_signature(path).opset == 17
    with pytest.raises(ExportError, match=r"^opset: got 11, .* cannot be converted to it\. Use 18\.$"):
        autoprune.export(Tiny(), path, example_inputs=IMAGE, opset=11)
    with pytest.raises(ExportError, match=r"^opset: got 999, expected 1 to \d+\.$"):
        autoprune.export(Tiny(), path, example_inputs=IMAGE, opset=999)
    with pytest.raises(ExportError, match=r'^opset: got 17, but the format "pt2" has none'):
        autoprune.export(Tiny(), tmp_path / "net.pt2", "pt2", IMAGE, opset=17)
    assert capfd.readouterr() == ("", "")
    assert read_signature(path).opset == 17
