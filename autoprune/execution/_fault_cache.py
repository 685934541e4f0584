"""Cache the faults of machines in a file of the user: {machine: {setting: fault}}.

The file only saves time. If it cannot be read or written, nothing fails.

    remember({"float32 channels_last, 1 threads": "killed by SIGABRT (signal 6)"})
    recall()        # the same dict, in any process on this machine with this version of torch
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
"""Environment variables that choose kernels."""

_SCHEMA = TypeAdapter(dict[str, dict[str, str]])

Faults = Mapping[str, str]
"""{setting: description of the fault, or "" if the setting is right}."""


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
        RuntimeError: if the user has no home folder.
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
    """Return a text that identifies the CPU, the version of torch and the limits of instruction sets."""
    limits = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    return json.dumps({**cpu_facts(), "torch": torch.__version__, **limits}, sort_keys=True)
