"""Own the fingerprint of the device and the runtime that a latency was measured on.

Before: a LatencySetting; after: tables and studies store it, and refuse to predict for another device.

    fingerprint = device_fingerprint(LatencySetting("onnx"))
    fingerprint.facts        # {"cpu": "AMD EPYC 9654", "cores": "2", ..., "onnxruntime": "1.20.0"}
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from autoprune.latency.setting import LatencySetting

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
"""Instruction sets that kernels are chosen by, as Linux names them."""


@dataclass(frozen=True)
class Fingerprint:
    """What tells one device and runtime from another, in words."""

    facts: Mapping[str, str]

    def differences(self, other: Fingerprint, there: str) -> list[str]:
        """Say what is not the same here and there, e.g. "cores: 2 here, 8 in the table"."""
        names = [*self.facts, *(name for name in other.facts if name not in self.facts)]
        return [
            f"{name}: {self.facts.get(name, 'none')} here, {other.facts.get(name, 'none')} {there}"
            for name in names
            if self.facts.get(name) != other.facts.get(name)
        ]


def device_fingerprint(setting: LatencySetting) -> Fingerprint:
    """Return the fingerprint of what the setting's probe measures on.

    A command times on a device of its own, which only the command itself can tell.
    """
    if setting.command is not None:
        return Fingerprint({"command": setting.command})
    facts = {"system": f"{platform.system()} {platform.machine()}", **_cpu_facts()}
    facts["torch"] = torch.__version__
    if setting.probe == "onnx":
        import onnxruntime  # type: ignore[import-untyped]  # the package ships no types

        facts["onnxruntime"] = onnxruntime.__version__
    if setting.on_cuda:
        facts |= _gpu_facts(torch.device(setting.device))
    return Fingerprint(facts)


def _cpu_facts() -> dict[str, str]:
    described = _cpuinfo()
    name = described.get("model name") or _mac_cpu() or platform.processor() or "unknown"
    # A virtual machine may hide the name behind a general one; family and model still tell.
    numbers = [f"{key} {described[key]}" for key in ("cpu family", "model") if key in described]
    flags = (described.get("flags") or described.get("Features") or "").split()
    return {
        "cpu": ", ".join([name, *numbers]),
        "cores": str(os.cpu_count() or 1),
        "flags": " ".join(flag for flag in _FLAGS if flag in flags),
        "kernels": torch.backends.cpu.get_cpu_capability(),
    }


def _cpuinfo() -> dict[str, str]:
    """Read what Linux says of its first processor; empty elsewhere."""
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
    return _output("sysctl", "-n", "machdep.cpu.brand_string")


def _gpu_facts(device: torch.device) -> dict[str, str]:
    properties = torch.cuda.get_device_properties(device)
    drivers = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").splitlines()
    return {
        "gpu": properties.name,
        "gpu memory": f"{properties.total_memory / 2**30:.0f} GiB",
        "driver": drivers[0].strip() if drivers else "unknown",
        "cuda": str(torch.version.cuda or torch.version.hip),
    }


def _output(*command: str) -> str:
    """Run a program that describes the machine; nothing where there is none."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
