"""The verbs of the command line as plain functions, which scripts can call as well.

Each verb resolves its settings, model and data into a `Run` first, and then works on that.

Example:
    result = search(model, data, "run.toml")
    tuned = finetune(result.name, result.storage, model=model, data=data)
"""

from __future__ import annotations

from autoprune.run._bench import Bench, BenchRow, bench
from autoprune.run._best import Picked, best
from autoprune.run._budget_curve import budget_curve
from autoprune.run._checks.checks import study_exists
from autoprune.run._checks.choices import choices
from autoprune.run._checks.stored_run import earlier_settings
from autoprune.run._checks.trust import Consent, trusted
from autoprune.run._error_curves import error_curves
from autoprune.run._export import export_saved
from autoprune.run._export_target import export
from autoprune.run._finetune import finetune
from autoprune.run._inspect import CostRange, Inspection, inspect
from autoprune.run._int8 import Int8Report, export_int8
from autoprune.run._proposing.proposal import Proposal, propose
from autoprune.run._proposing.wishes import Wishes, read_budget, read_data, read_model, read_profile
from autoprune.run._prune import prune
from autoprune.run._recalibrate import recalibrate
from autoprune.run._report import Report, report
from autoprune.run._resolving.dense import Dense
from autoprune.run._resolving.if_exists import IfExists, checked_action
from autoprune.run._resolving.paths import find_storage, settle
from autoprune.run._resolving.problem import SHORT_OF_WINDOW
from autoprune.run._resolving.session import Session
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._resolving.stored_config import change_spec, stored_setting, stored_spec
from autoprune.run._resolving.train import TrainResult, train
from autoprune.run._results.finetune_result import FinetuneResult
from autoprune.run._results.flow_report import ComparedFlow, FlowComparison, compare_flows, holds_flows
from autoprune.run._results.flow_result import FlowResult
from autoprune.run._results.next_step import after_saving, export_command
from autoprune.run._results.saved_model import load_saved
from autoprune.run._results.search_result import SearchResult
from autoprune.run._results.tables import (
    bench_notes,
    bench_table,
    block_table,
    comparison_notes,
    comparison_table,
    flow_table,
    group_table,
    inspection_notes,
    inspection_table,
    int8_table,
    method_notes,
    pruned_table,
)
from autoprune.run._search import resume, search
from autoprune.run._sensitivity_curves import sensitivity_curves
from autoprune.run._smoke import SmokeResult, smoke
from autoprune.run._status import Entrant, RaceStatus, StudyStatus, Worker, follow, status_of
from autoprune.support.events import Counted, EpochDone, Event, Stage, TrialDone, Watcher, silent

__all__ = [
    "SHORT_OF_WINDOW",
    "Bench",
    "BenchRow",
    "ComparedFlow",
    "Consent",
    "CostRange",
    "Counted",
    "Dense",
    "Entrant",
    "EpochDone",
    "Event",
    "FinetuneResult",
    "FlowComparison",
    "FlowResult",
    "IfExists",
    "Inspection",
    "Int8Report",
    "Picked",
    "Proposal",
    "RaceStatus",
    "Report",
    "RunSpec",
    "SearchResult",
    "Session",
    "SmokeResult",
    "Stage",
    "StudyStatus",
    "TrainResult",
    "TrialDone",
    "Watcher",
    "Wishes",
    "Worker",
    "after_saving",
    "bench",
    "bench_notes",
    "bench_table",
    "best",
    "block_table",
    "budget_curve",
    "change_spec",
    "checked_action",
    "choices",
    "compare_flows",
    "comparison_notes",
    "comparison_table",
    "earlier_settings",
    "error_curves",
    "export",
    "export_command",
    "export_int8",
    "export_saved",
    "find_storage",
    "finetune",
    "flow_table",
    "follow",
    "group_table",
    "holds_flows",
    "inspect",
    "inspection_notes",
    "inspection_table",
    "int8_table",
    "load_saved",
    "method_notes",
    "propose",
    "prune",
    "pruned_table",
    "read_budget",
    "read_data",
    "read_model",
    "read_profile",
    "recalibrate",
    "report",
    "resume",
    "search",
    "sensitivity_curves",
    "settle",
    "silent",
    "smoke",
    "status_of",
    "stored_setting",
    "stored_spec",
    "study_exists",
    "train",
    "trusted",
]
