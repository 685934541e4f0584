"""Reading a checkpoint of weights into a model, with errors that name the leaf and both shapes.

Before: `zoo.make_model`, which gives the model. After: everything that starts from a trained model.

    load_checkpoint(model, "dense.safetensors")     # or a state_dict written by torch.save
    print(checkpoint_hash("dense.safetensors"))
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from autoprune.errors import CheckpointError, reason_of, suggest, summary_of

WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Keys under which training scripts keep the state_dict inside a larger dict."""

COUNTER = "num_batches_tracked"
"""BatchNorm's counter of batches, which carries no weights: files may lack it, and messages name it last."""

FOREIGN_SHARE = 0.25
"""Above this share of leaves that the model or the file lacks, the file is another architecture's."""


def checkpoint_hash(path: str | Path) -> str:
    """Return the sha256 of the file's bytes, in hexadecimal.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"checkpoint {path}: cannot be read ({reason_of(error)}).") from error


def load_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Copy the weights in a file into `model`: all of them or, on any misfit, none.

    Args:
        model: its parameters and buffers are overwritten.
        path: a safetensors file, or a state_dict written by `torch.save` (read with weights_only=True), bare
            or under the key "state_dict" or "model"; "module." prefixes are dropped.

    Raises:
        CheckpointError: the file is missing or corrupt, or its leaves or shapes are not the model's.
    """
    state = _strip_prefix(read_state(path))
    own = model.state_dict()
    missing = [name for name in own if name not in state and not name.endswith(COUNTER)]
    unexpected = sorted((name for name in state if name not in own), key=lambda name: name.endswith(COUNTER))
    if missing or unexpected:
        foreign = max(len(missing) / len(own), len(unexpected) / max(1, len(state))) > FOREIGN_SHARE
        hint = (
            " It looks like another architecture's; check model.name and model.checkpoint."
            if foreign
            else suggest(missing[0], unexpected)
            if missing
            else ""
        )
        raise CheckpointError(
            f"checkpoint {path}: it is not this model's: {_listed('missing', missing)}"
            f"{'; ' if missing and unexpected else ''}{_listed('unexpected', unexpected)}.{hint}"
        )
    for name, tensor in state.items():
        if tensor.shape != own[name].shape:
            raise CheckpointError(
                f"checkpoint {path}: {name} is {tuple(tensor.shape)}, the model's is "
                f"{tuple(own[name].shape)}; check the number of classes and input channels."
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"checkpoint {path}: {name} has values that are not finite.")
    model.load_state_dict({**own, **state})


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint file, by name.

    Raises:
        CheckpointError: the file is missing, corrupt, or holds no state_dict.
    """
    _require_file(Path(path))
    try:
        if Path(path).suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"checkpoint {path}: it is corrupt, or holds more than tensors; save model.state_dict() alone."
        ) from error
    except PermissionError as error:
        raise CheckpointError(f"checkpoint {path}: cannot be read ({reason_of(error)}).") from error
    except Exception as error:  # garbage leads the readers to errors of any kind
        raise CheckpointError(f"checkpoint {path}: it is corrupt ({summary_of(error)}).") from error
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(
            f"checkpoint {path}: it holds a {type(content).__name__}, expected a state_dict."
        )
    for name, value in content.items():
        if not (isinstance(name, str) and isinstance(value, Tensor)):
            raise CheckpointError(
                f'checkpoint {path}: its entry "{name}" is no tensor with a name; keep the state_dict under '
                '"state_dict".'
            )
    return dict(content)


def _require_file(path: Path) -> None:
    if path.is_dir():
        raise CheckpointError(f"checkpoint {path}: it is a folder; name the file of weights in it.")
    if not path.is_file():
        raise CheckpointError(
            f"checkpoint {path}: there is no such file; train one with `autoprune train CONFIG`, or name "
            "yours as model.checkpoint."
        )
    if path.stat().st_size == 0:
        raise CheckpointError(f"checkpoint {path}: the file is empty.")


def _strip_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    if all(name.startswith("module.") for name in state):
        return {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return state


def _listed(word: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{word} {', '.join(names[:3])}{more}"
