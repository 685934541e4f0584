"""Runs the remaining trials of a study on its engine, times the finalists, and lets the best ones race.

Example:
    result = run_trials(run, study)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from autoprune.engines import MakeScorer, TrialRunner, run_search
from autoprune.errors import shown_url
from autoprune.reporting import summarise
from autoprune.run._measuring.moments import StudyMoments, moments_of, prepare_moments
from autoprune.run._measuring.supernet_training import prepare_supernet
from autoprune.run._measuring.warm_starts import enqueue_missing, moving_budget
from autoprune.run._other_processes import report_unended
from autoprune.run._resolving.progress import trial_reporter
from autoprune.run._resolving.run import Run
from autoprune.run._resolving.stored_config import stored_ranking, threads_of
from autoprune.run._results.dashboard import note_study, publish
from autoprune.run._results.next_step import next_step
from autoprune.run._results.savings import store_savings
from autoprune.run._results.search_result import SearchResult
from autoprune.run._results.tracking import tracking
from autoprune.run._trials.finalists import measure_finalists
from autoprune.run._trials.optuna_log import quiet_optuna
from autoprune.run._trials.race import run_race
from autoprune.run._trials.race_trainer import RaceTrainer, RaceTrainerFactory
from autoprune.run._trials.scoring import ScoreParts, ScorerFactory, identify_parts, make_score, with_weights
from autoprune.study import SearchStudy, at_work
from autoprune.support.events import Counted, Stage, Watcher


def run_trials(
    run: Run, study: SearchStudy, *, moments: StudyMoments | None = None, take_over: bool = False
) -> SearchResult:
    """Run the remaining trials of a study, time its finalists if latency counts, race, and summarise it.

    Args:
        run: the resolved run.
        study: its study.
        moments: the moments of the dense model, if they are measured already.
        take_over: also run the trials again that other hosts hold.
    """
    with at_work(study) as enter, tracking(study, run.spec, run.watch) as watch:
        return _run_trials(replace(run, watch=watch), study, moments, enter, take_over=take_over)


def _run_trials(
    run: Run,
    study: SearchStudy,
    moments: StudyMoments | None,
    enter: Callable[[str], None],
    *,
    take_over: bool,
) -> SearchResult:
    """Run the remaining trials, and `enter` each phase when it begins."""
    search, runner = run.spec.search, _trial_runner(run, study)
    run.watch(
        Stage(
            f"study {study.name} in {shown_url(study.url)}: {search.trials} trials, "
            f"sampler {search.sampler}, engine {search.engine}"
        )
    )
    enqueue_missing(study, run.space)
    note_study(study, run.watch)
    with quiet_optuna(), threads_of(search.engine, run.setting):
        makers = _Makers.of(run, study, moments)
        enter("trials")
        ended = sum(record.has_ended for record in study.records())
        run.watch(Counted("searching", ended, search.trials, level=0))
        run_search(
            search.engine,
            runner,
            makers.scorer(),
            workers=run.spec.workers,
            other_hosts_are_gone=take_over,
        )
    if runner.has_tried_all:
        _report_all_tried(run)
    report_unended(study, run.watch)
    enter("finalists")
    measure_finalists(run, study)
    enter("race")
    with quiet_optuna():
        run_race(run, study, makers.trainer(), take_over=take_over)
    enter("report")
    return _result(run, study)


def _trial_runner(run: Run, study: SearchStudy) -> TrialRunner:
    """Return the runner that proposes, runs and stores the trials on behalf of an engine."""
    search = run.spec.search
    return TrialRunner(
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
        moving=moving_budget(study, run.space, search.trials),
        on_event=trial_reporter(run, study),
    )


def _report_all_tried(run: Run) -> None:
    """Report that the search ends early, because its space has no other plan."""
    plans = 0 if run.space.plans is None else len(run.space.plans)
    tried = "the one distinct plan is" if plans == 1 else f"all {plans} distinct plans are"
    run.watch(Stage(f"{tried} tried: the search ends before {run.spec.search.trials} trials"))


def _result(run: Run, study: SearchStudy) -> SearchResult:
    """Summarise the study, store the savings of its winner, and publish the page of the dashboard."""
    summary = summarise(study, with_importances=True)
    step = next_step(study, summary)
    store_savings(run, study, summary)
    page = publish(study, run.spec, run.watch, summary)
    return SearchResult(study.name, study.url, run.spec.folder, summary, step, page)


@dataclass(frozen=True)
class _Makers:
    """Makes scorers and trainers: from the loaded parts or, in workers, from names."""

    parts: ScoreParts
    factory: ScorerFactory | None
    watch: Watcher

    @classmethod
    def of(cls, run: Run, study: SearchStudy, moments: StudyMoments | None) -> _Makers:
        """Make the supernet and the moments if the study needs them and does not have them yet."""
        stored_ranking(study, run.prunable, None)  # raises here, once, if the ranking is damaged
        ranking, others = study.facts.ranking, study.facts.rankings
        supernet = prepare_supernet(run, study)
        if moments is None or supernet is not None:
            moments = moments_of(run, with_weights(run.prunable, supernet))
        note, measured = prepare_moments(study, moments) or (None, None)
        dense, spec, setting = run.dense, run.spec, run.setting
        parts = ScoreParts(dense, run.prunable, spec, setting, ranking, supernet, measured, others)
        if not spec.is_parallel:
            return cls(parts, None, run.watch)
        passed = dense if spec.model.name is None and spec.model.factory is None else None
        hashes = identify_parts(dense, run.prunable, supernet)
        factory = ScorerFactory(spec, setting, ranking, passed, supernet, note, hashes, others=others)
        return cls(parts, factory, run.watch)

    def scorer(self) -> MakeScorer:
        """Return the function that makes the score of the trials."""
        if self.factory is not None:
            return self.factory
        score = make_score(*self.parts)
        return lambda: score

    def trainer(self) -> MakeScorer:
        """Return the function that makes the trainer of a race."""
        if self.factory is not None:
            return RaceTrainerFactory(self.factory)
        return lambda: RaceTrainer(self.parts, self.watch)
