"""The file from which a training goes on: written whole or not at all, after every epoch.

Before: `train.loop` gathers the state. After: the same training, in another process, reads it and continues.

    save_state(path, identity, state)
    state = load_state(path, identity)      # None where there is no file yet
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
    """Return the sha256 of all parameters and buffers, by name, whatever file they came from."""
    digest = hashlib.sha256()
    for name, leaf in model.state_dict().items():
        digest.update(f"{name}|{leaf.dtype}|{tuple(leaf.shape)}".encode())
        digest.update(leaf.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_state(path: Path, identity: Mapping[str, str], state: Mapping[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts) to `path`, atomically.

    Raises:
        CheckpointError: it cannot be written there.
    """
    with saving(path, "training state") as partial, open(partial, "wb") as file:
        try:
            torch.save({"identity": dict(identity), "state": dict(state)}, file)
        except RuntimeError as error:  # which hides the file's OSError
            raise OSError(reason_of(error.__context__ or error)) from error


def load_state(path: Path, identity: Mapping[str, str]) -> dict[str, Any] | None:
    """Read the state back, or return None where there is no file.

    Raises:
        CheckpointError: the file is corrupt, or of a training with another identity (the first difference is
            named).
    """
    if not path.exists():
        return None
    try:
        require_regular(path)
        content = read_saved(path)
        read_as(_Content, content, where="state", error=CheckpointError, advice="")
        saved: Mapping[str, str] = content["identity"]
        state: dict[str, Any] = content["state"]
    except Exception as error:  # garbage leads the reader to errors of any kind
        raise CheckpointError(
            f"training state {path}: it is corrupt; remove it to start that training over."
        ) from error
    for name in sorted({*saved, *identity}):
        if saved.get(name) != identity.get(name):
            raise CheckpointError(
                f"training state {path}: it is of another training: {name} was {saved.get(name)}, now it is "
                f"{identity.get(name)}; restore that, or remove the file to start over."
            )
    return state
