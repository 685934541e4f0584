"""Describe the CPU of this machine. Stored measurements are valid for the same description only.

Example:
    cpu_facts()      # {"cpu": "AMD EPYC 9654, cpu family 25, model 17", "cores": "2", ...}
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

import torch

_FLAGS = (
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "avx_vnni",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "asimddp",
    "sve",
    "sve2",
    "i8mm",
    "bf16",
)
"""Instruction sets by which libraries choose kernels, as Linux names them."""


def cpu_facts() -> dict[str, str]:
    """Return the CPU's name, the number of cores, its instruction sets, and the set that torch uses."""
    described = _cpuinfo()
    name = described.get("model name") or _mac_cpu() or platform.processor() or "unknown"
    # A virtual machine may report a generic name. Family and model still identify the CPU.
    numbers = [f"{key} {described[key]}" for key in ("cpu family", "model") if key in described]
    flags = (described.get("flags") or described.get("Features") or "").split()
    return {
        "cpu": ", ".join([name, *numbers]),
        "cores": str(os.cpu_count() or 1),
        "flags": " ".join(flag for flag in _FLAGS if flag in flags),
        "kernels": torch.backends.cpu.get_cpu_capability(),
    }


def _cpuinfo() -> dict[str, str]:
    """Return the entries of the first processor in Linux's /proc/cpuinfo, or {} on other systems."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    except OSError:
        return {}
    first = text.split("\n\n")[0]
    pairs = re.findall(r"^([^\t:]+?)\s*:\s*(.*)$", first, flags=re.MULTILINE)
    return {key: value.strip() for key, value in pairs}


def _mac_cpu() -> str:
    if platform.system() != "Darwin":
        return ""
    return output_of("sysctl", "-n", "machdep.cpu.brand_string")


def output_of(*command: str) -> str:
    """Return the output of a program that describes the machine, or "" if it fails or does not exist."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
