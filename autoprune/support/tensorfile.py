"""Writes tensors to a safetensors file, and reads what `torch.save` wrote without running code.

write_tensors({"weight": torch.zeros(3)}, Path("small.safetensors"))
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def write_tensors(
    tensors: Mapping[str, Tensor], path: Path, *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors, wherever they lie and whatever memory they share.

    Two views of one storage are written as what they are, two tensors.

    Args:
        tensors: by name.
        path: the file.
        metadata: texts for the file's header.

    Raises:
        OSError: the file cannot be written, for want of room or rights.
    """
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_plain(copies, path, metadata=metadata)


def write_plain(
    tensors: Mapping[str, Tensor], path: Path, *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors that share no memory, without a copy of those that lie on the CPU.

    safetensors makes the file readable for its owner alone, which a file shared on a server must not be: the
    mode that the umask gives is taken from an empty file made in its place.

    Args:
        tensors: by name.
        path: the file.
        metadata: texts for the file's header.

    Raises:
        OSError: the file cannot be written, for want of room or rights.
    """
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(plain, path, None if metadata is None else dict(metadata))
    except SafetensorError as error:  # no OSError, although the disk is what fails
        raise OSError(str(error)) from error
    os.chmod(path, mode)


def read_saved(path: str | os.PathLike[str]) -> Any:
    """Read tensors, numbers, texts, lists and dicts that `torch.save` wrote, onto the CPU.

    The file may be anyone's. torch's advice on formats that are refused stays off the terminal.

    Raises:
        pickle.UnpicklingError: the file holds anything else.
        Exception: it is damaged.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)
