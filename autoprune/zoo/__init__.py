"""The models that a config can name: ours for small images, torchvision's, the user's own factory.

Before: a name from a config. After: `graph.trace`, and `train` where there is no checkpoint yet.
A model of ours is one function (classes, in_channels) -> nn.Module and one row in MODELS.

    model = make_model("resnet20", classes=10, in_channels=1)
    load_checkpoint(model, "dense.safetensors")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from autoprune.errors import ConfigError, suggest
from autoprune.support.usercode import call_with_offered
from autoprune.support.userfunction import load_function
from autoprune.zoo._checkpoint import checkpoint_hash, load_checkpoint
from autoprune.zoo.densenet import densenet40
from autoprune.zoo.resnet import digits_resnet, resnet20, resnet56
from autoprune.zoo.vgg import vgg16_bn

__all__ = [
    "MODELS",
    "checkpoint_hash",
    "load_checkpoint",
    "make_model",
    "model_names",
]

MODELS: Mapping[str, Callable[[int, int], nn.Module]] = {
    "resnet20": resnet20,
    "resnet56": resnet56,
    "vgg16_bn": vgg16_bn,
    "densenet40": densenet40,
    "digits_resnet": digits_resnet,
}


def model_names() -> list[str]:
    """Return all names that `make_model` knows: ours first, then torchvision's (loads torchvision)."""
    from autoprune.zoo.torchvision_nets import vision_names

    theirs = vision_names()
    shadowed = [f"torchvision/{name}" for name in theirs if name in MODELS]
    return [*MODELS, *(name for name in theirs if name not in MODELS), *shadowed]


def make_model(name: str, classes: int, in_channels: int = 3, weights: str | None = None) -> nn.Module:
    """Build a model with fresh (or torchvision's own) weights.

    Args:
        name: a row of MODELS; a classifier of torchvision ("torchvision/NAME" for one that a row shadows);
            or "package.module:factory", called as factory(classes=..., in_channels=...) with those of the
            two that it takes.
        classes: outputs of the head.
        in_channels: channels of the images.
        weights: torchvision's name of trained weights, e.g. "DEFAULT"; downloaded by torchvision.

    Raises:
        ConfigError: unknown name, or weights that there are none of or that do not fit the classes.
    """
    if weights is not None and (":" in name or name in MODELS):
        raise ConfigError(
            f'model.weights: "{weights}" given, but {name} is not one of torchvision\'s models; '
            "use model.checkpoint for weights of your own."
        )
    if ":" in name:
        return _call_factory(name, classes, in_channels)
    if name in MODELS:
        return MODELS[name](classes, in_channels)
    from autoprune.zoo.torchvision_nets import make_vision_model, vision_names

    plain = name.removeprefix("torchvision/")
    if plain not in vision_names():
        raise ConfigError(
            f'model.name: unknown model "{name}"; ours are {", ".join(MODELS)}, and every classifier of '
            f"torchvision is known by its name.{suggest(name, model_names())}"
        )
    return make_vision_model(plain, classes, in_channels, weights)


def _call_factory(reference: str, classes: int, in_channels: int) -> nn.Module:
    factory = load_function(reference, "model.factory")
    where = f'model.factory: "{reference}"'
    offered = {"classes": classes, "num_classes": classes, "in_channels": in_channels}
    model = call_with_offered(factory, where, ConfigError, offered)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{where} returned a {type(model).__name__}, expected a torch.nn.Module.")
    return model
