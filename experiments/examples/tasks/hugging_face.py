"""Image classification with a model of Hugging Face transformers, built from a config without a download.

    python -m experiments.examples.tasks.hugging_face [--tiny]

Batches are dicts, outputs are dataclasses, and the model computes its own loss from `labels`. `save_small`
and `load_small` write and read a folder as `save_pretrained` does, with the config beside the weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn
from transformers import ViTConfig, ViTForImageClassification

import autoprune
from experiments.examples.tasks.digits import digits, loaders
from experiments.examples.tasks.runner import Example, run


def prepare(batch: Any) -> Any:
    """Split a batch into the keyword inputs of the model and its keyword targets."""
    return {"pixel_values": batch["pixel_values"]}, {"labels": batch["labels"]}


def save_small(small: nn.Module, plan: Any, folder: Path) -> None:
    """Write a pruned model and the config of the dense architecture."""
    autoprune.save_pruned(small, plan, folder)
    config: Any = small.config
    config.save_pretrained(folder)


def load_small(folder: Path) -> nn.Module:
    """Read such a folder. The config makes the dense architecture, and the recipe narrows it."""
    config = ViTConfig.from_pretrained(folder)
    return autoprune.load_pruned(folder, lambda: ViTForImageClassification(config))


def as_dicts(part: Any) -> list[dict[str, Any]]:
    """Return samples as the data sets of Hugging Face hold them."""
    return [{"pixel_values": image, "labels": label} for image, label in part]


def make(tiny: bool) -> Example:
    """Search a vision transformer of transformers."""
    config = ViTConfig(
        hidden_size=64,
        num_hidden_layers=1 if tiny else 4,
        num_attention_heads=4,
        intermediate_size=128,
        image_size=16,
        patch_size=4,
        num_channels=1,
    )
    config.num_labels = 10
    train, val = map(as_dicts, digits(tiny=tiny, size=16))
    return Example(
        "hugging_face",
        "ViT of transformers, 4 layers of 64",
        "digits, 16 px",
        "accuracy",
        ViTForImageClassification(config),
        loaders(train, val, tiny=tiny),
        {"loss": "model", "metric": "accuracy", "prepare": prepare},
        epochs=40,
    )


if __name__ == "__main__":
    run(make)
