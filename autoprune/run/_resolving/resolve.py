"""Resolves settings, model and data into a `Run`.

Example:
    run, choice = resolve(spec, given_dense(model, data, spec), watch)      # for a new study
    run = resolve_stored(study, spec, given, watch)                         # for a resumed study
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from autoprune.config.settings import BudgetSettings
from autoprune.errors import ConfigError
from autoprune.execution import Setting
from autoprune.graph import Prunable
from autoprune.latency.table import LatencyPredictor, LatencyTable
from autoprune.run._resolving.dense import (
    Dense,
    distils,
    load_data,
    load_dense,
    try_model,
    try_task,
    try_training,
)
from autoprune.run._resolving.identity import identify
from autoprune.run._resolving.input_faults import check_inputs
from autoprune.run._resolving.latency import measure_runtime, stored_table
from autoprune.run._resolving.paths import head_file
from autoprune.run._resolving.problem import Problem, build_problem, build_unlimited_problem, trace_dense
from autoprune.run._resolving.progress import report_problem
from autoprune.run._resolving.run import Run
from autoprune.run._resolving.seen_validation import require_unseen_validation
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._resolving.stored_config import stored_setting
from autoprune.run._resolving.train import (
    clear_finished,
    measure_setting,
    require_real_run,
    train_dense,
)
from autoprune.study import SearchStudy
from autoprune.support.events import Stage, Watcher, silent
from autoprune.support.threads import cpu_threads, usable_cores
from autoprune.training import Choice
from autoprune.zoo import load_checkpoint


def resolve(
    spec: RunSpec,
    given: Dense | None,
    watch: Watcher,
    begin: Callable[[Problem, RunSpec, Watcher], None] = report_problem,
    known: LatencyTable | None = None,
) -> tuple[Run, Choice]:
    """Load or train the dense model, build the problem, and choose the setting of a new study's trials.

    If the dense model has to be trained, all checks that do not need its weights run before the training.

    Args:
        spec: the settings, with names and paths filled in by `settle`.
        given: the model and data that a caller passes, or None to load those that the settings name.
        watch: called with events that report the progress.
        begin: checks the problem, and reports it to the watcher.
        known: the latency table of an earlier study, which is used if it fits.

    Returns:
        The run, and how its setting was chosen.

    Raises:
        AutopruneError: something that the settings name cannot be used.
    """
    untrained = _missing_checkpoint(spec)
    dense = _checked_dense(spec, given, is_trained=untrained is None)
    if untrained is None:
        check_inputs(dense, spec, watch)
    if dense.new_heads and given is None and spec.train.when_missing:
        untrained = Path(head_file(spec)).absolute()
    elif dense.new_heads:
        _report_new_heads(dense, spec, watch)
    if untrained is not None:
        require_real_run(spec)
    prunable = trace_dense(dense, spec)
    measured = measure_runtime(prunable, spec, watch, known)
    spec = measured.spec
    problem = _problem_of(prunable, spec, measured.predictor(prunable))
    begin(problem, spec, watch)
    if untrained is not None:
        untrained.parent.mkdir(parents=True, exist_ok=True)
        train_dense(dense, spec, untrained, watch=watch)
        load_checkpoint(dense.model, untrained)
        trained = dataclasses.replace(spec.model, checkpoint=str(untrained), weights=None)
        spec = dataclasses.replace(spec, model=trained)
        # Loaded again, because a loader may keep state, such as its random generator, from the training.
        dense = dataclasses.replace(dense, data=load_data(spec), new_heads=())
        require_unseen_validation(spec, dense.data)
    choice = _choose_setting(dense, spec, watch)
    run = Run(
        **vars(problem),
        spec=spec,
        dense=dense,
        setting=choice.setting,
        table=measured.table,
        stairs=measured.stairs,
        watch=watch,
    )
    return run, choice


def _missing_checkpoint(spec: RunSpec) -> Path | None:
    """Return the checkpoint that a search has to train first, if it may and there is none."""
    if spec.model.checkpoint is None or spec.model.new_head or not spec.train.when_missing:
        return None
    path = Path(spec.model.checkpoint)
    return None if path.exists() else path


def _report_new_heads(dense: Dense, spec: RunSpec, watch: Watcher) -> None:
    """Report that the last layers are new, before a search that begins with an untrained model.

    Raises:
        ConfigError: a training would follow the outputs of these layers.
    """
    layers = ", ".join(dense.new_heads)
    if distils(spec):
        raise ConfigError(
            f"model.new_head: {layers} is new and not trained, so no training can follow the dense model. "
            "Train it first with `autoprune train CONFIG` or train.when_missing = true, or set "
            'finetune.teacher = "none" and leave score.teacher and score.rungs = "supernet" out.'
        )
    watch(Stage(f"{layers} is new and not trained: the dense score is that of an untrained model"))


def resolve_stored(study: SearchStudy, spec: RunSpec, given: Dense | None, watch: Watcher) -> Run:
    """Load the dense model of a study and rebuild the problem that the study began with.

    Args:
        study: the stored study.
        spec: its settings, with the changes that the command makes.
        given: the model and data that a caller passes, or None to load those that the settings name.
        watch: called with events that report the progress.

    Raises:
        StudyError: model, data or search space differ from those that the study was made for.
        AutopruneError: something that the settings name can no longer be used.
    """
    dense, table = given or load_dense(spec), stored_table(study)
    run = trace_run(dense, spec, stored_setting(study), table=table, watch=watch)
    study.require(identify(run))
    return run


def trace_run(
    dense: Dense,
    spec: RunSpec,
    setting: Setting,
    *,
    table: LatencyTable | None = None,
    watch: Watcher = silent,
) -> Run:
    """Trace a dense model and build its problem from stored measurements. Nothing is measured."""
    prunable = trace_dense(dense, spec)
    predict = None if table is None else LatencyPredictor(table, prunable.blocks)
    problem = _problem_of(prunable, spec, predict)
    return Run(**vars(problem), spec=spec, dense=dense, setting=setting, table=table, watch=watch)


def _problem_of(prunable: Prunable, spec: RunSpec, predict: LatencyPredictor | None) -> Problem:
    """Build the problem under the budget, or under none for a flow whose [select] decides how much is cut."""
    if spec.budget == BudgetSettings() and not spec.moved_costs:
        return build_unlimited_problem(prunable, spec)
    return build_problem(prunable, spec, predict)


def _checked_dense(spec: RunSpec, given: Dense | None, *, is_trained: bool) -> Dense:
    """Return the dense model after a trial run of its forward pass, loss, metric and gradients.

    Args:
        spec: the settings of the run.
        given: the model and data that a caller passes, or None to load those that the settings name.
        is_trained: whether the dense model is trained already.
    """
    if given is not None:
        try_model(given)
    elif is_trained and spec.model.checkpoint is not None:
        clear_finished(Path(spec.model.checkpoint))
    dense = given or load_dense(spec, trained=is_trained)
    try_task(dense, distilled=distils(spec))
    if not is_trained or dense.new_heads or spec.trains_candidates:
        try_training(dense)
    # Weights for other classes were not trained on these images with these labels.
    if given is None and is_trained and not dense.new_heads:
        require_unseen_validation(spec, dense.data)
    return dense


def _choose_setting(dense: Dense, spec: RunSpec, watch: Watcher) -> Choice:
    """Choose the fastest setting, measured with as many threads as a trial will have."""
    if not spec.is_parallel:
        return measure_setting(dense, spec, watch)
    # Another machine of a cluster may give its trials more threads than this machine has cores.
    with cpu_threads(min(spec.workers.threads, usable_cores())):
        return measure_setting(dense, spec, watch)
