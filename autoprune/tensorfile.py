"""Writes tensors to a safetensors file with the permissions that any other new file gets.

Before: `pipeline.history` and `export.storage` have the tensors of a model; after: `load_file` reads them.

    write_tensors({"weight": torch.zeros(3)}, Path("small.safetensors"))
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as they are, {name: dense CPU tensor}.

    safetensors makes the file readable for its owner alone, which a model shared on a server must not be:
    the mode that the umask gives is taken from an empty file made in its place.
    """
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    save_file(dict(tensors), path)
    os.chmod(path, mode)
