"""timm's models by name, "timm/NAME", for any number of classes and input channels.

Example:
    model = make_timm_model("convnext_atto", classes=10, in_channels=1)
"""

from __future__ import annotations

from typing import Any

from torch import nn

from autoprune.errors import ConfigError, unknown
from autoprune.support.usercode import guarded

PREFIX = "timm/"
"""The start of the name of a model that timm makes."""


def make_timm_model(name: str, classes: int, in_channels: int, weights: str | None = None) -> nn.Module:
    """Build one of timm's models.

    Args:
        name: its name in timm, with or without the tag of its weights, such as ".a1_in1k".
        classes: number of outputs.
        in_channels: number of channels of the images.
        weights: "DEFAULT" for the trained weights of that name, which timm downloads.

    Raises:
        ConfigError: timm is not installed, does not know the name, cannot download the weights, or cannot
            make the model for images of these channels.
    """
    timm = _timm(name)
    with guarded(f"model.name: timm cannot make {name} for {in_channels} channels", ConfigError):
        model: nn.Module = timm.create_model(
            name, pretrained=weights is not None, num_classes=classes, in_chans=in_channels
        )
    return model


def timm_classes(name: str, weights: str) -> int:
    """Return the number of classes of the trained weights of a model.

    Raises:
        ConfigError: there are no such weights.
    """
    known = _timm(name).get_pretrained_cfg(name)
    if weights != "DEFAULT" or known is None or not known.has_weights:
        raise ConfigError(
            f'model.weights: timm has no "{weights}" of {name}. Set "DEFAULT" for a model that has trained '
            "weights, or leave it out."
        )
    return int(known.num_classes)


def _timm(name: str) -> Any:
    """Import timm, and check that it knows a model."""
    try:
        import timm
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise ConfigError(
            f'model.name: "{PREFIX}{name}" needs timm. Install it with `pip install "autoprune[timm]"`.'
        ) from None
    if not timm.is_model(name):
        raise ConfigError(unknown("model.name", name, timm.list_models(), kind="model of timm"))
    return timm
