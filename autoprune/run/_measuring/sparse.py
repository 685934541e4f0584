"""Trains the dense model of a new search with the penalty of [sparsify], before the study begins.

Example:
    run = sparsified(run)      # its dense model is the sparse one, whose file is the checkpoint of the study
"""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

from autoprune.config.settings import FlowSettings, SparsifySettings
from autoprune.errors import CheckpointError, ConfigError
from autoprune.flow import FlowState, find_stage, schedule_of, to_values
from autoprune.run._measuring.flow_bench import workbench
from autoprune.run._resolving.identity import identify_dense
from autoprune.run._resolving.problem import Problem
from autoprune.run._resolving.progress import report_problem
from autoprune.run._resolving.run import Run
from autoprune.run._resolving.seen_validation import history_path, read_history, save_dense, split_of
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._resolving.stored_config import threads_of
from autoprune.score import with_model
from autoprune.sparsity import check_penalty, check_strengths
from autoprune.study import StrengthFacts
from autoprune.support.events import Stage, Watcher
from autoprune.support.schema import Strict, read_as
from autoprune.zoo import load_checkpoint

STAGE = "sparsify"


SPARSE = "sparse.safetensors"
"""Name of the file of a sparsified dense model, in the output folder."""


def is_sparsified(spec: RunSpec) -> bool:
    """Return whether a search sparsifies its dense model first."""
    if spec.flow.stages:
        return STAGE in spec.flow.stages
    return spec.sparsify != SparsifySettings()


def begin_search(problem: Problem, spec: RunSpec, watch: Watcher) -> None:
    """Check that the penalty of a search fits its model, and report the problem to the watcher."""
    if is_sparsified(spec):
        schedule_of(spec.sparsify)
        check_strengths(spec.sparsify.strength)
        check_penalty(problem.prunable, spec.sparsify.penalty, spec.sparsify.options)
    report_problem(problem, spec, watch)


class _Trial(Strict, allow_inf_nan=True):
    strength: float
    score: float
    cut_score: float
    cut_error: float | None = None


class _Facts(Strict):
    trials: list[_Trial]


class _Settings(Strict):
    penalty: str
    share: float


class _Origin(Strict):
    sparsify: _Settings


class _Note(Strict):
    """The keys of the note on a sparse model that hold the strengths that were tried."""

    facts: _Facts
    origin: _Origin


def tried_strengths(spec: RunSpec) -> list[StrengthFacts]:
    """Return the strengths that were tried to make the dense model sparse, from the note on its file.

    Raises:
        CheckpointError: the note is damaged.
    """
    path = spec.model.checkpoint
    note = None if path is None or not Path(path).exists() else read_history(path)
    if note is None or "facts" not in note:
        return []
    advice = "Remove the note and its checkpoint to train the sparse model again."
    read = read_as(_Note, note, where=str(history_path(str(path))), error=CheckpointError, advice=advice)
    settings = read.origin.sparsify
    return [
        StrengthFacts(penalty=settings.penalty, share=settings.share, **vars(trial))
        for trial in read.facts.trials
        if math.isfinite(trial.score) and math.isfinite(trial.cut_score)
    ]


def sparsified(run: Run) -> Run:
    """Return the run with the sparse model as its dense one, and train it if its file does not exist.

    The settings of the run then name the file as model.checkpoint, and no [flow] and no [sparsify].

    Raises:
        ConfigError: the file holds a model of other weights, data or settings.
        TrialError: the training diverged.
    """
    spec, dense = run.spec, run.dense
    path = spec.folder / SPARSE
    origin = {**identify_dense(dense, run.prunable), STAGE: to_values(spec)[STAGE]}
    bench = dataclasses.replace(workbench(run, spec.folder), stage=STAGE)
    known = read_history(path) if path.exists() else None
    if path.exists() and (known is None or known.get("origin") != origin):
        raise ConfigError(
            f"{path}: holds a sparse model of other weights, data or [sparsify]. Remove it, or set another "
            "output.folder."
        )
    if known is None:
        run.watch(Stage(f"sparsifying the dense model: {spec.sparsify.epochs} epochs"))
        with threads_of(spec.search.engine, run.setting):
            found = find_stage(STAGE).run(bench, FlowState(1, run.prunable))
        history: dict[str, Any] = {
            "data": split_of(spec.data, dense.data),
            "config": to_values(spec.without_password()),
            "origin": origin,
            "facts": dict(found.facts),
            "val_score": found.score if found.score is not None and math.isfinite(found.score) else None,
        }
        save_dense(found.state.model, path, history)
        bench.clear_training()
    model = copy.deepcopy(dense.model)
    load_checkpoint(model, path)
    task = dataclasses.replace(dense.task, dense=model)
    settled = dataclasses.replace(
        spec,
        model=dataclasses.replace(spec.model, checkpoint=str(path), weights=None),
        flow=FlowSettings(),
        sparsify=SparsifySettings(),
    )
    return dataclasses.replace(
        run,
        spec=settled,
        dense=dataclasses.replace(dense, model=model, task=task),
        prunable=with_model(run.prunable, model),
    )
