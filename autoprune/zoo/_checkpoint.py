"""Load a checkpoint into a model. Errors name the tensor and both shapes.

Example:
    load_checkpoint(model, "dense.safetensors")     # or a state_dict written by torch.save
    print(checkpoint_hash("dense.safetensors"))
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from autoprune.errors import CheckpointError, a_kind, reason_of, shortened, shown_value, suggest, summary_of
from autoprune.nn import ChannelSelection
from autoprune.support.files import open_regular, require_regular
from autoprune.support.tensorfile import read_saved
from autoprune.support.usercode import guarded

WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Keys under which training scripts keep the state_dict inside a larger dict."""

COUNTER = "num_batches_tracked"
"""BatchNorm's counter of batches. A checkpoint may lack it, and messages list it last."""

_LONGEST_NAME = 150

FOREIGN_SHARE = 0.25
"""If more than this share of the tensors is missing or unexpected, the file is of another architecture."""


def checkpoint_hash(path: str | Path) -> str:
    """Return the SHA-256 of the file's bytes, in hexadecimal.

    Raises:
        CheckpointError: if the file cannot be read.
    """
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"checkpoint {path}: cannot be read ({reason_of(error)}).") from error


def load_checkpoint(
    model: nn.Module, path: str | Path, find_heads: Callable[[], Collection[str]] | None = None
) -> tuple[str, ...]:
    """Copy all weights of a file into `model`, or none if any of them does not fit.

    Args:
        model: the model whose parameters and buffers are overwritten.
        path: a safetensors file, or a file that `torch.save` wrote (read with weights_only=True). It holds
            the state_dict itself, or a dict with the state_dict under one of the keys WRAPPERS. Names of
            modules around the model are removed, such as DataParallel's "module.". Channel selections that
            the file does not have stay as they are, so that a net with selections takes the weights of the
            plain net.
        find_heads: returns the names of the last layers. Those of another shape in the file keep the weights
            that they have. It is called only if a shape differs. By default no layer may differ.

    Returns:
        The names of the last layers that keep their weights.

    Raises:
        CheckpointError: if the file is missing or corrupt, or its tensors do not fit the model.
    """
    state = read_state(path)
    with guarded(f"checkpoint {path}: the model does not give its state_dict", CheckpointError):
        own = model.state_dict()
    state = _without_wrappers(state, own)
    optional = {f"{path}.index" for path, each in model.named_modules() if isinstance(each, ChannelSelection)}
    heads = () if find_heads is None else _differing(state, own, find_heads)
    if heads:
        insides = tuple(f"{head}." for head in heads)
        state = {name: tensor for name, tensor in state.items() if not name.startswith(insides)}
        optional |= {name for name in own if name.startswith(insides)}
    missing = [n for n in own if n not in state and n not in optional and not n.endswith(COUNTER)]
    unexpected = sorted((name for name in state if name not in own), key=lambda name: name.endswith(COUNTER))
    if missing or unexpected:
        foreign = max(len(missing) / len(own), len(unexpected) / max(1, len(state))) > FOREIGN_SHARE
        hint = (
            " It looks like another architecture's. Check model.name and model.checkpoint."
            if foreign
            else suggest(missing[0], unexpected)
            if missing
            else ""
        )
        raise CheckpointError(
            f"checkpoint {path}: it does not fit the model: {_listed('missing', missing)}"
            f"{'; ' if missing and unexpected else ''}{_listed('unexpected', unexpected)}.{hint}"
        )
    for name, tensor in state.items():
        _require_like(f"checkpoint {path}: {shortened(name, _LONGEST_NAME)}", tensor, own[name])
    with guarded(f"checkpoint {path}: the model cannot load it", CheckpointError):
        model.load_state_dict({**own, **state})
    return heads


def _differing(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], find_heads: Callable[[], Collection[str]]
) -> tuple[str, ...]:
    """Return the names of the last layers whose tensors have other shapes in a file than in the model."""
    names = [name for name in state if name in own and state[name].shape != own[name].shape]
    heads = find_heads() if names else ()
    return tuple(head for head in heads if any(name.startswith(f"{head}.") for name in names))


def _require_like(where: str, tensor: Tensor, own: Tensor) -> None:
    """Refuse a tensor that torch would cast silently to the dtype of the model's own.

    Another floating-point precision is allowed, and so is any dtype for BatchNorm's counter.
    """
    advice = "Save the state_dict of the trained model itself, converted by .float()."
    odd = _oddity(tensor)
    if odd:
        raise CheckpointError(f"{where} is {odd}, expected a plain tensor of {own.dtype}. {advice}")
    if tensor.shape != own.shape:
        raise CheckpointError(
            f"{where} is {tuple(tensor.shape)}, but {tuple(own.shape)} in the model. Check the number of "
            f"classes and input channels.{_hint(tensor, own)}"
        )
    if _kind(tensor.dtype) != _kind(own.dtype) and not where.endswith(COUNTER):
        raise CheckpointError(f"{where} is {tensor.dtype}, expected {own.dtype}. {advice}")
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise CheckpointError(f"{where} has values that are not finite.")


def _hint(tensor: Tensor, own: Tensor) -> str:
    """Return advice if only the number of outputs differs, as it does in the last layer for other classes."""
    if tensor.ndim == 0 or tensor.shape[1:] != own.shape[1:]:
        return ""
    return (
        f" If this is the last layer, the file is for {len(tensor)} classes instead of {len(own)}: "
        "model.new_head = true replaces the layer."
    )


def _oddity(tensor: Tensor) -> str:
    """Return the property that makes a tensor unusable as weights ("quantised"), or ""."""
    if tensor.is_quantized:
        return "quantised"
    if tensor.is_meta:
        return "on the meta device, without values"
    if tensor.is_nested:
        return "nested"
    if tensor.layout is not torch.strided:
        return str(tensor.layout)
    return "" if type(tensor) in (Tensor, nn.Parameter) else f"{a_kind(tensor)}"


def _kind(dtype: torch.dtype) -> str:
    """Return the class of dtypes that may replace each other. One-byte floats need scales, so none may."""
    if dtype.is_floating_point and dtype.itemsize > 1:
        return "floating"
    return str(dtype) if dtype.is_floating_point or dtype.is_complex or dtype is torch.bool else "integer"


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Return {name: tensor} of a checkpoint file.

    Raises:
        CheckpointError: if the file is missing or corrupt, or holds no state_dict.
    """
    _require_file(Path(path))
    try:
        if Path(path).suffix == ".safetensors":
            return load_file(path)
        content = read_saved(path)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"checkpoint {path}: it is corrupt, or holds more than tensors. Save only model.state_dict()."
        ) from error
    except PermissionError as error:
        raise CheckpointError(f"checkpoint {path}: cannot be read ({reason_of(error)}).") from error
    except Exception as error:  # on a corrupt file the readers raise errors of any type
        raise CheckpointError(f"checkpoint {path}: it is corrupt ({summary_of(error)}).") from error
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"checkpoint {path}: it holds {a_kind(content)}, expected a state_dict.")
    for name, value in content.items():
        if not (isinstance(name, str) and isinstance(value, Tensor)):
            raise CheckpointError(
                f"checkpoint {path}: its entry {shown_value(name)} is {a_kind(value)}, expected "
                'named tensors. Save the state_dict under the key "state_dict".'
            )
    return dict(content)


def _require_file(path: Path) -> None:
    if path.is_dir():
        raise CheckpointError(f"checkpoint {path}: it is a folder. Name the file of weights in it.")
    if not path.exists():
        raise CheckpointError(
            f"checkpoint {path}: there is no such file. Train one with `autoprune train CONFIG`, or name "
            "yours as model.checkpoint."
        )
    try:
        require_regular(path)
    except OSError as error:
        raise CheckpointError(f"checkpoint {path}: cannot be read ({reason_of(error)}).") from error
    if path.stat().st_size == 0:
        raise CheckpointError(f"checkpoint {path}: the file is empty.")


def _without_wrappers(state: dict[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """Remove the names of modules around the model from those of its tensors.

    They are first parts that all names share and the model lacks: "module." of DataParallel, "_orig_mod." of
    torch.compile, or an attribute of a LightningModule.
    """
    inner = state
    while inner and not any(name in own for name in inner):
        wrapper = next(iter(inner)).partition(".")[0] + "."
        if not all(name.startswith(wrapper) for name in inner):
            return state
        inner = {name.removeprefix(wrapper): tensor for name, tensor in inner.items()}
    return inner


def _listed(word: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{word} {', '.join(shortened(name, _LONGEST_NAME) for name in names[:3])}{more}"
