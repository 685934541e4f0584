"""Creates the study of a new search, with all measurements that are made once, before its first trial.

Example:
    study, moments = make_study(run, choice.step_ms, storage)
"""

from __future__ import annotations

import copy
import dataclasses
import math
import platform
import time
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from autoprune.config.rungs import score_text
from autoprune.criteria import Importance
from autoprune.errors import ConfigError
from autoprune.latency import LatencySetting, device_fingerprint
from autoprune.run._measuring.expected_time import Pace
from autoprune.run._measuring.moments import StudyMoments, moments_of, try_repair
from autoprune.run._measuring.reuse import reuse
from autoprune.run._measuring.sparse import tried_strengths
from autoprune.run._measuring.statistics import MeasurementContext, Reused, measure_statistics
from autoprune.run._measuring.warm_starts import choose_plans, choose_warm_starts
from autoprune.run._resolving.identity import identify
from autoprune.run._resolving.ranking import encode_ranking, rank_channels
from autoprune.run._resolving.run import Run
from autoprune.run._trials.optuna_log import quiet_optuna
from autoprune.run._trials.race_plan import expected_epochs
from autoprune.study import SCORE, SearchStudy, StudyFacts, ToleranceFacts, WarmStarts, create_study
from autoprune.support.events import Stage
from autoprune.training import Evaluation, measure


def make_study(
    run: Run, step_ms: float, storage: str, earlier: SearchStudy | None = None
) -> tuple[SearchStudy, StudyMoments]:
    """Measure the dense score, the ranking, the statistics and the warm starts, and create the study.

    All measurements precede the study, so a search that is killed during them leaves no half-filled study.

    Args:
        run: the resolved run.
        step_ms: milliseconds of a training step of the dense model.
        storage: URL of the storage, with its password.
        earlier: a study whose measurements are reused as far as they are valid.

    Returns:
        The study and the moments of the dense model, which are measured only if something needed them.

    Raises:
        ConfigError: the metric of the dense model is not finite.
        StudyError: the storage cannot be used.
    """
    dense, image_s = score_dense(run)
    reused = Reused() if earlier is None else reuse(run, earlier)
    moments = moments_of(run)
    moments.earlier = reused.moments
    # In the order of the criteria. The first one ranks the groups for which a candidate chooses no other.
    ranked, *others = reused.rankings or [
        rank_channels(run, criterion, moments) for criterion in run.spec.search.criteria
    ]
    pace = Pace(step_ms / 1000, image_s, try_repair(moments, ranked))
    plans = None if run.space.plans is None else len(run.space.plans)
    run.watch(Stage(pace.announcement(run.spec, run.dense.data, plans, expected_epochs(run.spec))))
    facts = _measured_facts(MeasurementContext(run, ranked, pace, moments, reused), others, dense)
    with quiet_optuna():
        study = create_study(
            storage,
            str(run.spec.search.study),
            config=dataclasses.asdict(run.spec.with_rung_recipe()),
            identity=identify(run),
            facts=facts,
            objectives=(SCORE, *run.spec.objectives),
        )
    return study, moments


def _measured_facts(
    context: MeasurementContext, others: Sequence[Importance], dense: Evaluation
) -> StudyFacts:
    """Measure the warm starts and the statistics, and return all facts of a new study.

    Args:
        context: the run, and the ranking by the first criterion.
        others: the rankings by the other criteria.
        dense: the score of the dense model.
    """
    run = context.run
    tolerance, starts = _tolerance_and_starts(context)
    costs: dict[str, Any] = run.dense_cost.known()  # of a single model, so numbers rather than arrays
    return StudyFacts(
        setting=run.setting.facts,
        ranking=encode_ranking(context.ranked),
        rankings=dict(zip(run.spec.search.criteria[1:], map(encode_ranking, others), strict=True)),
        dense_score=dense.score,
        dense_error=dense.standard_error,
        dense_costs=costs,
        limits=dict(run.budget.limits),
        dense_widths={group.name: group.width for group in run.prunable.searchable}
        | {block.name: 1 for block in run.space.blocks},
        relaxed=dict(run.space.relaxed),
        stairs=None if run.stairs is None else run.stairs.to_json(),
        latency=None if run.table is None else run.table.to_json(),
        statistics=measure_statistics(context, run.spec.search.sampler),
        warm_starts=starts,
        tolerance=tolerance,
        strengths=tried_strengths(run.spec),
        environment=environment(run.setting.device),
    )


def environment(device: str) -> dict[str, str]:
    """Return the versions of the packages that a search rests on, and the facts of the machine."""
    versions = {name: metadata.version(name) for name in ("autoprune", "optuna", "numpy")}
    # A latency is measured on a CPU or with CUDA. Other devices, such as "mps", have no facts of their own.
    measurable = device if device.startswith("cuda") else "cpu"
    machine = device_fingerprint(LatencySetting(device=measurable)).facts
    return {"python": platform.python_version(), **versions, **machine}


def _tolerance_and_starts(context: MeasurementContext) -> tuple[ToleranceFacts | None, WarmStarts]:
    """Return the tolerance of a search with its plans, and the trials that are queued before all others."""
    tolerance = context.run.spec.tolerance
    if tolerance is None:
        return None, choose_warm_starts(context)
    plans, starts = choose_plans(context)
    return ToleranceFacts(cost=tolerance.key.cost, allowed=tolerance.allowed, plans=plans), starts


def score_dense(run: Run) -> tuple[Evaluation, float]:
    """Return the dense model's score on the validation part, and the seconds of a forward pass per image.

    Raises:
        ConfigError: the score is not finite.
    """
    spec, dense = run.spec, run.dense
    started = time.perf_counter()
    found = measure(copy.deepcopy(dense.model), dense.data.val, dense.task, run.setting)
    image_s = (time.perf_counter() - started) / dense.data.val.samples
    if not math.isfinite(found.score):
        raise ConfigError(f"task.metric: {spec.task.metric} is {found.score} for the dense model.")
    source = f" ({spec.model.checkpoint})" if spec.model.checkpoint else ""
    score = score_text(found.score, found.standard_error)
    run.watch(Stage(f"dense model{source}: {spec.task.metric} {score} on the validation part"))
    return found, image_s
