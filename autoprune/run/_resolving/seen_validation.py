"""Ensures that a search does not score on images that its checkpoint was trained on.

`train` writes a note next to each checkpoint, which describes the held-out images. A search reads it.

Example:
    save_dense(model, "dense.safetensors", {"data": split_of(settings, data)})     # also writes dense.json
    require_unseen_validation(spec, data)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from autoprune.config.settings import DataSettings
from autoprune.data import DATASETS, VisionData
from autoprune.errors import DataError, abridged
from autoprune.run._resolving.spec import RunSpec
from autoprune.support.atomic import replacing, saving
from autoprune.support.files import read_json
from autoprune.support.tensorfile import write_tensors
from autoprune.zoo import checkpoint_hash


def split_of(settings: DataSettings, data: VisionData) -> dict[str, Any]:
    """Return a description of the held-out images. Equal descriptions mean equal validation parts."""
    return {"fingerprint": data.fingerprint, "val_fraction": settings.val_fraction, "seed": settings.seed}


def history_path(checkpoint: str | Path) -> Path:
    """Return the path of the note on a checkpoint's training: the same path with the suffix .json."""
    return Path(checkpoint).with_suffix(".json")


def save_dense(model: nn.Module, path: str | Path, history: Mapping[str, Any]) -> None:
    """Write a model's weights as safetensors, and the history of their training to a note next to them.

    The note includes the hash of the weights, so it is valid for these weights only.

    Raises:
        CheckpointError: one of the two cannot be written.
    """
    path = Path(path)
    with saving(path, "checkpoint") as weights, replacing(history_path(path)) as noted:
        write_tensors(model.state_dict(), weights)
        note = {"sha256": checkpoint_hash(weights), **history}
        noted.write_text(json.dumps(note, indent=2) + "\n", "utf-8")


def read_history(checkpoint: str | Path) -> dict[str, Any] | None:
    """Return the note of `save_dense` on a checkpoint, or None if there is none for these weights."""
    try:
        note = read_json(history_path(checkpoint))
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) and note.get("sha256") == checkpoint_hash(checkpoint) else None


def require_unseen_validation(spec: RunSpec, data: VisionData) -> None:
    """Refuse a validation part on whose images the dense model may have been trained.

    A validation part that is separate from the training part is accepted. A share of the training part needs
    a note that shows it was held out, or the user's consent.

    Args:
        spec: the settings, with the checkpoint and with data.checkpoint_saw_validation.
        data: the loaded data.

    Raises:
        DataError: nothing shows that the validation part was held out.
    """
    if is_separate(spec.data) or spec.data.checkpoint_saw_validation:
        return
    checkpoint = spec.model.checkpoint
    note = read_history(checkpoint) if checkpoint is not None else None
    wanted = split_of(spec.data, data)
    if note is not None and note.get("data") == wanted:
        return
    if note is not None and isinstance(note.get("data"), dict):
        differs = _differences(note["data"], wanted)
        reason = f"{checkpoint} held out another validation part ({differs})"
    else:
        reason = (
            f"{checkpoint or 'the model'} may have been trained on the validation part (no note next to it)"
        )
    raise DataError(
        f"data: {reason}, and scores on training images are near 100%. Give a separate validation part (a "
        "folder with val/, or loaders), or consent with data.checkpoint_saw_validation = true."
    )


def is_separate(settings: DataSettings) -> bool:
    """Return whether the validation part is separate, rather than a share of the training part."""
    named = DATASETS.get(settings.name or "")
    is_streamed = named is not None and named.streams
    return settings.loaders is not None or settings.validation is not None or is_streamed


def _differences(noted: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Return the differences as text. The fingerprint comes last, because it differs with every other one."""
    keys = sorted(wanted, key=lambda key: key == "fingerprint")
    return ", ".join(
        f"{key} {abridged(noted.get(key))} there, {abridged(wanted[key])} here"
        for key in keys
        if noted.get(key) != wanted[key]
    )
