"""torchvision's classifiers by name, for any number of classes and input channels.

Example:
    model = make_vision_model("mobilenet_v3_small", classes=10, in_channels=1)
"""

from __future__ import annotations

import warnings
from typing import Any

import torchvision  # type: ignore[import-untyped]  # ships no types
from torch import nn

from autoprune.errors import ConfigError, summary_of, unknown


def vision_names() -> list[str]:
    """Return the names of torchvision's classifiers."""
    return list(torchvision.models.list_models(module=torchvision.models))


def make_vision_model(name: str, classes: int, in_channels: int, weights: str | None = None) -> nn.Module:
    """Build one of torchvision's classifiers.

    If the images do not have three channels, the first convolution is replaced. The new one is untrained,
    even if `weights` are given.

    Raises:
        ConfigError: if the weights are unknown or cannot be downloaded.
    """
    options: dict[str, Any] = {"num_classes": classes}
    if weights is not None:
        options["weights"] = _find_weights(name, weights)
    try:
        with warnings.catch_warnings():
            # Some nets announce that their initial weights will be drawn otherwise one day.
            warnings.simplefilter("ignore", FutureWarning)
            model: nn.Module = torchvision.models.get_model(name, **options)
    except (OSError, RuntimeError) as error:
        if weights is None:
            raise
        raise ConfigError(
            f'model.weights: "{weights}" of {name} cannot be downloaded: {summary_of(error)}'
        ) from error
    if in_channels != 3:
        _replace_first_convolution(model, in_channels)
    return model


def vision_classes(name: str, weights: str) -> int:
    """Return the number of classes of trained weights.

    Raises:
        ConfigError: if the weights are unknown.
    """
    return len(_find_weights(name, weights).meta["categories"])


def _find_weights(name: str, weights: str) -> Any:
    known = torchvision.models.get_model_weights(name)
    if weights not in known.__members__:
        raise ConfigError(unknown(f"model.weights of {name}", weights, known.__members__))
    return known[weights]


def _replace_first_convolution(model: nn.Module, in_channels: int) -> None:
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            made = nn.Conv2d(
                in_channels,
                module.out_channels,
                module.kernel_size,  # type: ignore[arg-type]  # a tuple of two, typed as of any length
                module.stride,  # type: ignore[arg-type]  # as above
                module.padding,  # type: ignore[arg-type]  # as above
                module.dilation,  # type: ignore[arg-type]  # as above
                bias=module.bias is not None,
                padding_mode=module.padding_mode,
            )
            parent, _, attribute = path.rpartition(".")
            setattr(model.get_submodule(parent), attribute, made)
            if hasattr(model, "transform_input"):
                # GoogLeNet and Inception normalise their inputs themselves, for three channels.
                vars(model)["transform_input"] = False
            return
    raise ConfigError(
        f"model: expected a convolution to replace for images of {in_channels} channels, found none."
    )
