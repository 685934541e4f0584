"""Models that users of pruning tools ask about, as the guide's page of questions says.

The tests of CLIP, Ultralytics and ONNX are skipped if their packages are not installed. No extra has
ultralytics and onnx2torch, because they install large packages. To run all tests:

    pip install -e '.[dev]' ultralytics onnx2torch
    python -m pytest -q -n 0 -m slow tests/test_questions.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import autoprune

pytestmark = pytest.mark.slow


class Block(nn.Sequential):
    """Two 3-D convolutions with a normalisation."""

    def __init__(self, inputs: int, outputs: int, norm: Callable[[int], nn.Module]) -> None:
        layers = [nn.Conv3d(inputs, outputs, 3, padding=1), norm(outputs), nn.ReLU()]
        super().__init__(*layers, nn.Conv3d(outputs, outputs, 3, padding=1), norm(outputs), nn.ReLU())


class Volumes(nn.Module):
    """A 3-D U-Net with one skip connection."""

    def __init__(self, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.down, self.middle, self.up = Block(1, 8, norm), Block(8, 16, norm), Block(16, 8, norm)
        self.grow, self.head = nn.ConvTranspose3d(16, 8, 2, 2), nn.Conv3d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(x)
        deep = self.grow(self.middle(nn.functional.max_pool3d(skip, 2)))
        return self.head(self.up(torch.cat([deep, skip], 1)))  # type: ignore[no-any-return]  # as modules do


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm3d,
    "instance": lambda width: nn.InstanceNorm3d(width, affine=True),
    "group": lambda width: nn.GroupNorm(4, width),
}


@pytest.mark.parametrize("norm", NORMS)
def test_a_3d_unet_is_narrowed_and_exported(norm: str, tmp_path: Path) -> None:
    model = Volumes(NORMS[norm]).eval()
    prunable = autoprune.trace(model, torch.zeros(1, 1, 4, 4, 4))
    plan = autoprune.make_plan(prunable, 0.5)
    assert prunable.cost(plan.widths).params < 0.4 * prunable.cost().params
    small = autoprune.rebuild(prunable, plan)
    assert autoprune.verify(prunable, plan, small).right
    exported = autoprune.export(small, tmp_path / "small.onnx", "onnx")
    assert exported.max_difference < 1e-4


def clip() -> tuple[nn.Module, dict[str, Tensor]]:
    """Return a small CLIP of transformers, and its inputs. Its mask makes the forward pass read a value."""
    transformers: Any = pytest.importorskip("transformers")
    text = {"vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    image = {"image_size": 16, "patch_size": 8}
    config = transformers.CLIPConfig(
        text_config={**text, **sizes}, vision_config={**image, **sizes}, projection_dim=24
    )
    ids = torch.randint(3, 50, (1, 6))
    return transformers.CLIPModel(config).eval(), {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(1, 3, 16, 16),
    }


def test_both_towers_of_clip_are_narrowed_and_their_embedding_stays() -> None:
    model, inputs = clip()
    prunable = autoprune.trace(model, inputs)
    free = {group.name.split(".")[0] for group in prunable.searchable}
    assert free == {"text_model", "vision_model"}
    plan = autoprune.make_plan(prunable, 0.5)
    small = autoprune.rebuild(prunable, plan)
    assert autoprune.verify(prunable, plan, small).right
    assert small(**inputs).image_embeds.shape == (1, 24)


def test_a_model_of_ultralytics_is_narrowed_up_to_its_head() -> None:
    tasks: Any = pytest.importorskip("ultralytics.nn.tasks")
    model = tasks.DetectionModel("yolov8n.yaml", nc=4, verbose=False).eval()
    images = torch.rand(1, 3, 64, 64)
    prunable = autoprune.trace(model, images)
    whole = autoprune.rebuild(prunable, autoprune.make_plan(prunable, 1.0))
    with torch.no_grad():
        assert torch.equal(whole(images)[0], model(images)[0])
    plan = autoprune.make_plan(prunable, 0.5)
    assert prunable.cost(plan.widths).macs < 0.4 * prunable.cost().macs
    small = autoprune.rebuild(prunable, plan)
    assert autoprune.verify(prunable, plan, small).right
    assert small(images)[0].shape == model(images)[0].shape


def test_a_model_of_onnx_is_narrowed_saved_and_loaded(tmp_path: Path) -> None:
    convert = pytest.importorskip("onnx2torch").convert
    layers = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 5, 3)]
    images, file = torch.randn(1, 3, 8, 8), str(tmp_path / "dense.onnx")
    torch.onnx.export(nn.Sequential(*layers).eval(), (images,), file, dynamo=False, opset_version=13)
    prunable = autoprune.trace(convert(file), images)
    plan = autoprune.make_plan(prunable, 0.5)
    small = autoprune.rebuild(prunable, plan)
    assert autoprune.verify(prunable, plan, small).right
    autoprune.save_pruned(small, plan, tmp_path / "small")
    loaded = autoprune.load_pruned(tmp_path / "small", lambda: convert(file))
    assert torch.equal(loaded(images), small.eval()(images))
