"""The trained dense model that whole searches in tests begin with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoprune import run
from autoprune.config import load_config


def trained_checkpoint(config: Mapping[str, Any], folder: Path) -> str:
    """Train the dense model of a config, and return the file of its weights."""
    path = folder / "dense.safetensors"
    run.train(load_config(config, [f"model.checkpoint='{path}'", f"output.folder='{folder}'"]))
    return str(path)
