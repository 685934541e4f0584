"""Measure the second moments of the inputs of every convolution and linear layer, once on the dense model.

The layers of any narrowed candidate can be refitted from these moments alone, without more images.

Example:
    measured = moments(prunable, loader, images=512)
    measured.layers["layer1.0.conv1.weight"].second      # float64 [groups, patch, patch]
    save_moments(measured, Path("moments.safetensors"))
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors
import torch
from torch import Tensor, nn

from autoprune.errors import CheckpointError, DataError, a_kind, reason_of
from autoprune.graph import ChannelGroup, Prunable
from autoprune.graph.capture import first_names, unchanged
from autoprune.progress import Watch, watching
from autoprune.reconstruction._layer_moments import LayerMoments
from autoprune.reconstruction._sums import UNSEEN, Sums
from autoprune.reconstruction._watch import ContractionWatch
from autoprune.support.atomic import saving
from autoprune.support.events import Counted
from autoprune.support.files import require_regular
from autoprune.support.modes import set_training
from autoprune.support.schema import Strict, read_as
from autoprune.support.structures import call_on, moved, samples_in, tensors_in
from autoprune.support.tensorfile import write_plain
from autoprune.support.usercode import guarded

IMAGES = 512
"""Number of images to measure. More images did not change the accuracy of repaired models in experiments."""

POSITIONS = 16
"""Number of output positions drawn from each image."""

LIMIT_BYTES = 2 << 30
"""Largest memory of all moments together."""

_log = logging.getLogger(__name__)

FORMAT = "autoprune-moments"
"""Metadata key of the file under which its notes are stored."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments of a dense model.

    Attributes:
        layers: {name of the weight: moments of its layer's input}.
        left_out: {name of the weight: why its layer has no moments}.
        images: number of images seen.
    """

    layers: Mapping[str, LayerMoments]
    left_out: Mapping[str, str] = field(default_factory=dict)
    images: int = 0

    def to(self, device: torch.device | str) -> Moments:
        """Return the moments on a device, which must support float64."""
        device = torch.device(device)
        return replace(self, layers={name: layer.to(device) for name, layer in self.layers.items()})


def moments(
    prunable: Prunable,
    data: Iterable[Any],
    *,
    images: int = IMAGES,
    positions: int = POSITIONS,
    limit_bytes: int = LIMIT_BYTES,
    seed: int = 0,
    watch: Watch = True,
) -> Moments:
    """Run unlabelled images through the dense model and sum the second moments of all layers' inputs.

    The model runs in eval mode on its own device and is restored afterwards. The sums are float64 on the same
    device, or on the CPU instead of MPS, which has no float64.

    If the moments would exceed the limit, those of the largest layers are pooled first. A layer with a
    kernel, or with a flattened feature map as its input, then has the second moment of its channels only,
    pooled over the positions in a patch. It is 81 times smaller for a 3 x 3 kernel, and the refit mixes
    channels in the same way at all positions. Blocks of single channels would be as small, but would hold no
    covariance between removed and kept channels. A layer that is still too large, or that the model calls
    more than once, is left out with the reason. The size depends only on the number of inputs, so fewer
    positions would not help.

    Args:
        prunable: the traced dense model.
        data: batches, each the inputs alone or a tuple that begins with them.
        images: number of images to take, or all if there are fewer.
        positions: number of output positions drawn from each image.
        limit_bytes: largest memory of all moments.
        seed: seed of the positions.
        watch: called with events that report the progress. True shows them if there is a terminal or a
            notebook, and None or False shows nothing.

    Returns:
        The moments of each layer's inputs, [inputs, inputs] in float64, and the reasons of missing ones.

    Raises:
        DataError: there is no image, the model fails on a batch, or the inputs of a layer are not finite.

    Example:
        measured = autoprune.moments(prunable, [images], images=256)
    """
    with watching(watch) as show:
        return measure_model(
            prunable.model,
            data,
            images=images,
            positions=positions,
            limit_bytes=limit_bytes,
            seed=seed,
            groups=prunable.groups,
            on_images=lambda seen: show(Counted("moments", min(seen, images), images)),
        )


def measure_model(
    model: nn.Module,
    data: Iterable[Any],
    *,
    images: int = IMAGES,
    positions: int = POSITIONS,
    limit_bytes: int = LIMIT_BYTES,
    seed: int = 0,
    groups: Sequence[ChannelGroup] = (),
    on_images: Callable[[int], None] | None = None,
) -> Moments:
    """Measure a model. The arguments are those of `moments`, and the model's channel groups.

    The groups show which linear layers read flattened feature maps. Without them the moments of these layers
    cannot be pooled. `on_images` is called after each batch with the number of images so far.
    """
    sums = Sums(positions, limit_bytes, torch.Generator().manual_seed(seed), _flattened(groups))
    seen = 0
    with unchanged(model), torch.no_grad():
        set_training(model, False)
        for inputs in first_images(data, images):
            sums.begin_batch()
            failed = guarded("moments: the model failed on a batch", DataError, memory_passes=True)
            with failed:
                given = on_device_of(model, inputs)
                with ContractionWatch(model, sums.add):
                    call_on(model, given)
            seen += samples_in(inputs)
            if on_images is not None:
                on_images(seen)
    if not seen:
        raise DataError("moments: the data gave no images. Give a loader that is not empty.")
    layers = sums.layers()
    for name, layer in layers.items():
        # If the diagonal is finite, all other products are.
        if not bool(layer.second.diagonal(dim1=1, dim2=2).isfinite().all()):
            raise DataError(
                f"moments: the inputs of {name} are not finite. Check the images and the weights."
            )
        if layer.span > 1:
            _log.info("moments: %s: pooled over the %d positions of a patch to save memory", name, layer.span)
    for name, reason in sums.too_large.items():
        _log.warning("moments: %s is left out: %s", name, reason)
    return Moments(layers, _left_out(model, layers, sums), seen)


def on_device_of(model: nn.Module, inputs: Any) -> Any:
    """Return the inputs on the device of a model's parameters."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    return moved(inputs, device)


def _flattened(groups: Sequence[ChannelGroup]) -> dict[str, int]:
    """Return {weight: positions of a channel} of layers that read each channel at consecutive positions."""
    spans: dict[str, set[int]] = {}
    for member in (member for group in groups for member in group.members if member.axis == 1):
        first, span = member.index[:, :1], member.index.shape[1]
        # A reshape can split the inputs into channels and positions only if each channel has `span` inputs in
        # a row, from a multiple of `span` on, as after a flatten.
        aligned = np.array_equal(member.index, first + np.arange(span)) and not (first % span).any()
        spans.setdefault(member.parameter, set()).add(span if aligned else 1)
    return {name: found.pop() for name, found in spans.items() if len(found) == 1}


def first_images(data: Iterable[Any], images: int) -> Iterator[Any]:
    """Iterate over the inputs of batches up to a number of images. Batches of other inputs stay whole."""
    left = images
    for batch in data:
        if left <= 0:
            return
        inputs = batch[0] if isinstance(batch, tuple | list) else batch
        if next(tensors_in(inputs), None) is None:
            raise DataError(
                f"moments: got a batch with {a_kind(inputs)}, expected a tensor of images, or a "
                "tuple that begins with the inputs of the model."
            )
        yield inputs[:left] if isinstance(inputs, Tensor) else inputs
        left -= samples_in(inputs)


def _left_out(model: nn.Module, layers: Mapping[str, LayerMoments], sums: Sums) -> dict[str, str]:
    """Return why weights have no moments, in model order."""
    shapes = dict(model.named_parameters())
    return {
        name: sums.refused.get(name, UNSEEN)
        for name in dict.fromkeys(first_names(model).values())
        if name in shapes and shapes[name].ndim >= 2 and name not in layers
    }


class _Notes(Strict):
    """The metadata of a file of moments."""

    version: Literal[1]
    images: int
    rows: dict[str, int]
    transposed: list[str]
    left_out: dict[str, str]


def save_moments(measured: Moments, path: str | os.PathLike[str]) -> None:
    """Write moments to a safetensors file, which appears only when it is complete.

    Args:
        measured: the moments.
        path: the file.

    Raises:
        CheckpointError: the file cannot be written.

    Example:
        autoprune.save_moments(measured, "moments.safetensors")
    """
    tensors = {f"second:{name}": layer.second for name, layer in measured.layers.items()}
    tensors |= {f"mean:{name}": layer.mean for name, layer in measured.layers.items()}
    notes = _Notes(
        version=1,
        images=measured.images,
        rows={name: layer.rows for name, layer in measured.layers.items()},
        transposed=[name for name, layer in measured.layers.items() if layer.transposed],
        left_out=dict(measured.left_out),
    )
    with saving(Path(path), "moments") as part:
        write_plain(tensors, part, metadata={FORMAT: notes.model_dump_json()})


def load_moments(path: str | os.PathLike[str]) -> Moments:
    """Read moments that `save_moments` wrote.

    Args:
        path: the file.

    Returns:
        The same moments.

    Raises:
        CheckpointError: the file is missing, damaged, or not a file of moments.

    Example:
        measured = autoprune.load_moments("moments.safetensors")
    """
    advice = "Delete the file to measure the moments again."
    try:
        require_regular(path)
        with safetensors.safe_open(path, "pt") as file:
            notes = read_as(
                _Notes,
                json.loads((file.metadata() or {}).get(FORMAT, "null")),
                where=f"moments {path}",
                error=CheckpointError,
                advice=advice,
            )
            layers = {name: _read_layer(file, name, notes) for name in notes.rows}
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"moments {path}: cannot be read ({reason_of(error)}). {advice}") from error
    return Moments(layers, notes.left_out, notes.images)


def _read_layer(file: Any, name: str, notes: _Notes) -> LayerMoments:
    """Return the moments of one layer.

    Raises:
        ValueError: the shapes of the moments do not fit each other, or their type is wrong.
        SafetensorError: the file does not contain them.
    """
    # The tensors are views of the mapped file, so they would change if the file is overwritten. Hence copies.
    second, mean = (file.get_tensor(f"{key}:{name}").clone() for key in ("second", "mean"))
    square = second.ndim == 3 and 0 < second.shape[1] == second.shape[2]
    if not square or mean.ndim != 2 or len(mean) != len(second) or mean.shape[1] % second.shape[1]:
        raise ValueError(f"{name}: shapes {tuple(second.shape)} and {tuple(mean.shape)} do not fit moments")
    if {second.dtype, mean.dtype} != {torch.float64}:
        raise ValueError(f"{name}: got {second.dtype}, expected torch.float64")
    return LayerMoments(second, mean, notes.rows[name], name in notes.transposed)
