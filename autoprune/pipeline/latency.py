"""The [latency] section, read into what the probes take.

Before: settings; after: `autoprune.latency` measures under it.

    setting = latency_setting(LatencySettings(probe="onnx", threads=2))
"""

from __future__ import annotations

import dataclasses

from autoprune.latency import LatencySetting
from autoprune.latency.placing import check_device
from autoprune.latency.probes import find_probe
from autoprune.settings import LatencySettings


def latency_setting(settings: LatencySettings) -> LatencySetting:
    """Return the setting that the section asks for, after a look whether it can be used here at all.

    Raises:
        ConfigError: an unknown probe, a command that is missing, or a device that is not there.
    """
    names = [field.name for field in dataclasses.fields(LatencySetting)]
    setting = LatencySetting(**{name: getattr(settings, name) for name in names})
    find_probe(setting.probe)
    if setting.command is None:  # a command's device is its own
        check_device(setting)
    return setting
