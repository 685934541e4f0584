"""Runs the remaining trials of a study on its engine, and times the finalists.

Example:
    result = run_trials(run, study)
"""

from __future__ import annotations

from autoprune.engines import MakeScorer, TrialRunner, run_search
from autoprune.errors import shown_url
from autoprune.report import summarise
from autoprune.run._finalists import measure_finalists
from autoprune.run._moments import StudyMoments, moments_of, prepare_moments
from autoprune.run._next_step import next_step
from autoprune.run._optuna_log import quiet_optuna
from autoprune.run._other_processes import report_unended
from autoprune.run._progress import trial_reporter
from autoprune.run._run import Run
from autoprune.run._scoring import ScorerFactory, identify_parts, make_score, with_weights
from autoprune.run._search_result import SearchResult
from autoprune.run._stored_config import stored_ranking, threads_of
from autoprune.run._supernet_training import prepare_supernet
from autoprune.run._warm_starts import enqueue_missing
from autoprune.study import SearchStudy
from autoprune.support.events import Stage


def run_trials(
    run: Run, study: SearchStudy, *, moments: StudyMoments | None = None, take_over: bool = False
) -> SearchResult:
    """Run the remaining trials of a study, time its finalists if latency counts, and summarise it.

    Args:
        run: the resolved run.
        study: its study.
        moments: the moments of the dense model, if they are measured already.
        take_over: also run the trials again that other hosts hold.
    """
    search = run.spec.search
    runner = TrialRunner(
        study,
        run.space,
        sampler=search.sampler,
        pruner=search.pruner,
        trials=search.trials,
        rungs=len(run.spec.rungs),
        seed=search.seed,
        device=run.setting.device,
        statistics=study.facts.statistics,
        shapes=run.prunable.shapes,
        rates=run.spec.evolution_rates,
        cost=run.cost,
        on_event=trial_reporter(run, study),
    )
    run.watch(
        Stage(
            f"study {study.name} in {shown_url(study.url)}: {search.trials} trials, "
            f"sampler {search.sampler}, engine {search.engine}"
        )
    )
    enqueue_missing(study, run.space)
    with quiet_optuna(), threads_of(search.engine, run.setting):
        run_search(
            search.engine,
            runner,
            _scorer_maker(run, study, moments),
            workers=run.spec.workers,
            other_hosts_are_gone=take_over,
        )
    if runner.has_tried_all:
        plans = 0 if run.space.plans is None else len(run.space.plans)
        tried = "the one distinct plan is" if plans == 1 else f"all {plans} distinct plans are"
        run.watch(Stage(f"{tried} tried: the search ends before {search.trials} trials"))
    report_unended(study, run.watch)
    measure_finalists(run, study)
    summary = summarise(study)
    return SearchResult(study.name, study.url, run.spec.folder, summary, next_step(study, summary))


def _scorer_maker(run: Run, study: SearchStudy, moments: StudyMoments | None) -> MakeScorer:
    """Return the function that builds the score, from the loaded parts or, in workers, from names.

    The supernet and the moments are made first if the study needs them and does not have them yet.
    """
    stored_ranking(study, run.prunable, None)  # raises here, once, if the ranking is damaged
    ranking, others = study.facts.ranking, study.facts.rankings
    supernet = prepare_supernet(run, study)
    if moments is None or supernet is not None:
        moments = moments_of(run, with_weights(run.prunable, supernet))
    note, measured = prepare_moments(study, moments) or (None, None)
    dense, spec, setting = run.dense, run.spec, run.setting
    if not spec.is_parallel:
        score = make_score(dense, run.prunable, spec, setting, ranking, supernet, measured, others)
        return lambda: score
    passed = dense if spec.model.name is None and spec.model.factory is None else None
    parts = identify_parts(dense, run.prunable, supernet)
    return ScorerFactory(spec, setting, ranking, passed, supernet, note, parts, others=others)
