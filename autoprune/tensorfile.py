"""Writes tensors to a safetensors file with the permissions that any other new file gets.

Before: `pipeline` and `export.storage` have the tensors of a model; after: `load_file` reads them.

    write_tensors({"weight": torch.zeros(3)}, Path("small.safetensors"))
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def write_tensors(
    tensors: Mapping[str, Tensor], path: Path, *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors, wherever they lie and whatever memory they share.

    safetensors makes the file readable for its owner alone, which a model shared on a server must not be:
    the mode that the umask gives is taken from an empty file made in its place. Two views of one storage are
    written as what they are, two tensors.

    Args:
        tensors: by name.
        path: the file.
        metadata: texts for the file's header.

    Raises:
        OSError: the file cannot be written, for want of room or rights.
    """
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        save_file(copies, path, None if metadata is None else dict(metadata))
    except SafetensorError as error:  # no OSError, although the disk is what fails
        raise OSError(str(error)) from error
    os.chmod(path, mode)
