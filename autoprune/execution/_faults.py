"""Find the settings that are wrong on this machine, and work around their faults.

A faulty kernel may kill its process, so settings are tried in child processes.

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
"""Time limit of a child for all its settings. It usually takes seconds, most of them to import torch.

A limit is needed because a kernel that corrupts the heap may leave its process waiting for a lock forever.
"""

_FATAL = {getattr(signal, name, None) for name in ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV")}
"""Signals with which a faulty kernel ends its process. Other signals come from outside."""

# With -P, Python does not import from the current folder, so the child runs this copy of the package.
_CHILD = f"import sys; sys.path.insert(0, sys.argv[1]); from {fault_probe.__name__} import main; main()"

_log = logging.getLogger(__name__)
_known: dict[str, str] = {}
"""The cache of this process, which works even if the file cannot be written."""

_reported: set[str] = set()
"""Settings whose detour this process has logged."""


def faults_of(settings: Sequence[Setting]) -> dict[Setting, str]:
    """Return {setting: fault} for the settings that are wrong on this machine.

    New settings are tried in a child process. The results are cached for each machine and version of torch.
    Only CPU settings are tried. If no child process can be started, all settings count as right.
    """
    cases = {setting: _case(setting) for setting in settings if setting.device == "cpu"}
    if not _known:
        _known.update(recall())
    unknown = [setting for setting, case in cases.items() if case not in _known]
    if unknown:
        found = _try_all(unknown)
        if found:
            remember(found)
        # A setting that could not be tried counts as right in this process, but the file does not record it.
        _known.update({cases[setting]: "" for setting in unknown} | found)
    return {setting: _known[case] for setting, case in cases.items() if _known.get(case)}


def fit_to_machine(setting: Setting) -> Setting:
    """Return the setting for use on this machine, with a detour if it is wrong without one.

    A study that started on another machine thus keeps its setting, and its scores stay comparable.

    Raises:
        ConfigError: if the setting is wrong even with the detour.
    """
    plain = dataclasses.replace(setting, detour=False)
    fault = faults_of([plain]).get(plain)
    if fault is None:
        return plain
    fitted = dataclasses.replace(setting, detour=True)
    require_sound(fitted)
    if _case(fitted) not in _reported:
        _reported.add(_case(fitted))
        _log.warning(
            "%s: strided 1x1 convolutions of few inputs go wrong on this machine (%s): they take a "
            "detour without the stride",
            setting.label,
            fault,
        )
    return fitted


def require_sound(setting: Setting) -> None:
    """Raise an error if a setting is wrong on this machine.

    Raises:
        ConfigError: if the setting is wrong here.
    """
    fault = faults_of([setting]).get(setting)
    if fault is not None:
        raise ConfigError(
            f'search.setting: "{setting.label}" goes wrong on this machine ({fault}). Choose another one.'
        )


def _case(setting: Setting) -> str:
    return f"{setting.label}, {setting.threads} threads{', detour' if setting.detour else ''}"


def _try_all(settings: Sequence[Setting]) -> dict[str, str]:
    """Try settings in child processes and return {case: fault}. A new child starts only after a crash."""
    found: dict[str, str] = {}
    left = list(settings)
    while left:
        answers, is_fatal, ending = _run_child(left)
        found.update(zip(map(_case, left), answers, strict=False))
        left = left[len(answers) :]
        if not left:
            break
        if not is_fatal:
            _log.warning(
                "faults of this machine are unknown: the process that looks for them ended early (%s)", ending
            )
            break
        found[_case(left.pop(0))] = ending
    return found


def _run_child(settings: Sequence[Setting]) -> tuple[list[str], bool, str]:
    """Return a child's answers, whether the setting after them killed it, and how it ended."""
    package = Path(autoprune.__file__).resolve().parents[1]
    command = [sys.executable, "-P", "-c", _CHILD, str(package)]
    requests = json.dumps([dataclasses.asdict(setting) for setting in settings])
    # Threads that spin while they wait would slow down other processes.
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    try:
        ended = subprocess.run(
            command,
            input=requests,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
            env=environment,
        )
    except subprocess.TimeoutExpired as error:
        given = error.stdout or b""
        text = given.decode() if isinstance(given, bytes) else given
        return _answers(text, settings), True, f"not finished after {LIMIT_S:.0f} s"
    except OSError as error:
        return [], False, reason_of(error)
    fatal = -ended.returncode in _FATAL
    return _answers(ended.stdout, settings), fatal, describe_exit(ended.returncode)


def _answers(text: str, settings: Sequence[Setting]) -> list[str]:
    """Parse the complete lines of a child's output. The last line may be cut off."""
    lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [str(json.loads(line)) for line in lines[: len(settings)]]
