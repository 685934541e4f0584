"""The lifecycle of a trial, the same for every engine: ask, decode, climb rungs, prune, finish or fail.

Example:
    runner = TrialRunner(study, space, sampler="tpe", pruner="median", trials=60, rungs=2)
    while (job := runner.ask()) is not None:
        for rung in scorer(job.widths, job.variant):
            if not runner.report(job, rung):
                break
        runner.finish(job)

This file alone records how a trial ended, except that `study._queue` fails a trial that kills its process
again and again. It runs in one process: workers never access the storage.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
from optuna.pruners import NopPruner
from optuna.trial import Trial, TrialState

from autoprune.config.rungs import RungScore
from autoprune.engines._pruners import EarlyStopping, make_pruner, rung_step
from autoprune.engines._runner import Job
from autoprune.engines._workers import MAX_DEATHS
from autoprune.errors import PlanError, StudyError, reason_of
from autoprune.samplers import (
    SCORES,
    EvolutionRates,
    MovingBudget,
    distributions,
    make_sampler,
    trial_seed,
)
from autoprune.space import Candidate, CostFunction, SearchSpace
from autoprune.study import (
    SearchStudy,
    TakenOverError,
    TrialRecord,
)

HOPELESS = 5
"""Number of failures without any success that ends a search: the fault is not in the candidates then."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrialEvent:
    """Progress: a trial started, climbed a rung, finished (in any state), or went back to the queue."""

    kind: Literal["started", "rung", "finished", "requeued"]
    number: int
    rung: RungScore | None = None
    record: TrialRecord | None = None


@dataclass
class _Attempt:
    """The state of a running trial. `costs` are those costs of its candidate that are objectives."""

    trial: Trial
    started: float
    costs: list[float] = field(default_factory=list)
    scores: list[RungScore] = field(default_factory=list)
    pruned: bool = False
    fault: str | None = None


class TrialRunner:
    """Runs the trials of one search.

    Args:
        study: stores everything.
        space: decodes proposals into widths.
        sampler: a row of SAMPLERS, or "package.module:function".
        pruner: a row of PRUNERS, or "package.module:function".
        trials: number of trials that the study gets in all, failed ones included. It gets fewer if the space
            has fewer plans.
        rungs: number of rungs that the scorer climbs. The score of the last one is the objective.
        seed: the search's seed.
        device: name of the device in the records.
        statistics: {statistic: {variable: value}} for the samplers that draw by it.
        shapes: {parameter: dense shape} for the samplers that look at layers.
        rates: settings of the sampler "evolution".
        cost: computes the costs of a candidate for its record. By default it is the space's function.
        moving: chooses the share of the budget of each trial, if the search is for the smallest model.
        on_event: called with every `TrialEvent`, in this process, after the event is stored. If it raises an
            error, the search ends. The trial has ended before, or goes back to the queue.

    If the study has several objectives or the budget moves, every trial climbs all rungs: a low score alone
    is no reason to stop.

    Another process may take a trial over, if two processes resume a search at once, or one of them runs
    trials of other hosts again. Reports of such a trial are dropped with one warning, and the search
    continues.

    Raises:
        ConfigError: the sampler or pruner is unknown, or the sampler lacks its statistic.
    """

    def __init__(
        self,
        study: SearchStudy,
        space: SearchSpace,
        *,
        sampler: str,
        pruner: str = "median",
        trials: int = 60,
        rungs: int = 1,
        seed: int = 0,
        device: str = "cpu",
        statistics: Mapping[str, Mapping[str, float]] | None = None,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        rates: EvolutionRates | None = None,
        cost: CostFunction | None = None,
        moving: MovingBudget | None = None,
        on_event: Callable[[TrialEvent], None] | None = None,
    ) -> None:
        self.study = study
        self.space = space
        self.trials = trials
        self.rungs = rungs
        self.seed = seed
        self.device = device
        self._on_event = on_event or (lambda event: None)
        self._distributions = distributions(space.variables)
        self._cost = cost or space.cost
        is_fixed = len(study.objectives) == 1 and moving is None
        judge = make_pruner(pruner, rungs) if is_fixed else NopPruner()
        self.early = EarlyStopping(study.optuna, judge)
        self._attempts: dict[str, _Attempt] = {}
        study.optuna.sampler = make_sampler(
            sampler,
            seed=seed,
            trials=trials,
            space=space,
            statistics=statistics,
            shapes=shapes,
            rates=rates,
            objectives=len(study.objectives),
            rungs=rungs,
            moving=moving,
        )

    def left(self) -> int:
        """Return the number of trials that wait, that run, and that have not been proposed yet."""
        return self.study.left(self._target())

    @property
    def has_tried_all(self) -> bool:
        """Whether every plan of the space is a trial, although the study has fewer trials than requested.

        Any further trial would repeat the widths of an earlier one.
        """
        plans = self.space.plans
        if plans is None or len(plans) >= self.trials:
            return False
        tried = {
            tuple(record.widths.get(name) for name in self.space.groups) for record in self.study.records()
        }
        return tried.issuperset(map(tuple, plans.tolist()))

    def _target(self) -> int:
        """Return the number of trials that the study should have, or 0 if it needs no more."""
        return 0 if self.has_tried_all else self.trials

    def ask(self) -> Job | None:
        """Return the next trial to score, or None if the study has all its trials, or all plans are tried.

        A trial whose widths were scored before reuses those scores and never reaches the engine. A trial that
        was queued with unusable ratios fails.

        Raises:
            StudyError: the first trials have all failed.
        """
        while (trial := self.study.ask(self._target())) is not None:
            claim = self.study.claim_of(trial.number)
            self._attempts[claim] = _Attempt(trial, time.perf_counter())
            with self._unless_taken_over(trial.number, claim):
                job = self._propose(trial, claim)
                if job is None:
                    continue
                self._on_event(TrialEvent("started", job.number))
                known = self._find_scored(job)
                if known is None:
                    return job
                self._reuse(job, known)
        return None

    def begin(self, job: Job) -> None:
        """Start the trial's clock again, if an engine took the trial before a worker was ready."""
        attempt = self._attempts.get(job.claim)
        if attempt is not None:
            attempt.started = time.perf_counter()

    def report(self, job: Job, rung: RungScore) -> bool:
        """Record a rung's score. Return whether the trial climbs on: an infinite score or NaN ends it."""
        with self._unless_taken_over(job.number, job.claim):
            return self._record(job, self._held(job), rung)
        return False

    def _record(self, job: Job, attempt: _Attempt, rung: RungScore) -> bool:
        if not math.isfinite(rung.score):
            attempt.fault = f"the score of rung {rung.name} is {rung.score}, expected a finite number."
            return False
        self._store_scores(attempt, [rung])
        if len(attempt.scores) < self.rungs:
            with self.study.storage_errors():
                scores = [each.score for each in attempt.scores]
                attempt.pruned = self.early.should_stop(job.number, scores)
        self._on_event(TrialEvent("rung", job.number, rung=rung))
        return len(attempt.scores) < self.rungs and not attempt.pruned

    def finish(self, job: Job) -> None:
        """Record how the trial ended after its last report: complete, pruned, or failed.

        Raises:
            StudyError: the first trials have all failed.
        """
        with self._unless_taken_over(job.number, job.claim):
            attempt = self._held(job)
            if attempt.fault is None and not attempt.pruned and len(attempt.scores) < self.rungs:
                attempt.fault = f"the scorer gave {len(attempt.scores)} scores, expected {self.rungs}."
            if attempt.fault is not None:
                self.fail(job, attempt.fault)
            else:
                self._conclude(job, attempt)

    def fail(self, job: Job, reason: str) -> None:
        """Record the trial as failed. The search continues.

        Raises:
            StudyError: the first trials have all failed.
        """
        with self._unless_taken_over(job.number, job.claim):
            attempt = self._held(job)
            _log.warning("trial %d failed: %s", job.number, reason)
            self._store_outcome(attempt, failure=reason)
            self._end(job, TrialState.FAIL)
            self._require_hope(reason)

    def _require_hope(self, reason: str) -> None:
        records = self.study.records()
        failed = sum(record.state == "failed" for record in records)
        if failed >= HOPELESS and not any(record.state in ("complete", "pruned") for record in records):
            raise StudyError(f"{self.study.name}: the first {failed} trials all failed. The last: {reason}")

    def requeue(self, job: Job) -> None:
        """Send the trial back to the queue under its own number, to be scored from the start."""
        with self._unless_taken_over(job.number, job.claim):
            self._held(job)
            del self._attempts[job.claim]
            self.study.requeue(job.number)
            self._on_event(TrialEvent("requeued", job.number))

    def bury(self, job: Job, how: str) -> None:
        """Handle the death of the process that scored the trial: queue the trial once more, or fail it.

        Args:
            job: of the trial.
            how: cause of the death, as far as it is known, for the trial's record.

        Raises:
            StudyError: as from `fail`.
        """
        with self._unless_taken_over(job.number, job.claim):
            trial = self._held(job).trial
            deaths = self.study.count_death(trial)
            if deaths < MAX_DEATHS:
                self.requeue(job)
            else:
                self.fail(job, f"its worker process died {deaths} times ({how}).")

    def _held(self, job: Job) -> _Attempt:
        """Return the attempt that belongs to a job.

        Raises:
            TakenOverError: another process has taken the trial over.
        """
        attempt = self._attempts.get(job.claim)
        if attempt is None:
            raise TakenOverError(f"{self.study.name}: this attempt at trial {job.number} has been dropped.")
        self.study.require_held(job.number, job.claim)
        return attempt

    @contextlib.contextmanager
    def _unless_taken_over(self, number: int, claim: str) -> Iterator[None]:
        """Drop the attempt, and leave the block, if another process has taken the trial over."""
        try:
            yield
        except TakenOverError:
            if self._attempts.pop(claim, None) is not None:
                _log.warning("trial %d was taken over by another process, so this attempt is dropped", number)

    def _propose(self, trial: Trial, claim: str) -> Job | None:
        """Return the trial's job, or None if the trial failed because its queued ratios cannot be used."""
        seed = trial_seed(self.seed, trial.number)
        try:
            widths = self._decoded(trial)
        except (ValueError, PlanError) as error:
            if not self.study.was_queued(trial.number):
                raise
            reason = f"it was queued with ratios that cannot be used ({reason_of(error)})."
            self.fail(Job(trial.number, Candidate(()), seed, claim), reason)
            return None
        row = np.array([[widths[name] for name in self.space.groups]], dtype=np.int64)
        known = self._cost(row).one().known()
        costs = {name: cost for name, cost in known.items() if isinstance(cost, int | float)}
        self._attempts[claim].costs = [float(costs[name]) for name in self.study.objectives[1:]]
        self.study.store_proposal(trial, widths, costs, seed=seed, device=self.device)
        self.study.constrain(trial, self.space.budget.excess(costs))
        return Job(trial.number, widths, seed, claim)

    def _decoded(self, trial: Trial) -> Candidate:
        """Return the candidate of the trial's ratios. The sampler proposes ratios if there are none."""
        with self.study.storage_errors():
            ratios = [
                trial.suggest_float(name, distribution.low, distribution.high)
                for name, distribution in self._distributions.items()
            ]
        return self.space.candidate(np.array(ratios))

    def _find_scored(self, job: Job) -> TrialRecord | None:
        """Return the first finished trial with the same widths and criteria, if any."""
        for record in self.study.records():
            is_scored = record.state in ("complete", "pruned") and record.scores
            if is_scored and record.widths == job.widths and record.criteria == job.widths.criteria:
                return record
        return None

    def _reuse(self, job: Job, known: TrialRecord) -> None:
        """Give the trial the scores and the verdict of the earlier trial with its widths."""
        attempt = self._attempts[job.claim]
        attempt.pruned = known.pruned
        self._store_scores(attempt, known.scores)
        self._conclude(job, attempt, reused=known.number)

    def _store_scores(self, attempt: _Attempt, new: Sequence[RungScore]) -> None:
        attempt.scores.extend(new)
        for score in new:
            self.study.store_score(attempt.trial.number, rung_step(score.index), score.score)
        self.study.store_fact(attempt.trial, SCORES, [asdict(score) for score in attempt.scores])

    def _store_outcome(
        self, attempt: _Attempt, *, reused: int | None = None, failure: str | None = None
    ) -> None:
        seconds = time.perf_counter() - attempt.started
        self.study.store_outcome(attempt.trial, seconds, reused=reused, failure=failure)

    def _conclude(self, job: Job, attempt: _Attempt, reused: int | None = None) -> None:
        self._store_outcome(attempt, reused=reused)
        if attempt.pruned:
            self._end(job, TrialState.PRUNED)
        else:
            self._end(job, TrialState.COMPLETE, attempt.scores[-1].score)

    def _end(self, job: Job, state: TrialState, score: float = math.nan) -> None:
        self.study.tell(job.number, state, [score, *self._attempts[job.claim].costs])
        del self._attempts[job.claim]
        self._on_event(TrialEvent("finished", job.number, record=self.study.record(job.number)))
