"""Resolves settings, model and data into a `Run`.

run, choice = resolve(spec, given_dense(model, data, spec), watch)      # for a new study
run = resolve_stored(study, spec, given, watch)                         # for a study that goes on
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from autoprune.execution import Setting
from autoprune.latency.table import LatencyPredictor, LatencyTable
from autoprune.run._dense import Dense, distils, load_data, load_dense, try_model, try_task, try_training
from autoprune.run._events import Watcher, silent
from autoprune.run._identity import identify
from autoprune.run._latency import measure_runtime, stored_table
from autoprune.run._problem import build_problem, trace_dense
from autoprune.run._progress import report_problem
from autoprune.run._run import Run
from autoprune.run._seen_validation import require_unseen_validation
from autoprune.run._spec import RunSpec
from autoprune.run._stored_config import stored_setting
from autoprune.run._train import clear_finished, measure_setting, train_dense
from autoprune.study import SearchStudy
from autoprune.support.threads import cpu_threads, usable_cores
from autoprune.train import Choice
from autoprune.zoo import load_checkpoint


def resolve(spec: RunSpec, given: Dense | None, watch: Watcher) -> tuple[Run, Choice]:
    """Load or train the dense model, pose the problem and choose the setting of the trials of a new study.

    Whatever can be refused before a training is refused before it.

    Args:
        spec: with its names and paths settled.
        given: the model and data of a caller, if they are not to be loaded.
        watch: is shown how it goes on.

    Returns:
        The run, and how its setting was chosen.

    Raises:
        AutopruneError: something that the settings name cannot be used.
    """
    path = None if spec.model.checkpoint is None else Path(spec.model.checkpoint)
    untrained = path if path is not None and spec.train.when_missing and not path.exists() else None
    dense = _checked_dense(spec, given, is_trained=untrained is None)
    prunable = trace_dense(dense, spec)
    measured = measure_runtime(prunable, spec, watch)
    spec = measured.spec
    problem = build_problem(prunable, spec, measured.predict)
    report_problem(problem, spec, watch)
    if untrained is not None:
        untrained.parent.mkdir(parents=True, exist_ok=True)
        train_dense(dense, spec, untrained, watch=watch)
        load_checkpoint(dense.model, untrained)
        dense = dataclasses.replace(dense, data=load_data(spec))  # a loader may remember what it was read for
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


def resolve_stored(study: SearchStudy, spec: RunSpec, given: Dense | None, watch: Watcher) -> Run:
    """Load the dense model of a study and pose its problem as it was posed at the start.

    Args:
        study: as it is stored.
        spec: its settings, with those that may change.
        given: the model and data of a caller, if they are not to be loaded.
        watch: is shown how it goes on.

    Raises:
        StudyError: model, data or space are not those that the study was made for.
        AutopruneError: what the settings name cannot be used any more.
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
    """Trace a dense model and pose its problem, if nothing has to be measured for that."""
    predict = None if table is None else LatencyPredictor(table)
    problem = build_problem(trace_dense(dense, spec), spec, predict)
    return Run(**vars(problem), spec=spec, dense=dense, setting=setting, table=table, watch=watch)


def _checked_dense(spec: RunSpec, given: Dense | None, *, is_trained: bool) -> Dense:
    """Return the dense model, whose forward pass, loss, metric and gradients have been tried.

    Args:
        spec: of the run.
        given: the model and data of a caller, if they are not to be loaded.
        is_trained: whether it is trained already.
    """
    if given is not None:
        try_model(given)
    elif is_trained and spec.model.checkpoint is not None:
        clear_finished(Path(spec.model.checkpoint))
    dense = given or load_dense(spec, trained=is_trained)
    try_task(dense, distilled=distils(spec))
    if not is_trained or spec.trains_candidates:
        try_training(dense)
    if given is None and is_trained:
        require_unseen_validation(spec, dense.data)
    return dense


def _choose_setting(dense: Dense, spec: RunSpec, watch: Watcher) -> Choice:
    """Measure the fastest setting with the threads that a trial will have."""
    if not spec.is_parallel:
        return measure_setting(dense, spec, watch)
    # A machine of a cluster may give trials more threads than this one, which begins the search, has cores.
    with cpu_threads(min(spec.workers.threads, usable_cores())):
        return measure_setting(dense, spec, watch)
