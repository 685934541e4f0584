"""Classification with a model of timm.

python -m experiments.examples.tasks.timm_model [--tiny]
"""

from __future__ import annotations

from typing import Any

import timm

from experiments.examples.tasks.digits import digits, loaders
from experiments.examples.tasks.runner import Example, run


def make(tiny: bool) -> Example:
    """Search a model of timm."""
    model: Any = timm.create_model("efficientvit_b0", num_classes=10, in_chans=1)
    return Example(
        "timm_model",
        "EfficientViT-B0 of timm",
        "digits, 32 px",
        "accuracy",
        model,
        loaders(*digits(tiny=tiny, size=32), tiny=tiny),
        {},
        epochs=20,
        sections={"finetune": {"teacher": "dense"}},
    )


if __name__ == "__main__":
    run(make)
