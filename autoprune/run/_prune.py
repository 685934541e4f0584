"""Runs a flow: makes a model smaller stage by stage, without a study, and tests it once at the end.

A flow that was stopped goes on after its last epoch when the function is called again.

Example:
    result = prune(model, data, {"budget": {"flops": "50%"}, "flow": {"method": "network-slimming"}})
    result.model, result.val_score, result.cost.macs
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from autoprune.config.settings import BudgetSettings, RunConfig
from autoprune.criteria import find_criterion
from autoprune.data import UserLoaders, VisionData
from autoprune.errors import AutopruneError, ConfigError, StudyError, TrialError
from autoprune.execution import fit_to_machine, resolve_device
from autoprune.exporting import CARD, load_pruned, save_pruned
from autoprune.flow import (
    STAGES,
    FlowRecord,
    FlowScores,
    Measured,
    check_amounts,
    check_fit,
    check_masks,
    check_rules,
    find_repair,
    find_selector,
    keep_masks,
    run_flow,
    schedule_of,
    stages_of,
    to_values,
)
from autoprune.graph.attached import example_of, note_example
from autoprune.latency.table import table_of_json
from autoprune.progress import GIVEN_WATCH, Watch, watching
from autoprune.run._checks.checks import check_engine_runs, check_search
from autoprune.run._checks.trust import own_architecture, signed_flow
from autoprune.run._measuring.flow_bench import workbench
from autoprune.run._resolving.budget_amounts import check_amounts as check_budget
from autoprune.run._resolving.dense import GIVEN_MODEL, Dense, given_dense, load_dense
from autoprune.run._resolving.identity import identify_dense
from autoprune.run._resolving.if_exists import IfExists, checked_action
from autoprune.run._resolving.paths import probe_writable, settle
from autoprune.run._resolving.problem import Problem
from autoprune.run._resolving.resolve import resolve, trace_run
from autoprune.run._resolving.run import Run
from autoprune.run._resolving.session import Session
from autoprune.run._resolving.spec import ConfigSource, RunSpec
from autoprune.run._resolving.stored_config import objects_of, read_setting
from autoprune.run._results.artefact import begin_artefact, complete_artefact, export_formats
from autoprune.run._results.flow_result import FlowResult
from autoprune.run._results.model_card import card_of_flow, score_part
from autoprune.run._results.saved_model import architecture_of
from autoprune.run._search_pass import search_pass
from autoprune.run._trials.new_study import score_dense
from autoprune.sparsity import check_strengths
from autoprune.support.events import Stage, Watcher
from autoprune.support.launch import require_alone
from autoprune.support.leases import locked, require_unlocked
from autoprune.support.threads import cpu_threads
from autoprune.support.usercode import entry
from autoprune.training import evaluate

_LOCK = "flow.lock"


@entry(model=GIVEN_MODEL, watch=GIVEN_WATCH)
def prune(
    model: nn.Module | None = None,
    data: VisionData | UserLoaders | None = None,
    config: ConfigSource | None = None,
    *,
    if_exists: IfExists = "resume",
    watch: Watch = True,
) -> FlowResult:
    """Make a model smaller by the stages of [flow], evaluate it once on the test part, and save it.

    Pass both `model` and `data`, or neither to load those that the config names. A call with the same
    arguments goes on where a stopped one was, and a finished flow is not repeated.

    Args:
        model: the trained dense model. It is copied and never changed.
        data: the result of `autoprune.data.load`, or loaders of your own, as `search` accepts them.
        config: a RunConfig, a mapping of sections, the path of a TOML file, or an embedded config's name. The
            preset of flow.method fills the keys that it leaves out.
        if_exists: what to do if the output folder holds a flow: "resume" goes on with it, "error" refuses,
            and "overwrite" removes its files and begins again, unless a process works on it.
        watch: called with events that report the progress. True shows them if there is a terminal or a
            notebook, and None or False shows nothing.

    Returns:
        The small model, its scores and costs next to those of the dense model, and the record of all stages.

    Raises:
        StudyError: the output folder holds a flow of other settings, another model or other data, or another
            process runs it.
        AutopruneError: a setting, the model or the data cannot be used.

    Example:
        pruned = autoprune.prune(model, loaders, {"budget": {"flops": "50%"}, "finetune": {"epochs": 1}})
        pruned.cost.macs, pruned.model
    """
    require_alone("prune")
    if config is None:
        raise ConfigError('prune: no config given. Pass at least {"budget": {"flops": "50%"}}.')
    checked_action(if_exists)
    spec = RunSpec.of(config)
    with watching(watch) as show:
        result = _prune(given_dense(model, data, spec), spec, show, if_exists)
    return dataclasses.replace(result, session=Session(model, data, objects_of(spec)))


def _prune(given: Dense | None, spec: RunSpec, watch: Watcher, if_exists: IfExists) -> FlowResult:
    """Begin a flow, or go on with a stopped one, and finish it."""
    spec = settle(spec if given is None else spec.without_names(), named=given is None)
    given_budget = spec.budget
    spec = _with_stages(spec.without_password())
    check_flow(spec)
    settings, folder = to_values(spec), flow_folder(spec)
    require_unlocked(folder / _LOCK, "flow")
    record = FlowRecord.open(folder)
    if record is not None and if_exists == "error":
        raise StudyError(f"{folder}: holds a flow already. Resume it, or set another output.folder.")
    if record is not None and if_exists == "resume":
        record.require(spec)
        run = _reopened(record, spec, given, watch)
        record.require(spec, identify_dense(run.dense, run.prunable))
        return _finish(run, record, settings)
    probe_writable(folder, "output.folder")
    _report_unread(dataclasses.replace(spec, budget=given_budget), watch)
    run, choice = resolve(spec, given, watch, _begin)
    if record is not None:
        record.clear()
    with cpu_threads(run.setting.threads):
        dense_score = score_dense(run)[0].score
    costs: dict[str, Any] = run.dense_cost.known()  # of a single model, so numbers rather than arrays
    measured = Measured(
        setting=run.setting.facts,
        divisor=run.spec.space.divisor or 1,
        latency=None if run.table is None else run.table.to_json(),
        step_ms=choice.step_ms,
        score=dense_score,
        cost=costs,
    )
    identity = identify_dense(run.dense, run.prunable)
    return _finish(run, FlowRecord(folder, identity, settings, measured), settings)


def flow_folder(spec: RunSpec) -> Path:
    """Return the folder of a flow, one for each method."""
    return spec.folder / (spec.flow.method or "flow")


def check_flow(spec: RunSpec) -> None:
    """Check all names and numbers of a flow before anything is loaded.

    Raises:
        ConfigError: a setting cannot be used. The message names the first one, and the nearest known name.
    """
    _ = spec.device, spec.named_setting, spec.loss_and_metric, spec.space, spec.train_schedule
    stages, select = stages_of(spec), spec.select
    find_selector(select.by)
    criterion = select.criterion or spec.search.criteria[0]
    find_criterion(criterion, where="search.criterion" if select.criterion is None else "select.criterion")
    check_rules(select, criterion)
    if spec.flow.narrow != "all" and spec.flow.passes != 1:
        raise ConfigError(
            f'flow.passes: got {spec.flow.passes}, but flow.narrow = "{spec.flow.narrow}" has one pass for '
            'each part that is narrowed. Leave passes out, or set narrow = "all".'
        )
    check_budget(spec.budget, required=False)
    if spec.tolerance is not None:
        raise ConfigError(
            "budget.tolerance: only `autoprune search` moves the budget. Give the flow a limit, such as "
            'flops = "50%".'
        )
    if "select" in stages:
        has_budget = spec.budget != BudgetSettings()
        check_amounts(select.by, select.share, select.threshold, has_budget=has_budget)
    if spec.limits_latency:
        _ = spec.usable_runtime
    if select.by == "search":
        if spec.objectives:
            raise ConfigError(
                'search.objectives: select.by = "search" takes the best trial, which needs ["score"] alone.'
            )
        check_search(spec)
        check_engine_runs(spec)
        _ = spec.rungs, spec.supernet_schedule
    _check_sections(spec, stages)


def _check_sections(spec: RunSpec, stages: tuple[str, ...]) -> None:
    """Check the sections of the stages that a flow has."""
    if "mask" in stages:
        check_masks(spec, stages)
    if "repair" in stages:
        find_repair(spec.repair.mode)
    if "sparsify" in stages:
        schedule_of(spec.sparsify)
        check_strengths(spec.sparsify.strength)
    if "finetune" in stages and spec.finetune.epochs:
        _ = spec.finetune_schedule


def _with_stages(spec: RunSpec) -> RunSpec:
    """Return the settings with all stages, and without a budget that no stage reads."""
    stages = stages_of(spec)
    budget = spec.budget if "select" in stages else BudgetSettings()
    return dataclasses.replace(spec, budget=budget, flow=dataclasses.replace(spec.flow, stages=stages))


def _reopened(record: FlowRecord, spec: RunSpec, given: Dense | None, watch: Watcher) -> Run:
    """Load the dense model of a stopped flow, with the measurements that it began with."""
    measured = record.measured
    setting = fit_to_machine(read_setting(measured.setting, where=f"{record.folder}: setting"))
    resolve_device(setting.device)  # raises if this machine lacks it
    table = None if measured.latency is None else table_of_json(measured.latency)
    spec = spec.with_search(device=setting.device, divisor=measured.divisor)
    return trace_run(given or load_dense(spec), spec, setting, table=table, watch=watch)


def _report_unread(spec: RunSpec, watch: Watcher) -> None:
    """Report settings that no stage of the flow reads."""
    if "select" not in spec.flow.stages and spec.budget != BudgetSettings():
        watch(Stage('[budget] is set, but flow.stages has no "select": only mask.sparsity limits the model'))
    for name, row in STAGES.items():
        for section in row.sections:
            if name not in spec.flow.stages and getattr(spec, section) != getattr(RunConfig(), section):
                watch(Stage(f'[{section}] is set, but flow.stages has no "{name}"'))
    if spec.report.trackers:
        watch(Stage("report.trackers is set, but a flow logs to no tracker"))
    given = [key for key in ("space", "low", "high", "divisor") if getattr(spec.search, key) is not None]
    if given and not find_selector(spec.select.by).has_space:
        keys = " and ".join(f"search.{key}" for key in given)
        watch(
            Stage(
                f'{keys} {"is" if len(given) == 1 else "are"} set, but select.by = "{spec.select.by}" cuts '
                "channels one by one: it only leaves the groups whole that the space skips"
            )
        )


def _begin(problem: Problem, spec: RunSpec, watch: Watcher) -> None:
    """Check that the model fits the methods of the flow, and report the stages."""
    check_fit(spec, problem.prunable, spec.space)
    cost = problem.dense_cost
    method = "" if spec.flow.method is None else f"{spec.flow.method}: "
    passes = "" if spec.flow.passes == 1 else f", {spec.flow.passes} passes"
    watch(
        Stage(
            f"{method}{' -> '.join(spec.flow.stages)}{passes}, traced {len(problem.prunable.searchable)} "
            f"channel groups, dense MACs {cost.macs:,}, params {cost.params:,}"
        )
    )


def _finish(run: Run, record: FlowRecord, settings: Mapping[str, Mapping[str, Any]]) -> FlowResult:
    """Finish a flow, unless another process runs it.

    Args:
        run: the resolved run.
        record: the stages that are done.
        settings: those of this call. They may differ from the recorded ones in stages that have not begun.
    """
    if record.result is not None:
        run.watch(Stage("this flow is done already, so the test part is not read again"))
        small = load_pruned(record.folder, lambda: copy.deepcopy(run.dense.model))
        if not (record.folder / CARD).exists():  # this command was stopped after it stored the result
            _complete_known(run, record.folder, copy.deepcopy(small).cpu())
        return FlowResult.of(record, small)
    with locked(record.folder / _LOCK, "flow"):
        if FlowRecord.open(record.folder) not in (None, record):
            raise StudyError(
                f"{record.folder}: another process has worked on this flow since this command began. Run the "
                "same command again."
            )
        record.config, record.own = settings, signed_flow(run.spec)
        return _run_to_end(run, record)


def _run_to_end(run: Run, record: FlowRecord) -> FlowResult:
    """Run the remaining stages, test both models once, and save the small one."""
    with cpu_threads(run.setting.threads):
        search = search_pass(run, record.measured.step_ms)
        state = run_flow(workbench(run, record.folder, search), record)
        tested = score_part(run, copy.deepcopy(state.model), test=True)
        scored = tested or score_part(run, copy.deepcopy(state.model), test=False)
        val_score = record.stages[-1].score
        if val_score is None:  # the last stage changed no model, or a metric was not finite and is mended
            val_score = evaluate(copy.deepcopy(state.model), run.dense.data.val, run.dense.task, run.setting)
    if not math.isfinite(val_score):
        raise TrialError(
            f"flow: task.metric is {val_score} on the validation part at the end, expected a finite number. "
            "Fix the metric and run the same command again: the trained weights are kept."
        )
    result = FlowScores(
        val_score=val_score,
        test_score=None if tested is None else tested.scores[0],
        dense_val_score=record.measured.score,
        dense_test_score=None if tested is None else tested.scores[1],
    )
    scores = result.model_dump()
    extra = {
        "method": run.spec.flow.method,
        "card": card_of_flow(run, record, scores, scored).model_dump(mode="json"),
        "architecture": architecture_of(run),
        **scores,
        **own_architecture(run.spec),
        **{name: each for name, each in record.stages[-1].facts.items() if name == "remaining"},
    }
    begin_artefact(record.folder)
    small = copy.deepcopy(state.model).cpu()
    if example_of(small) is None:  # no stage has rebuilt it
        note_example(small, run.prunable.example_inputs, run.prunable.target)
    save_pruned(small, state.plan, record.folder, extra=extra)
    keep_masks(state.masks, record.folder)
    record.result = result
    record.save()
    _complete(run, record.folder, small)
    return FlowResult.of(record, state.model)


def _complete_known(run: Run, folder: Path, small: nn.Module) -> None:
    """Add the files that are missing to the folder of a finished flow. If that fails, a warning says why."""
    try:
        _complete(run, folder, small)
    except AutopruneError as error:
        run.watch(Stage(f"warning: {folder} is not completed: {error}"))


def _complete(run: Run, folder: Path, small: nn.Module) -> None:
    """Add the exported files and the card to the folder of the small model."""
    inputs = run.dense.example_inputs
    export_formats(folder, small, run.spec.output.formats, inputs, watch=run.watch)
    complete_artefact(folder, watch=run.watch)
