"""Models by name: nets for small images, those of torchvision and timm, and a user's own factory.

    model = make_model("resnet20", classes=10, in_channels=1)
    load_checkpoint(model, "dense.safetensors")

To add a model, write one function (classes, in_channels) -> nn.Module and one row in MODELS.

A model of your own needs no row. A config names its function, `factory = "mypkg.nets:tiny"` in [model]. The
function is called with those of `classes` and `in_channels` that it accepts:

    from torch import nn

    def tiny(classes: int, in_channels: int) -> nn.Module:
        features = [nn.Conv2d(in_channels, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU()]
        return nn.Sequential(*features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import nn

from autoprune.errors import ConfigError, a_kind, suggest
from autoprune.support.rows import Row
from autoprune.support.usercode import call_with_offered
from autoprune.support.userfunction import load_function
from autoprune.zoo._checkpoint import checkpoint_hash, load_checkpoint
from autoprune.zoo._new_head import find_heads, replace_heads
from autoprune.zoo.densenet import densenet40
from autoprune.zoo.preresnet import preresnet20, preresnet56, preresnet164
from autoprune.zoo.resnet import digits_resnet, resnet20, resnet56
from autoprune.zoo.timm_nets import PREFIX, make_timm_model, timm_classes
from autoprune.zoo.vgg import vgg16_bn, vgg16_bn_half

__all__ = [
    "MODELS",
    "PREFIX",
    "ModelSpec",
    "checkpoint_hash",
    "find_heads",
    "load_checkpoint",
    "make_model",
    "model_names",
    "replace_heads",
]


@dataclass(frozen=True)
class ModelSpec(Row):
    """A row of MODELS: a function (classes, in_channels) that makes a model with new weights."""

    make: Callable[[int, int], nn.Module]


MODELS: Mapping[str, ModelSpec] = {
    "resnet20": ModelSpec(resnet20, about="ResNet-20 of the CIFAR family, for small images"),
    "resnet56": ModelSpec(resnet56, about="ResNet-56 of the CIFAR family, for small images"),
    "vgg16_bn": ModelSpec(vgg16_bn, about="VGG-16 with BatchNorm for small images"),
    "vgg16_bn_half": ModelSpec(vgg16_bn_half, about="vgg16_bn with half of the channels in every layer"),
    "densenet40": ModelSpec(densenet40, about="DenseNet-40 for small images"),
    "densenet40_select": ModelSpec(
        partial(densenet40, select=True), about="densenet40 with channel selection before each BatchNorm"
    ),
    "preresnet20": ModelSpec(preresnet20, about="pre-activation ResNet-20 for small images"),
    "preresnet20_select": ModelSpec(
        partial(preresnet20, select=True), about="preresnet20 with channel selection before each BatchNorm"
    ),
    "preresnet56": ModelSpec(preresnet56, about="pre-activation ResNet-56 for small images"),
    "preresnet56_select": ModelSpec(
        partial(preresnet56, select=True), about="preresnet56 with channel selection before each BatchNorm"
    ),
    "preresnet164": ModelSpec(preresnet164, about="pre-activation ResNet-164 for small images"),
    "preresnet164_select": ModelSpec(
        partial(preresnet164, select=True), about="preresnet164 with channel selection before each BatchNorm"
    ),
    "digits_resnet": ModelSpec(digits_resnet, about="a small residual network for 8x8 digits"),
}


def model_names() -> list[str]:
    """Return all names that `make_model` accepts: the rows of MODELS, then torchvision's classifiers."""
    from autoprune.zoo.torchvision_nets import vision_names

    theirs = vision_names()
    shadowed = [f"torchvision/{name}" for name in theirs if name in MODELS]
    return [*MODELS, *(name for name in theirs if name not in MODELS), *shadowed]


def make_model(
    name: str, classes: int, in_channels: int = 3, weights: str | None = None, *, any_classes: bool = False
) -> nn.Module:
    """Build a model with new weights, or with trained weights of torchvision or timm.

    Args:
        name: a row of MODELS, a classifier of torchvision ("torchvision/NAME" if MODELS has the same name),
            "timm/NAME", or "package.module:factory". A factory is called with those of classes=,
            num_classes= and in_channels= that it accepts.
        classes: number of outputs.
        in_channels: number of channels of the images.
        weights: name of trained weights, such as "DEFAULT", which torchvision or timm downloads.
        any_classes: whether trained weights may be for another number of classes. The model then has theirs.

    Raises:
        ConfigError: if the name or the weights are unknown, or the weights have another number of classes.
    """
    if weights is not None and (":" in name or name in MODELS):
        raise ConfigError(
            f'model.weights: "{weights}" given, but {name} is no model of torchvision or timm. '
            "Use model.checkpoint for weights of your own."
        )
    if ":" in name:
        return _call_factory(name, classes, in_channels)
    if name in MODELS:
        return MODELS[name].make(classes, in_channels)
    from autoprune.zoo.torchvision_nets import make_vision_model, vision_classes, vision_names

    plain = name.removeprefix("torchvision/").removeprefix(PREFIX)
    is_timm = name.startswith(PREFIX)
    if not is_timm and plain not in vision_names():
        raise ConfigError(
            f'model.name: unknown model "{name}". Expected one of {", ".join(MODELS)}, or the name of a '
            f"torchvision classifier, or {PREFIX}NAME.{suggest(name, model_names())}"
        )
    if weights is not None:
        trained_for = (timm_classes if is_timm else vision_classes)(plain, weights)
        if trained_for != classes and not any_classes:
            raise ConfigError(
                f'model.weights: "{weights}" of {name} is for {trained_for} classes, the data have '
                f"{classes}. Replace the last layer with model.new_head = true, leave model.weights out and "
                "train, or give a model.checkpoint of your own."
            )
        classes = trained_for
    return (make_timm_model if is_timm else make_vision_model)(plain, classes, in_channels, weights)


def _call_factory(reference: str, classes: int, in_channels: int) -> nn.Module:
    factory = load_function(reference, "model.factory")
    where = f'model.factory: "{reference}"'
    offered = {"classes": classes, "num_classes": classes, "in_channels": in_channels}
    model = call_with_offered(factory, where, ConfigError, offered)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{where} returned {a_kind(model)}, expected a torch.nn.Module.")
    return model
