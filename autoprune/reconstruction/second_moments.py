"""Second moments of the inputs of every convolution and linear layer, measured once on the dense model.

From them alone the layers of any narrowed candidate are refitted, without another look at an image.

    measured = moments(prunable, loader, images=512)
    measured.layers["layer1.0.conv1.weight"].second      # float64 [groups, patch, patch]
    save_moments(measured, Path("moments.safetensors"))
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from autoprune.atomic import saving
from autoprune.errors import CheckpointError, DataError, reason_of
from autoprune.files import require_regular
from autoprune.graph import Prunable
from autoprune.graph.capture import call, first_names, unchanged
from autoprune.reconstruction.contractions import Contraction
from autoprune.reconstruction.watch import ContractionWatch
from autoprune.schema import Strict, read_as
from autoprune.usercode import guarded

IMAGES = 512
"""Images to measure: more of them changed no accuracy of the repaired nets that were tried."""

POSITIONS = 16
"""Output positions drawn from each image."""

LIMIT_BYTES = 2 << 30
"""Memory that all moments together may take."""

FORMAT = "autoprune-moments"
"""Key of the file's metadata under which its notes stand."""


@dataclass(frozen=True, eq=False)
class LayerMoments:
    """Moments of one layer's input patches.

    Attributes:
        second: float64 [groups, patch, patch], the mean of x x^T over all rows.
        mean: float64 [groups, patch], the mean of x.
        rows: number of patches seen.
        transposed: whether the layer is a transposed convolution, with its inputs on axis 0 of the weight.
    """

    second: Tensor
    mean: Tensor
    rows: int
    transposed: bool = False

    @property
    def groups(self) -> int:
        """Groups of the layer's inputs."""
        return len(self.second)

    @property
    def covariance(self) -> Tensor:
        """The second moment about the mean, float64 [groups, patch, patch]."""
        return self.second - self.mean[:, :, None] * self.mean[:, None, :]


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments of a dense model.

    Attributes:
        layers: {name of the weight: its input's moments}.
        left_out: {name of the weight: why it has none}.
        images: number of images seen.
    """

    layers: Mapping[str, LayerMoments]
    left_out: Mapping[str, str] = field(default_factory=dict)
    images: int = 0


def moments(
    prunable: Prunable,
    data: Iterable[Any],
    *,
    images: int = IMAGES,
    positions: int = POSITIONS,
    limit_bytes: int = LIMIT_BYTES,
    seed: int = 0,
) -> Moments:
    """Run unlabelled images through the dense model and sum the second moments of all layers' inputs.

    The model is in eval mode meanwhile and is given back as it was. A layer is left out, with the reason, if
    its moments would not fit the limit (the largest go first) or if the model calls it more than once.

    Args:
        prunable: the traced dense model.
        data: batches, each the inputs alone or a tuple that begins with them.
        images: number of images to take; all if there are fewer.
        positions: output positions drawn from each image.
        limit_bytes: bound of the memory of all moments.
        seed: chooses the positions.

    Raises:
        DataError: there is no image, or the model fails on a batch.
    """
    return measure_model(
        prunable.model, data, images=images, positions=positions, limit_bytes=limit_bytes, seed=seed
    )


def measure_model(
    model: nn.Module,
    data: Iterable[Any],
    *,
    images: int = IMAGES,
    positions: int = POSITIONS,
    limit_bytes: int = LIMIT_BYTES,
    seed: int = 0,
) -> Moments:
    """Measure a model that is not traced; the arguments are those of `moments`."""
    sums = _Sums(positions, limit_bytes, torch.Generator().manual_seed(seed))
    modes = [(module, module.training) for module in model.modules()]
    seen = 0
    with unchanged(model), torch.no_grad():
        for module, _ in modes:
            module.training = False
        for inputs in first_images(data, images):
            sums.begin_batch()
            failed = guarded("moments: the model failed on a batch", DataError, memory_passes=True)
            with failed, ContractionWatch(model, sums.add):
                call(model, inputs)
            seen += len(inputs[0])
    if not seen:
        raise DataError("moments: the data gave no images; give a loader that is not empty.")
    return Moments(sums.layers(), _left_out(model, sums), seen)


def first_images(data: Iterable[Any], images: int) -> Iterator[tuple[Any, ...]]:
    """Yield the inputs of batches, as the model's positional arguments, until so many images are given."""
    left = images
    for batch in data:
        if left <= 0:
            return
        inputs = batch[0] if isinstance(batch, tuple | list) else batch
        if not isinstance(inputs, Tensor):
            raise DataError(
                f"moments: a batch holds a {type(inputs).__name__}, expected a tensor of images, or a tuple "
                "that begins with one."
            )
        yield (inputs[:left],)
        left -= len(inputs)


def _left_out(model: nn.Module, sums: _Sums) -> dict[str, str]:
    """Say why weights have no moments, in model order."""
    unseen = "no convolution or linear layer multiplies its input with it"
    names = dict.fromkeys(first_names(model).values())
    shapes = dict(model.named_parameters())
    return {
        name: sums.refused.get(name, unseen)
        for name in names
        if name in shapes and shapes[name].ndim >= 2 and name not in sums.layers()
    }


class _Sums:
    """Running sums over the patches of each layer."""

    def __init__(self, positions: int, limit_bytes: int, generator: torch.Generator) -> None:
        self.refused: dict[str, str] = {}
        self._positions = positions
        self._limit = limit_bytes
        self._generator = generator
        self._second: dict[str, Tensor] = {}
        self._mean: dict[str, Tensor] = {}
        self._rows: dict[str, int] = {}
        self._transposed: dict[str, bool] = {}
        self._in_batch: set[str] = set()

    def begin_batch(self) -> None:
        """Forget which layers the last batch has reached."""
        self._in_batch.clear()

    def add(self, name: str, contraction: Contraction, output: Tensor) -> None:
        """Add one call's patches."""
        if name in self._in_batch and name not in self.refused:
            self._refuse(name, "the model calls it more than once")
        self._in_batch.add(name)
        if name in self.refused or not self._has_room(name, contraction):
            return
        places = contraction.places(output, self._positions, self._generator)
        rows = contraction.rows(output.shape, places).transpose(0, 1).double()  # [groups, rows, patch]
        self._second[name] += rows.mT @ rows
        self._mean[name] += rows.sum(dim=1)
        self._rows[name] += rows.shape[1]

    def _has_room(self, name: str, contraction: Contraction) -> bool:
        """Make room for a layer that is seen for the first time; the largest layers give way."""
        if name in self._second:
            return True
        groups, _, patch = contraction.matrix(contraction.weight).shape
        device = contraction.weight.device
        sizes = {other: tensor.nbytes for other, tensor in self._second.items()}
        sizes[name] = 8 * groups * patch * patch
        while sum(sizes.values()) > self._limit:
            largest = max(sizes, key=sizes.__getitem__)
            megabytes = sizes.pop(largest) / 2**20
            self._refuse(largest, f"its moments take {megabytes:,.0f} MB, and all layers' exceed the limit")
        if name not in sizes:
            return False
        self._second[name] = torch.zeros(groups, patch, patch, dtype=torch.float64, device=device)
        self._mean[name] = torch.zeros(groups, patch, dtype=torch.float64, device=device)
        self._rows[name] = 0
        self._transposed[name] = contraction.transposed
        return True

    def _refuse(self, name: str, reason: str) -> None:
        self.refused[name] = reason
        for table in (self._second, self._mean, self._rows):
            table.pop(name, None)

    def layers(self) -> dict[str, LayerMoments]:
        """Return the means, on the CPU."""
        return {
            name: LayerMoments(
                (second / rows).cpu(), (self._mean[name] / rows).cpu(), rows, self._transposed[name]
            )
            for name, second in self._second.items()
            if (rows := self._rows[name])
        }


class _Notes(Strict):
    """What a file of moments says beside its tensors."""

    version: Literal[1]
    images: int
    rows: dict[str, int]
    transposed: list[str]
    left_out: dict[str, str]


def save_moments(measured: Moments, path: Path) -> None:
    """Write moments to a safetensors file, whole or not at all.

    Raises:
        CheckpointError: the file cannot be written.
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
    with saving(path, "moments") as part:
        save_file(tensors, part, {FORMAT: notes.model_dump_json()})


def load_moments(path: str | os.PathLike[str]) -> Moments:
    """Read moments that `save_moments` wrote.

    Raises:
        CheckpointError: the file is missing, damaged, or holds something else.
    """
    advice = "delete the file, and the moments are measured again."
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
        raise CheckpointError(f"moments {path}: cannot be read ({reason_of(error)}); {advice}") from error
    return Moments(layers, notes.left_out, notes.images)


def _read_layer(file: Any, name: str, notes: _Notes) -> LayerMoments:
    """Return the moments of one layer.

    Raises:
        ValueError: their shapes do not fit each other, or they are of another type.
        SafetensorError: the file lacks them.
    """
    second, mean = (file.get_tensor(f"{key}:{name}") for key in ("second", "mean"))
    if second.ndim != 3 or mean.shape != second.shape[:2] or second.shape[1] != second.shape[2]:
        raise ValueError(f"{name}: shapes {tuple(second.shape)} and {tuple(mean.shape)} are no moments")
    if {second.dtype, mean.dtype} != {torch.float64}:
        raise ValueError(f"{name}: {second.dtype}, expected torch.float64")
    return LayerMoments(second, mean, notes.rows[name], name in notes.transposed)
