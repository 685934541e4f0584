"""Masks of a model's parameters, and the file that keeps them.

Example:
    masks = Masks({"conv.weight": torch.rand(8, 3, 3, 3) > 0.5})
    masks.apply(model)
    save_masks(masks, Path("masks.safetensors"))
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from autoprune.errors import CheckpointError, MaskError, reason_of, suggest
from autoprune.support.atomic import saving
from autoprune.support.tensorfile import write_tensors


@dataclass(frozen=True, eq=False)
class Masks(Mapping[str, Tensor]):
    """A mapping {parameter: mask}. Parameters that it does not name are dense.

    Attributes:
        keep: {parameter: bool tensor of its shape}, True for the weights that stay.

    Raises:
        MaskError: a mask is no bool tensor.
    """

    keep: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        """Check the type of each mask."""
        for name, mask in self.keep.items():
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
                raise MaskError(f"{name}: got a mask that is not a bool tensor. Pass weights != 0.")

    def __getitem__(self, name: str) -> Tensor:
        """Return the mask of a parameter."""
        return self.keep[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the masked parameters."""
        return iter(self.keep)

    def __len__(self) -> int:
        """Return the number of masked parameters."""
        return len(self.keep)

    def __eq__(self, other: object) -> bool:
        """Compare by content."""
        return isinstance(other, Masks) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        """Hash by content."""
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        """Return the number of masked parameters and the sparsity in one line."""
        return f"<Masks of {len(self)} parameters, {self.sparsity:.1%} of their weights are zero>"

    @property
    def sparsity(self) -> float:
        """Share of zeros among the weights of the masked parameters."""
        total = sum(mask.numel() for mask in self.values())
        return 1 - sum(int(mask.sum()) for mask in self.values()) / total if total else 0.0

    @property
    def fingerprint(self) -> str:
        """A SHA-256 of all masks."""
        digest = hashlib.sha256()
        for name, mask in sorted(self.items()):
            digest.update(f"{name}|{tuple(mask.shape)}".encode())
            digest.update(mask.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def placed(self, model: nn.Module) -> list[tuple[nn.Parameter, Tensor]]:
        """Return each masked parameter of a model with the weights to be zero, on its device.

        Raises:
            MaskError: the masks are of another model.
        """
        parameters = dict(model.named_parameters(remove_duplicate=False))
        pairs = []
        for name, mask in self.items():
            parameter = parameters.get(name)
            if parameter is None:
                raise MaskError(
                    f"{name}: the masks are of another model: {type(model).__name__} has no such parameter."
                    f"{suggest(name, parameters)} Make masks for this model."
                )
            if parameter.shape != mask.shape:
                raise MaskError(
                    f"{name}: the masks are of another model: got a mask {list(mask.shape)}, expected "
                    f"{list(parameter.shape)}. Make masks for this model."
                )
            zero = torch.empty_like(parameter, dtype=torch.bool)  # in the parameter's memory layout
            pairs.append((parameter, zero.copy_(~mask)))
        return pairs

    @torch.no_grad()
    def apply(self, model: nn.Module) -> None:
        """Set the masked weights of a model to zero, in place.

        Raises:
            MaskError: the masks are of another model. Nothing was changed.
        """
        for parameter, zero in self.placed(model):
            parameter.masked_fill_(zero, 0)

    def applied(self, model: nn.Module) -> nn.Module:
        """Return a copy of a model with the masked weights at zero.

        Raises:
            MaskError: the masks are of another model.
        """
        masked = copy.deepcopy(model)
        self.apply(masked)
        return masked

    def also(self, other: Mapping[str, Tensor]) -> Masks:
        """Return masks with the zeros of both."""
        both = {**self.keep, **other}
        return Masks({name: mask & self.keep.get(name, mask).to(mask.device) for name, mask in both.items()})


def save_masks(masks: Masks, path: Path) -> None:
    """Write masks to a safetensors file, whole or not at all.

    Raises:
        CheckpointError: the file cannot be written.
    """
    with saving(path, "masks") as partial:
        write_tensors(dict(masks), partial)


def load_masks(path: Path) -> Masks:
    """Read masks from a file that `save_masks` wrote.

    Raises:
        CheckpointError: the file is missing or corrupt, or holds no masks.
    """
    try:
        return Masks(load_file(path))
    except OSError as error:
        raise CheckpointError(f"masks {path}: cannot be read ({reason_of(error)}).") from error
    except Exception as error:  # garbage leads the reader to errors of any kind
        raise CheckpointError(
            f"masks {path}: expected masks written by save_masks, got another file."
        ) from error
