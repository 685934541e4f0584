"""Batches of any structure: tensors in tuples, lists, dicts and registered dataclasses, at any depth.

The inputs of a model are a tensor (its one argument), a tuple or list (its arguments), or a dict (its keyword
arguments). So ([image, image],) is one argument that is a list.

    call_on(model, {"pixels": images, "mask": mask})      # model(pixels=images, mask=mask)
    samples_in(([image, image],))                         # 2
    moved(targets, "cuda:0")                              # the same structure on that device
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


def arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and the keyword arguments with which inputs call a model."""
    if isinstance(inputs, Mapping):
        return (), {str(name): value for name, value in inputs.items()}
    return (tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)), {}


def call_on(function: Callable[..., Any], inputs: Any) -> Any:
    """Call a model, or another function, on the inputs of a batch."""
    positional, named = arguments(inputs)
    return function(*positional, **named)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Iterate over the tensors of a structure, in order."""
    return (leaf for leaf in pytree.tree_leaves(_plain(value)) if isinstance(leaf, Tensor))


def mapped(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Return the structure with each of its tensors changed. Other values stay as they are."""
    return pytree.tree_map_only(Tensor, change, _plain(value))


def moved(value: Any, device: str | torch.device) -> Any:
    """Return the structure with its tensors on a device. Pinned memory is copied asynchronously."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    return mapped(lambda tensor: tensor.to(device, non_blocking=True), value)


def samples_in(inputs: Any) -> int:
    """Return the number of samples in the inputs of a batch: the length of the first argument.

    That is the size of the first axis of a tensor, or the number of items of a list.
    """
    positional, named = arguments(inputs)
    first = next(iter((*positional, *named.values())), None)
    while isinstance(first, Mapping | tuple) and first:
        first = next(iter(first.values())) if isinstance(first, Mapping) else first[0]
    if isinstance(first, Tensor):
        return len(first) if first.ndim else 1
    return len(first) if isinstance(first, list) else 1


def described(value: Any) -> str:
    """Return the shapes of a structure for a message: "(8, 3, 32, 32)", or "[(3, 32, 32), (3, 30, 40)]"."""
    value = _plain(value)
    if isinstance(value, Tensor):
        return str(tuple(value.shape))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {described(each)}" for name, each in value.items()) + "}"
    if isinstance(value, tuple | list):
        shown = [described(each) for each in value[:3]] + ["..."] * (len(value) > 3)
        return f"[{', '.join(shown)}]"
    return type(value).__name__


def _plain(value: Any) -> Any:
    """Return mappings that torch does not know, such as those of tokenizers, as dicts."""
    is_unknown = isinstance(value, Mapping) and type(value) not in pytree.SUPPORTED_NODES
    return dict(value) if is_unknown else value
