"""Write tensors to safetensors files, and read files of `torch.save` without running code from them.

Example:
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
    """Write tensors on any device, which may share memory. Each of them is copied first.

    Args:
        tensors: the tensors by name.
        path: the file.
        metadata: texts for the file's header.

    Raises:
        OSError: if the file cannot be written.
    """
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_plain(copies, path, metadata=metadata)


def write_plain(
    tensors: Mapping[str, Tensor], path: Path, *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors that share no memory, without copying those on the CPU.

    Args:
        tensors: the tensors by name.
        path: the file.
        metadata: texts for the file's header.

    Raises:
        OSError: if the file cannot be written.
    """
    # safetensors makes files that only their owner can read. An empty file gets the mode of the umask.
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(plain, path, None if metadata is None else dict(metadata))
    except SafetensorError as error:  # safetensors raises it instead of an OSError if the disk fails
        raise OSError(str(error)) from error
    os.chmod(path, mode)


def read_saved(path: str | os.PathLike[str]) -> Any:
    """Read tensors, numbers, texts, lists and dicts that `torch.save` wrote, to the CPU.

    The file may come from anyone. torch's warnings are not printed.

    Raises:
        pickle.UnpicklingError: if the file holds other objects.
        Exception: if the file is damaged.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)
