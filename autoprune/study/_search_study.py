"""The study of one search: an Optuna study with the search's config and the facts that it rests on.

Example:
    study = open_study("sqlite:///runs/fm.db", "fm-50")
    study.require({"model": "9f3c...", "data": "51d0..."})    # refuses another model, data or space
    trial = study.ask(target=60)                              # claims a trial for this process
    study.best().widths
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from autoprune.cost import LATENCY
from autoprune.errors import StudyError, abridged
from autoprune.samplers import ENDED_BEFORE, OUTCOME, PLANNED, QUEUED, fact_key, fact_of, set_attribute
from autoprune.space import Candidate
from autoprune.study import _queue as queue
from autoprune.study._header import Header, read_header, replace_config
from autoprune.study._notes import NotedStudy
from autoprune.study._pareto import best_of, front_of, smallest_of
from autoprune.study._race import LEASE, RACE, Race, RaceEntry, RaceResult, entry_key, read_entry, read_race
from autoprune.study._records import MeasuredLatency, TrialRecord, proposal_fact, read_record
from autoprune.study._shown_attributes import shown_outcome, shown_proposal
from autoprune.study._sound_trials import sound_view
from autoprune.study._storage_errors import storage_errors
from autoprune.study._trial_attributes import DEATHS, ORIGIN, PROPOSAL, SAMPLER
from autoprune.support.leases import Lease, TakenOverError, is_alive, this_process

SCORE = "score"

_MEASURED = "autoprune:measured"


class SearchStudy(NotedStudy):
    """A study in an Optuna storage. Several processes may hold an object of the same study.

    Attributes:
        url: URL of the storage.
        name: name of the study in it.
        optuna: the Optuna study. It lists no damaged trials, and has the sampler that was set last.
        config: the resolved config of the search.
        identity: fingerprints that a resume must have, too: {"model": "9f3c...", "data": ..., "space": ...}.
        facts: measurements and choices that were made once, at the start of the search.
        objectives: "score", which is maximised, then the costs that are minimised.
    """

    def __init__(self, url: str, study: optuna.Study, header: Header) -> None:
        super().__init__(url, sound_view(study, len(header.objectives)))
        self.objectives: tuple[str, ...] = tuple(header.objectives)
        self.config = header.config
        self.identity = header.identity
        self.facts = header.chosen
        self._claims: dict[int, str] = {}
        self._claimed: set[str] = set()  # has more than `_claims` if Ctrl-C interrupted a claim

    def require(self, identity: Mapping[str, str]) -> None:
        """Refuse another model, data or space than those that the study was made for.

        Raises:
            StudyError: one of them differs. The message names all that do.
        """
        differs = [
            f"{key} is {abridged(identity.get(key))} here and {abridged(self.identity.get(key))} in the study"
            for key in dict.fromkeys([*self.identity, *identity])
            if identity.get(key) != self.identity.get(key)
        ]
        if differs:
            raise StudyError(
                f"{self.name}: cannot go on: {'; '.join(differs)}. Restore that, or start another study."
            )

    def reread(self) -> None:
        """Read the config again, which another process may have changed.

        Raises:
            StudyError: the storage cannot be read, or the study is gone or damaged.
        """
        with storage_errors(self.url):
            header = read_header(self.optuna)
        if header is None:
            raise StudyError(f"{self.name}: its header is gone. Restore the storage from a copy.")
        self.config = header.config

    def store_config(self, config: Mapping[str, Any]) -> None:
        """Store a changed config. It replaces the one that the search began with."""
        with storage_errors(self.url):
            replace_config(self.optuna, config)
        self.config = json.loads(json.dumps(config))

    def records(self) -> list[TrialRecord]:
        """Return the records of all trials, by number. Damaged trials are left out with a warning."""
        measured = self._measured()
        with storage_errors(self.url):
            trials = self.optuna.get_trials(deepcopy=False)
        return [self._read(trial, measured) for trial in trials]

    def record(self, number: int) -> TrialRecord:
        """Return the record of one trial.

        Raises:
            StudyError: there is no such trial, or it is damaged.
        """
        return self._read(self._trial(number), self._measured())

    def _read(self, trial: FrozenTrial, measured: Mapping[int, MeasuredLatency]) -> TrialRecord:
        return read_record(trial, measured.get(trial.number), objectives=len(self.objectives))

    def _trial(self, number: int) -> FrozenTrial:
        with storage_errors(self.url):
            trials = self.optuna.get_trials(deepcopy=False)
        for trial in trials:
            if trial.number == number:
                return trial
        raise StudyError(f"{self.name}: there is no trial {number}, or it is damaged.")

    def best(self) -> TrialRecord:
        """Return the winner of the race, or before a race the best of `contenders`.

        Of trials with equal scores, the cheapest by the objectives counts, then the earliest. With several
        objectives, the result is the end of the Pareto front with the best score.

        Raises:
            StudyError: no trial has completed yet.
        """
        race = self.race()
        return self.best_of(self.contenders()) if race is None else self.record(race.result.winner)

    def contenders(self) -> list[TrialRecord]:
        """Return the trials that climbed every rung and may be the best one.

        If the latency of finalists was measured, only finalists count: those whose whole interval is within
        the budget, else those whose median is, else the fastest. If no latency was measured, only trials
        count that are predicted to be within the latency budget, if there are any.

        Raises:
            StudyError: no trial has completed yet.
        """
        finished = self.finished()
        measured = [record for record in finished if record.measured is not None]
        met = [record for record in measured if record.measured and record.measured.met is not False]
        sure = [record for record in met if record.measured and record.measured.keeps_surely]
        if measured and not met:
            return [min(measured, key=lambda record: record.measured.ratio if record.measured else math.inf)]
        limit = self.facts.limits.get(LATENCY, math.inf)
        expected = [record for record in finished if record.costs.get(LATENCY, 0.0) <= limit]
        return sure or met or expected or finished

    @property
    def least_score(self) -> float | None:
        """The smallest score within the tolerance of the search, or None if it has no tolerance."""
        tolerance = self.facts.tolerance
        return None if tolerance is None else self.facts.dense_score - tolerance.allowed

    def best_of(self, records: Sequence[TrialRecord]) -> TrialRecord:
        """Return the trial with the best score: of equals the cheapest by the objectives, then the first.

        If the search has a tolerance, it is the smallest trial within it, or the nearest (`smallest_of`).
        """
        if self.facts.tolerance is not None and self.least_score is not None:
            return smallest_of(records, self.facts.tolerance.cost, self.least_score, self.dense_ms)
        return best_of(records, self.objectives, self.dense_ms)

    def front(self, records: Iterable[TrialRecord] | None = None) -> list[TrialRecord]:
        """Return the Pareto front of some or all trials, the cheapest first (see `front_of`)."""
        return front_of(self.records() if records is None else records, self.objectives, self.dense_ms)

    @property
    def dense_ms(self) -> float | None:
        """Latency of the dense model that predictions rest on, or None if the search has no latency table."""
        return self.facts.dense_costs.get(LATENCY)

    def finished(self) -> list[TrialRecord]:
        """Return the trials that climbed every rung, by number.

        Raises:
            StudyError: there is none yet.
        """
        finished = [record for record in self.records() if record.is_whole]
        if not finished:
            raise StudyError(f"{self.name}: no trial has completed yet. Resume the search first.")
        return finished

    def store_measured(self, number: int, measured: MeasuredLatency) -> None:
        """Store the measured latency of a trial that has ended.

        A trial that has ended takes no attributes. Each latency is a note of its own, so that several
        processes can store theirs at the same time.
        """
        self.store_note(f"{_MEASURED}:{number}", asdict(measured))

    def _measured(self) -> dict[int, MeasuredLatency]:
        with storage_errors(self.url):
            notes = self.optuna.user_attrs
        return {
            int(number): MeasuredLatency.from_json(values, where=f"{self.name}: {key} is damaged")
            for key, values in notes.items()
            if key.startswith(f"{_MEASURED}:") and (number := key.rpartition(":")[2]).isdecimal()
        }

    def race(self) -> Race | None:
        """Return the race of the best trials, or None if none has ended yet.

        Raises:
            StudyError: its notes are damaged.
        """
        with storage_errors(self.url):
            return read_race(self.optuna.user_attrs, self.name)

    def race_entry(self, number: int) -> RaceEntry | None:
        """Return an entrant of a race that may still run, or None if the trial never took part.

        Raises:
            StudyError: its note is damaged.
        """
        values = self.note(entry_key(number))
        return None if values is None else read_entry(values, self.name, number)

    def store_race_entry(self, number: int, entry: RaceEntry) -> None:
        """Store an entrant of a race in place of its earlier note."""
        self.store_note(entry_key(number), entry.model_dump(mode="json"))

    def store_race(self, result: RaceResult) -> None:
        """Store the result of a race."""
        self.store_note(RACE, result.model_dump(mode="json"))

    def racing(self, *, take_over: bool = False) -> AbstractContextManager[Lease | None]:
        """Claim the race for this process within the block.

        Args:
            take_over: whether to claim it from a process of another host, which cannot be seen.

        Yields:
            None, or the lease of another process that has the race.
        """
        return self.claimed(LEASE, take_over=take_over)

    def holders(self) -> list[Lease]:
        """Return the leases of processes that run a trial or the race, or may do so on another host."""
        held = [*self.unended().values(), Lease.from_json(self.note(LEASE))]
        return [lease for lease in held if lease is not None and is_alive(lease) is not False]

    def enqueue(self, ratios: Mapping[str, float], origin: str) -> None:
        """Queue a trial with given ratios, before those of the sampler. `origin` names its source."""
        with storage_errors(self.url):
            self.optuna.enqueue_trial(dict(ratios), user_attrs={ORIGIN: origin})

    def ask(self, target: int) -> Trial | None:
        """Claim the next waiting trial, or a new one if the study has fewer than `target` trials.

        If none is left, the trials of processes of this host that died meanwhile are queued again. If several
        processes ask at the same moment, each may create the last trial: see `claim_trial`.
        """
        lease = this_process()
        self._claimed.add(lease.claim)
        with storage_errors(self.url):
            trial = queue.claim_trial(self.optuna, target=target, lease=lease)
            if trial is None and self.requeue_dead():
                trial = queue.claim_trial(self.optuna, target=target, lease=lease)
        if trial is not None:
            self._claims[trial.number] = lease.claim
        return trial

    def was_queued(self, number: int) -> bool:
        """Return whether a trial was queued with some or all of its ratios."""
        return QUEUED in self._trial(number).system_attrs

    def claim_of(self, number: int) -> str:
        """Return the identifier of the last claim of a trial by `ask` of this object."""
        return self._claims[number]

    def require_held(self, number: int, claim: str) -> None:
        """Refuse to go on with a trial if another process took it over after this claim.

        Raises:
            TakenOverError: the trial was queued again. It may run elsewhere, or have ended there.
        """
        with storage_errors(self.url):
            taken_over = queue.is_taken_over(self.optuna, number, claim)
        if taken_over:
            raise self._taken_over(number)

    def tell(self, number: int, state: TrialState, values: Sequence[float] = ()) -> None:
        """End a trial. A complete one has a value for each objective.

        Raises:
            TakenOverError: another process has taken it over.
        """
        with storage_errors(self.url):
            try:
                self.optuna.tell(number, list(values) if state == TrialState.COMPLETE else None, state=state)
            except ValueError as error:  # the trial does not run, or the values are wrong
                if not queue.is_taken_over(self.optuna, number, self._claims.get(number)):
                    raise
                raise self._taken_over(number) from error

    def _taken_over(self, number: int) -> TakenOverError:
        return TakenOverError(f"{self.name}: trial {number} was taken over by another process.")

    def left(self, target: int) -> int:
        """Return how many trials have not ended, and how many are still to be made up to `target`, in sum."""
        with storage_errors(self.url):
            return queue.count_left(self.optuna, target)

    def ended(self) -> int:
        """Return how many trials have ended: complete, pruned or failed."""
        with storage_errors(self.url):
            return queue.count_ended(self.optuna)

    def annotate(self, trial: Trial, **attributes: Any) -> None:
        """Store user attributes of a trial, for people."""
        with storage_errors(self.url):
            for key, value in attributes.items():
                trial.set_user_attr(key, value)

    def store_fact(self, trial: Trial, name: str, value: Any) -> None:
        """Store a fact of a trial, which its record is made of."""
        with storage_errors(self.url):
            set_attribute(self.optuna, trial, fact_key(name), value)

    def store_proposal(
        self, trial: Trial, widths: Candidate, costs: Mapping[str, float], *, seed: int, device: str
    ) -> None:
        """Store the candidate of a trial as soon as its widths are known."""
        planned = self._trial(trial.number).system_attrs.get(PLANNED)
        origin = planned[0] if planned else trial.user_attrs.get(ORIGIN, SAMPLER)
        shown = shown_proposal(widths, costs, self.facts, self.objectives)
        self.annotate(trial, **{ORIGIN: origin, **shown})
        self.store_fact(trial, PROPOSAL, proposal_fact(widths, costs, seed=seed, device=device))

    def store_outcome(
        self, trial: Trial, seconds: float, *, reused: int | None = None, failure: str | None = None
    ) -> None:
        """Store how a trial ends. Call it before `tell`: a trial that has ended takes no attributes."""
        self.annotate(trial, **shown_outcome(reused=reused, failure=failure))
        known = {"seconds": seconds, ENDED_BEFORE: self.ended(), "reused": reused, "failure": failure}
        self.store_fact(trial, OUTCOME, known)

    def count_death(self, trial: Trial) -> int:
        """Count a worker process that died while it scored a trial. Return the number of such deaths."""
        deaths = int(fact_of(self._trial(trial.number), DEATHS, 0)) + 1
        self.store_fact(trial, DEATHS, deaths)
        return deaths

    def constrain(self, trial: Trial, violations: Mapping[str, float]) -> None:
        """Store by how much a trial exceeds each limit of the budget. A constraint holds if it is <= 0.

        Only Optuna's dashboard and plots use constraints. Samplers propose nothing over the budget.
        """
        with storage_errors(self.url):
            # A trial that was killed and runs again has its constraints already.
            for name in violations.keys() - trial.constraints.keys():
                trial.set_constraint(name, violations[name])

    def store_score(self, number: int, step: int, score: float) -> None:
        """Store the score of a trial after one step."""
        with storage_errors(self.url):
            queue.store_score(self.optuna, number, step, score)

    def requeue(self, number: int) -> None:
        """Send a running trial back to the queue under its own number."""
        with storage_errors(self.url):
            queue.requeue_trial(self.optuna, number)

    def requeue_dead(self, *, other_hosts: bool = False) -> list[int]:
        """Re-queue the running trials whose process is dead, and return their numbers.

        Trials of live processes are left alone. Trials of other hosts are left alone, too, unless
        `other_hosts` means that those hosts are gone. A trial fails if its process died too often.
        """
        with storage_errors(self.url):
            dead = queue.dead_trials(self.optuna, other_hosts=other_hosts)
            return [seen.number for seen in dead if queue.revive_trial(self.optuna, seen)]

    def held_elsewhere(self) -> dict[int, str]:
        """Return {number: host} of the running trials of other hosts, whose processes cannot be seen here."""
        with storage_errors(self.url):
            return queue.foreign_trials(self.optuna)

    def unended(self) -> dict[int, Lease | None]:
        """Return {number: lease} of the trials that have not ended. A trial that waits has the lease None."""
        with storage_errors(self.url):
            return queue.unended_trials(self.optuna)

    def release(self) -> list[int]:
        """Re-queue the running trials that this object has claimed, and return their numbers.

        Other trials of this process are left alone: another search of the study may run in another thread.
        """
        with storage_errors(self.url):
            held = queue.held_trials(self.optuna, self._claimed)
            return [seen.number for seen in held if queue.give_back(self.optuna, seen)]
