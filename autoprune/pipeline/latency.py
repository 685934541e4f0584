"""What is measured of the runtime under [latency] before a search: a divisor that is "auto".

Before: settings and the dense model; after: the space is built from it, and the study keeps it.

    setting = latency_setting(LatencySettings(probe="onnx", threads=2))
    config, stairs = settle_divisor(config, dense, watch)
"""

from __future__ import annotations

import dataclasses

from autoprune.latency import LatencySetting
from autoprune.latency.blocks import heavy_blocks
from autoprune.latency.placing import check_device
from autoprune.latency.probes import find_probe
from autoprune.latency.stairs import Stairs, measure_stairs
from autoprune.pipeline.dense import Dense
from autoprune.pipeline.events import Stage, Watcher
from autoprune.settings import LatencySettings, RunConfig

MEASURED = "auto"
"""The search.divisor that is measured."""


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


def settle_divisor(config: RunConfig, dense: Dense, watch: Watcher) -> tuple[RunConfig, Stairs | None]:
    """Measure the divisor where it is "auto"; the config that is returned has a number.

    Raises:
        ConfigError: the runtime of [latency] cannot be used here.
        LatencyError: nothing of the model can be measured there.
    """
    if config.search.divisor != MEASURED:
        return config, None
    setting = latency_setting(config.latency)
    watch(Stage(f"measuring which multiples of channels {setting.probe} is fast at"))
    stairs = measure_stairs(heavy_blocks(dense.model, dense.example_inputs), setting)
    watch(Stage(f"widths are multiples of {stairs.divisor}"))
    search = dataclasses.replace(config.search, divisor=stairs.divisor)
    return dataclasses.replace(config, search=search), stairs
