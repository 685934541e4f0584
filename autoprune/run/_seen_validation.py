"""What a checkpoint has seen: the note that `train` writes beside it, and the question that a search asks.

save_dense(model, "dense.safetensors", {"data": split_of(settings, data)})     # and dense.json beside it
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
from autoprune.run._spec import RunSpec
from autoprune.support.atomic import replacing, saving
from autoprune.support.files import read_json
from autoprune.support.tensorfile import write_tensors
from autoprune.zoo import checkpoint_hash


def split_of(settings: DataSettings, data: VisionData) -> dict[str, Any]:
    """Describe which images are held out: two equal descriptions name the same validation part."""
    return {"fingerprint": data.fingerprint, "val_fraction": settings.val_fraction, "seed": settings.seed}


def history_path(checkpoint: str | Path) -> Path:
    """Return where the note on a checkpoint's training lies: beside it, with the suffix .json."""
    return Path(checkpoint).with_suffix(".json")


def save_dense(model: nn.Module, path: str | Path, history: Mapping[str, Any]) -> None:
    """Write a model's weights as safetensors, and beside them the history of their training.

    The note names the file's hash, so that it vouches for these weights only; it is there before they are.

    Raises:
        CheckpointError: one of the two cannot be written.
    """
    path = Path(path)
    with saving(path, "checkpoint") as weights, replacing(history_path(path)) as noted:
        write_tensors(model.state_dict(), weights)
        note = {"sha256": checkpoint_hash(weights), **history}
        noted.write_text(json.dumps(note, indent=2) + "\n", "utf-8")


def read_history(checkpoint: str | Path) -> dict[str, Any] | None:
    """Return the note `save_dense` wrote beside a checkpoint; None if there is none of these weights."""
    try:
        note = read_json(history_path(checkpoint))
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) and note.get("sha256") == checkpoint_hash(checkpoint) else None


def require_unseen_validation(spec: RunSpec, data: VisionData) -> None:
    """Refuse to score on images that the dense model may have been trained on.

    Args:
        spec: its checkpoint holds the weights, if it names one; its [data] section may give consent.
        data: the loaded data; a validation part that came as a part of its own is trusted.

    Raises:
        DataError: the validation part is a share of the training part that nothing shows to be held out.
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
            f"{checkpoint or 'the model'} may have been trained on the validation part (no note beside it)"
        )
    raise DataError(
        f"data: {reason}, and scores on images already seen read near 100%; give a validation part of its "
        "own (a folder with val/, or loaders), or consent with data.checkpoint_saw_validation = true."
    )


def is_separate(settings: DataSettings) -> bool:
    """Return whether the validation part is one of its own, rather than a share of the training part."""
    named = DATASETS.get(settings.name or "")
    is_streamed = named is not None and named.streams
    return settings.loaders is not None or settings.validation is not None or is_streamed


def _differences(noted: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Name what differs, what a user can set first: a fingerprint differs with every setting of the data."""
    keys = sorted(wanted, key=lambda key: key == "fingerprint")
    return ", ".join(
        f"{key} {abridged(noted.get(key))} there, {abridged(wanted[key])} here"
        for key in keys
        if noted.get(key) != wanted[key]
    )
