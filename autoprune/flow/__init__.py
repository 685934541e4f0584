"""A flow: stages that make a model smaller, repeated for several passes.

A stage is a function (Workbench, FlowState) -> StageResult and a row of STAGES. A way to choose channels is a
function Selection -> Plan and a row of SELECTORS. A preset is a TOML file in autoprune/config/methods with a
section [preset] and the keys of a config that the method sets.

    sparsify -> select -> rebuild -> repair -> mask -> finetune

Stages and selectors of your own need no row. A config names them as "package.module:function":

    from autoprune.flow import Selection
    from autoprune.graph import Plan

    def first_half(given: Selection) -> Plan:
        groups = given.prunable.searchable
        return Plan({group.name: range(group.width // 2) for group in groups})
"""

from __future__ import annotations

from autoprune.flow._error_library import least_error, measure_library
from autoprune.flow._fit import NEEDS, NeedSpec, check_fit
from autoprune.flow._flow import run_flow
from autoprune.flow._masking import check_masks, keep_masks
from autoprune.flow._record import FlowRecord, FlowScores, Measured, StageEntry, to_values
from autoprune.flow._repairs import REPAIRS, RepairSpec, find_repair
from autoprune.flow._schedules import epoch_reporter, naming_learning_rate, schedule_of, step_reporter
from autoprune.flow._selectors import (
    SELECTORS,
    Selection,
    SelectorSpec,
    check_amounts,
    check_rules,
    find_selector,
)
from autoprune.flow._stages import STAGES, StageResult, StageSpec, find_stage, stages_of
from autoprune.flow._state import FlowState
from autoprune.flow._workbench import SearchPass, Workbench, pass_limits

__all__ = [
    "NEEDS",
    "REPAIRS",
    "SELECTORS",
    "STAGES",
    "FlowRecord",
    "FlowScores",
    "FlowState",
    "Measured",
    "NeedSpec",
    "RepairSpec",
    "SearchPass",
    "Selection",
    "SelectorSpec",
    "StageEntry",
    "StageResult",
    "StageSpec",
    "Workbench",
    "check_amounts",
    "check_fit",
    "check_masks",
    "check_rules",
    "epoch_reporter",
    "find_repair",
    "find_selector",
    "find_stage",
    "keep_masks",
    "least_error",
    "measure_library",
    "naming_learning_rate",
    "pass_limits",
    "run_flow",
    "schedule_of",
    "stages_of",
    "step_reporter",
    "to_values",
]
