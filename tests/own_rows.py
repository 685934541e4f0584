"""The examples in docstrings that show a choice of the user's own, as modules that a config can name."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import autoprune
from autoprune.run import SearchResult, Watcher, silent


def tiny_search(
    rungs: Sequence[str] = ("calibrate",), watch: Watcher = silent, **search: Any
) -> SearchResult:
    """Search a net of three convolutions on noise, in about a second."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    images = TensorDataset(torch.randn(32, 1, 8, 8), torch.arange(32) % 3)
    config: dict[str, Any] = {
        "budget": {"flops": "50%"},
        "search": {
            "trials": 2,
            "study": "own",
            "storage": "journal:///own.log",
            "sampler": "random",
            "setting": "float32 contiguous",
            "warm_starts": [],
        },
        "score": {"rungs": list(rungs)},
        "race": {"entrants": 1},
    }
    config["search"].update(search)
    parts = (DataLoader(images, 16), DataLoader(images, 16))
    return autoprune.search(model, parts, config, watch=watch)


def install_example(package: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write the example that follows "of your own" in a docstring to a module, and return the module's name.

    The folder becomes the current one, from which a config's functions are imported.
    """
    name = f"own_{package.__name__.replace('.', '_')}"
    (folder / f"{name}.py").write_text(example_of(package))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def example_of(package: ModuleType) -> str:
    """Return the indented block behind "of your own" in the docstring of a package."""
    _, found, after = str(package.__doc__).partition("of your own")
    assert found, f"{package.__name__} does not say how a user adds a row"
    _, _, block = after.partition(":\n\n")
    lines = []
    for line in block.splitlines():
        if line and not line.startswith("    "):
            break
        lines.append(line)
    return textwrap.dedent("\n".join(lines))
