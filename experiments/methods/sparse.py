"""Sparse models that several variants of an experiment begin with, trained once.

path = sparse_checkpoint(config_of("preresnet20", "sparsify.strength=[1e-4, 1e-3]"), Path("runs/methods/x"))
chosen_strength(path)
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from autoprune import run
from autoprune.config.settings import RunConfig
from autoprune.run._measuring.sparse import sparsified
from autoprune.run._resolving.resolve import resolve
from autoprune.run._resolving.seen_validation import read_history
from experiments.methods.pruned_rows import train_missing


def sparse_checkpoint(settings: RunConfig, folder: Path) -> Path:
    """Train the dense model of a config under the penalty of [sparsify], unless its file is there.

    Args:
        settings: name the dense model, which is trained first if its checkpoint is missing.
        folder: for the sparse model and the histograms of its scales. A stopped training goes on from here.

    Returns:
        The file of the sparse model.
    """
    path = folder / "sparse.safetensors"
    if not path.exists():
        train_missing(settings)
        output = dataclasses.replace(settings.output, folder=str(folder))
        spec = run.settle(dataclasses.replace(settings, output=output))
        folder.mkdir(parents=True, exist_ok=True)
        sparsified(resolve(spec, None, print, lambda problem, spec, watch: None)[0])
    return path


def chosen_strength(checkpoint: Path) -> float:
    """Return the strength of the penalty under which a sparse model was trained."""
    note = read_history(checkpoint)
    assert note is not None
    return float(note["facts"]["strength"])


def copy_histograms(folder: Path, to: Path) -> None:
    """Copy picture and table of the scales of a sparse model."""
    for suffix in (".png", ".csv"):
        shutil.copy(folder / f"sparsify{suffix}", to.with_suffix(suffix))
