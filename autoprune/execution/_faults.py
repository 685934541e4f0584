"""Asks child processes which settings go wrong on this machine, and works around the faults.

faults_of([Setting(channels_last=True)])     # on a CPU whose best instruction set is AVX2:
# {Setting(...): "killed by SIGABRT (signal 6)"}
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import autoprune
from autoprune.errors import ConfigError, reason_of
from autoprune.execution import fault_probe
from autoprune.execution._fault_cache import recall, remember
from autoprune.execution._setting import Setting
from autoprune.support.exits import describe_exit

LIMIT_S = 90.0
"""How long a child may take for all its settings: some seconds usually, most of them to import torch.

A kernel that corrupts the heap may also leave its process waiting for ever for a lock of the allocator.
"""

_FATAL = {getattr(signal, name, None) for name in ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV")}
"""Signals that a wrong kernel ends its process with. Others come from outside."""

# With -P the current folder is no import path: the child runs this very package, wherever it lies.
_CHILD = f"import sys; sys.path.insert(0, sys.argv[1]); from {fault_probe.__name__} import main; main()"

_log = logging.getLogger(__name__)
_known: dict[str, str] = {}
"""The cache of this process. It serves also if no file can be written."""

_told: set[str] = set()
"""Settings whose detour this process has reported."""


def faults_of(settings: Sequence[Setting]) -> dict[Setting, str]:
    """Return {setting: fault} of the settings that go wrong on this machine.

    What is not known yet is tried in a child process, and kept for each machine and version of torch. Only
    CPUs are tried. If no child can be started, nothing is known, and all settings count as sound.
    """
    asked = {setting: _case(setting) for setting in settings if setting.device == "cpu"}
    if not _known:
        _known.update(recall())
    unknown = [setting for setting, case in asked.items() if case not in _known]
    if unknown:
        found = _tried(unknown)
        if found:
            remember(found)
        # A setting that could not be tried counts as sound in this process.
        _known.update({asked[setting]: "" for setting in unknown} | found)
    return {setting: _known[case] for setting, case in asked.items() if _known.get(case)}


def fit_to_machine(setting: Setting) -> Setting:
    """Return the setting as it is to be used on this machine: with a detour if it goes wrong without one.

    So a study that was begun on another machine keeps its setting, and its scores stay comparable.

    Raises:
        ConfigError: it goes wrong with the detour, too.
    """
    plain = dataclasses.replace(setting, detour=False)
    fault = faults_of([plain]).get(plain)
    if fault is None:
        return plain
    fitted = dataclasses.replace(setting, detour=True)
    require_sound(fitted)
    if _case(fitted) not in _told:
        _told.add(_case(fitted))
        _log.warning(
            "%s: strided 1x1 convolutions of few inputs go wrong on this machine (%s): they run by another "
            "path",
            setting.label,
            fault,
        )
    return fitted


def require_sound(setting: Setting) -> None:
    """Refuse a setting that goes wrong on this machine.

    Raises:
        ConfigError: it does.
    """
    fault = faults_of([setting]).get(setting)
    if fault is not None:
        raise ConfigError(
            f'search.setting: "{setting.label}" goes wrong on this machine ({fault}); choose another one.'
        )


def _case(setting: Setting) -> str:
    return f"{setting.label}, {setting.threads} threads{', detour' if setting.detour else ''}"


def _tried(settings: Sequence[Setting]) -> dict[str, str]:
    """Try settings in as few children as there are deaths, and one more, and return {case: fault}."""
    found: dict[str, str] = {}
    left = list(settings)
    while left:
        answers, fault, ending = _ask_child(left)
        found.update(zip(map(_case, left), answers, strict=False))
        left = left[len(answers) :]
        if not left:
            break
        if not fault:
            _log.warning(
                "what this machine computes rightly is not known: the process that tries it ended early (%s)",
                ending,
            )
            break
        found[_case(left.pop(0))] = ending
    return found


def _ask_child(settings: Sequence[Setting]) -> tuple[list[str], bool, str]:
    """Return a child's answers, whether the setting behind them stopped it, and how it ended."""
    package = Path(autoprune.__file__).resolve().parents[1]
    command = [sys.executable, "-P", "-c", _CHILD, str(package)]
    asked = json.dumps([dataclasses.asdict(setting) for setting in settings])
    # Threads that spin while they wait would fight with whatever else runs here.
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    try:
        ended = subprocess.run(
            command,
            input=asked,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
            env=environment,
        )
    except subprocess.TimeoutExpired as error:
        given = error.stdout or b""
        text = given.decode() if isinstance(given, bytes) else given
        return _answers(text, settings), True, f"not at its end after {LIMIT_S:.0f} s"
    except OSError as error:
        return [], False, reason_of(error)
    fatal = -ended.returncode in _FATAL
    return _answers(ended.stdout, settings), fatal, describe_exit(ended.returncode)


def _answers(text: str, settings: Sequence[Setting]) -> list[str]:
    """Read the lines that a child has ended; the last one may be cut off."""
    lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [str(json.loads(line)) for line in lines[: len(settings)]]
