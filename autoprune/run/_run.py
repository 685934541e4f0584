"""One run, resolved once: its settings, model and data, the problem that they pose, and how trials compute.

run.space, run.budget, run.prunable                # of the problem
run.dense.data, run.spec.rungs, run.setting
"""

from __future__ import annotations

from dataclasses import dataclass

from autoprune.execution import Setting
from autoprune.latency import Stairs
from autoprune.latency.table import LatencyTable
from autoprune.run._dense import Dense
from autoprune.run._events import Watcher, silent
from autoprune.run._problem import Problem
from autoprune.run._spec import RunSpec


@dataclass(frozen=True, kw_only=True)
class Run(Problem):
    """A problem with all that the verbs need to work on it.

    Attributes:
        spec: the settings.
        dense: the dense model, its data, and the task with its device.
        setting: the device, number format, layout and threads of the trials.
        table: of latencies, if the latency is limited or minimised.
        stairs: of the latency, if a new study measured its divisor.
        watch: is shown how the work goes on.
    """

    spec: RunSpec
    dense: Dense
    setting: Setting
    table: LatencyTable | None = None
    stairs: Stairs | None = None
    watch: Watcher = silent
