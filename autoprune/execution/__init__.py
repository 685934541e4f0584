"""Execution settings (device, number format, layout, threads), and the settings that are wrong on a machine.

Example:
    faults_of([Setting(channels_last=True)])     # {Setting(channels_last=True): "killed by SIGABRT"}
    setting = fit_to_machine(setting)            # with a detour, if the setting needs one here
"""

from __future__ import annotations

from autoprune.execution._faults import faults_of, fit_to_machine, require_sound
from autoprune.execution._group import ALONE, Group, joined
from autoprune.execution._setting import Setting, resolve_device

__all__ = [
    "ALONE",
    "Group",
    "Setting",
    "faults_of",
    "fit_to_machine",
    "joined",
    "require_sound",
    "resolve_device",
]
