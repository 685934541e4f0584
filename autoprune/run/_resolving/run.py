"""A resolved run: settings, model, data, search problem, and the number format and layout of its trials.

Example:
    run.space, run.budget, run.prunable                # of the problem
    run.dense.data, run.spec.rungs, run.setting
"""

from __future__ import annotations

from dataclasses import dataclass

from autoprune.execution import ALONE, Group, Setting
from autoprune.latency import Stairs
from autoprune.latency.table import LatencyTable
from autoprune.run._resolving.dense import Dense
from autoprune.run._resolving.problem import Problem
from autoprune.run._resolving.spec import RunSpec
from autoprune.support.events import Watcher, silent


@dataclass(frozen=True, kw_only=True)
class Run(Problem):
    """A search problem together with everything that the verbs need to work on it.

    Attributes:
        spec: the settings.
        dense: the dense model, its data, its task and its device.
        setting: the device, number format, layout and threads of the trials.
        table: the latency table, or None if latency is neither limited nor minimised.
        stairs: the measured latency at several widths, if a new study measured its divisor.
        watch: called with events that report the progress.
        group: the processes that train the winner together.
    """

    spec: RunSpec
    dense: Dense
    setting: Setting
    table: LatencyTable | None = None
    stairs: Stairs | None = None
    watch: Watcher = silent
    group: Group = ALONE
