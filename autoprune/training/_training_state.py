"""The file from which a stopped training resumes. Writes are atomic.

Example:
    save_state(path, identity, state)
    state = load_state(path, identity)      # None if there is no file yet
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autoprune.errors import CheckpointError, reason_of
from autoprune.support.atomic import saving
from autoprune.support.files import require_regular
from autoprune.support.schema import Strict, read_as
from autoprune.support.tensorfile import read_saved


class _Content(Strict):
    identity: dict[str, str]
    state: dict[str, Any]


def weights_hash(model: nn.Module) -> str:
    """Return the SHA-256 of the names and values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, leaf in model.state_dict().items():
        digest.update(f"{name}|{leaf.dtype}|{tuple(leaf.shape)}".encode())
        digest.update(leaf.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_state(path: Path, identity: Mapping[str, str], state: Mapping[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts) to `path` atomically.

    Raises:
        CheckpointError: if the file cannot be written.
    """
    _write(path, "training state", {"identity": dict(identity), "state": dict(state)})


def save_pth(path: Path, epoch: int, model: nn.Module, optimizer: Mapping[str, Any]) -> None:
    """Write the usual checkpoint of a training, which torch.load reads with weights_only=True.

    Args:
        path: the file.
        epoch: number of epochs that are done.
        model: the model as it is evaluated.
        optimizer: the state of the optimizer.

    Raises:
        CheckpointError: if the file cannot be written.
    """
    content = {"epoch": epoch, "optimizer": dict(optimizer), "state_dict": model.state_dict()}
    _write(path, "checkpoint", content)


def _write(path: Path, what: str, content: Mapping[str, Any]) -> None:
    with saving(path, what) as partial, open(partial, "wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch wraps the OSError of the file
            raise OSError(reason_of(error.__context__ or error)) from error


def load_state(path: Path, identity: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the saved state, or None if there is no file.

    Raises:
        CheckpointError: if the file is corrupt or has another identity. The message names a difference.
    """
    if not path.exists():
        return None
    try:
        require_regular(path)  # before torch.load, which would wait for a named pipe forever
        content = read_saved(path)
        read_as(_Content, content, where="state", error=CheckpointError, advice="")
        saved: Mapping[str, str] = content["identity"]
        state: dict[str, Any] = content["state"]
    except Exception as error:  # on a corrupt file the reader raises errors of any type
        raise CheckpointError(
            f"training state {path}: it is corrupt. Remove it to start that training over."
        ) from error
    for name in sorted({*saved, *identity}):
        if saved.get(name) != identity.get(name):
            raise CheckpointError(
                f"training state {path}: it belongs to another training: {name} was {saved.get(name)} and is "
                f"now {identity.get(name)}. Restore it, or remove the file to start over."
            )
    return state
