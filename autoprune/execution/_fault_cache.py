"""Keeps the faults of machines in a small file of the user's: {machine: {setting: fault}}.

    remember({"float32 channels_last, 1 threads": "killed by SIGABRT (signal 6)"})
    recall()        # the same again, in any process on this machine under this torch

The file saves time only: if it cannot be read it counts as empty, and nothing depends on its being written.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import TypeAdapter

from autoprune.support.atomic import replacing
from autoprune.support.cpu import cpu_facts
from autoprune.support.files import read_json

_VARIABLES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
"""Of the environment, which choose kernels."""

_SCHEMA = TypeAdapter(dict[str, dict[str, str]])

Faults = Mapping[str, str]
"""{setting: how it goes wrong, or an empty text}."""


def recall() -> Faults:
    """Return the known faults of this machine."""
    return _read().get(_machine(), {})


def remember(found: Faults) -> None:
    """Add to the known faults of this machine."""
    known = _read()
    known[_machine()] = {**known.get(_machine(), {}), **found}
    with contextlib.suppress(OSError, RuntimeError), replacing(_path()) as partial:
        partial.write_text(json.dumps(known, indent=1, sort_keys=True), "utf-8")


def _path() -> Path:
    """Return the path of the file.

    Raises:
        RuntimeError: the user has no home.
    """
    folder = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(folder) if os.path.isabs(folder) else Path.home() / ".cache"
    return base / "autoprune" / "convolutions.json"


def _read() -> dict[str, dict[str, str]]:
    try:
        return _SCHEMA.validate_python(read_json(_path()), strict=True)
    except (OSError, RuntimeError, ValueError):  # pydantic's errors are ValueErrors
        return {}


@functools.cache
def _machine() -> str:
    """Name the machine and the kernels: another CPU, torch or limit of instruction sets is another one."""
    limits = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    return json.dumps({**cpu_facts(), "torch": torch.__version__, **limits}, sort_keys=True)
