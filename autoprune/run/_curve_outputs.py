"""Checks and writes the output files of curves: pictures and tables, by their suffixes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from autoprune.execution import Setting
from autoprune.reporting import CURVE_FORMATS, Curves, format_of, save_curves
from autoprune.run._checks.checks import check_search
from autoprune.run._resolving.paths import probe_writable, protected_files, require_unprotected
from autoprune.run._resolving.spec import RunSpec

Outputs = Sequence[str | os.PathLike[str]]


def setting_of(spec: RunSpec, outputs: Outputs) -> Setting:
    """Check the settings and the output files of curves, and return the setting that computes them.

    Raises:
        ConfigError: a setting cannot be used, or an output file cannot be written.
    """
    check_search(spec)
    _ = spec.rungs
    check_outputs(outputs, str(spec.search.storage), spec)
    return spec.named_setting or Setting(spec.device, threads=torch.get_num_threads())


def check_outputs(outputs: Outputs, storage: str, spec: RunSpec) -> None:
    """Check that files of curves have a known suffix, can be written, and replace no file of the study.

    Raises:
        ConfigError: one of them cannot be written.
    """
    kept = protected_files(storage, spec)
    for output in outputs:
        format_of(output, CURVE_FORMATS)
        require_unprotected(output, "--output", kept)
        probe_writable(Path(output).parent, "--output")


def saved_curves(curves: Curves, outputs: Outputs) -> Curves:
    """Write curves to files, and return them with the paths of these files."""
    return dataclasses.replace(curves, files=tuple(save_curves(curves, output) for output in outputs))
