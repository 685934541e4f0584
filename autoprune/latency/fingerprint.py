"""Identify the device and the runtime on which a latency was measured.

Tables and studies store the fingerprint and refuse to predict for another device.

Example:
    fingerprint = device_fingerprint(LatencySetting("onnx"))
    fingerprint.facts        # {"cpu": "AMD EPYC 9654", "cores": "2", ..., "onnxruntime": "1.20.0"}
"""

from __future__ import annotations

import importlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from autoprune.latency.probes import PROBES
from autoprune.latency.setting import LatencySetting
from autoprune.support.cpu import cpu_facts, output_of


@dataclass(frozen=True)
class Fingerprint:
    """Facts that identify a device and a runtime, as {name: value}."""

    facts: Mapping[str, str]

    def differences(self, other: Fingerprint, there: str) -> list[str]:
        """Return the facts that differ, in words such as "cores: 2 here, 8 in the table".

        Args:
            other: the fingerprint to compare with.
            there: words for the place where the other fingerprint is stored.
        """
        names = [*self.facts, *(name for name in other.facts if name not in self.facts)]
        return [
            f"{name}: {self.facts.get(name, 'none')} here, {other.facts.get(name, 'none')} {there}"
            for name in names
            if self.facts.get(name) != other.facts.get(name)
        ]


def device_fingerprint(setting: LatencySetting) -> Fingerprint:
    """Return the fingerprint of the device on which the setting's probe measures.

    A command may measure on any device, so the command line itself is its fingerprint.
    """
    if setting.command is not None:
        return Fingerprint({"command": setting.command})
    facts = {"system": f"{platform.system()} {platform.machine()}", **cpu_facts()}
    facts["torch"] = torch.__version__
    probe = PROBES.get(setting.probe)  # a user's own states no package
    if probe is not None and probe.package:
        facts[probe.package] = importlib.import_module(probe.package).__version__
    if setting.on_cuda:
        facts |= _gpu_facts(torch.device(setting.device))
    return Fingerprint(facts)


def _gpu_facts(device: torch.device) -> dict[str, str]:
    properties = torch.cuda.get_device_properties(device)
    drivers = output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").splitlines()
    return {
        "gpu": properties.name,
        "gpu memory": f"{properties.total_memory / 2**30:.0f} GiB",
        "driver": drivers[0].strip() if drivers else "unknown",
        "cuda": str(torch.version.cuda or torch.version.hip),
    }
