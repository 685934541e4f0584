"""Own the study of one search: an Optuna study with the search's config, and the facts that it rests on.

Before: `pipeline` knows model, data and space; after: `engines` run trials in it, reports read its records.

    study = create_study("sqlite:///runs/fm.db", "fm-50", config=..., identity={"model": "9f3c...", ...})
    study = open_study("sqlite:///runs/fm.db", "fm-50")       # all that a resume needs: study.config
    study.require({"model": "9f3c...", ...})                  # refuses another model, data or space
"""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from autoprune.errors import StudyError, abridged, shown_url, suggest
from autoprune.samplers import QUEUED
from autoprune.study import _queue as queue
from autoprune.study._facts import StudyFacts
from autoprune.study._header import HEADER, Header, is_blank, read_header, replace_config, write_header
from autoprune.study._leases import Lease, TakenOverError, this_process
from autoprune.study._pareto import best_of
from autoprune.study._records import LATENCY, MeasuredLatency, TrialRecord, read_record
from autoprune.study._sound_trials import sound_view
from autoprune.study._storage import is_vacant, open_storage, storage_errors
from autoprune.study._trial_attributes import ORIGIN

SCORE = "score"

_MEASURED = "autoprune:measured"


class SearchStudy:
    """An Optuna study of autoprune's.

    Attributes:
        url: where the storage is.
        name: the study's name in it.
        optuna: the Optuna study, with whatever sampler it was given last.
        config: the resolved config of the search.
        identity: what must be the same on resume: {"model": fingerprint, "data": ..., "space": ...}.
        facts: what was measured and chosen once, at its start.
        objectives: "score", which is maximised, then the costs that are minimised beside it.
    """

    def __init__(self, url: str, study: optuna.Study, header: Header) -> None:
        self.url = url
        self.name = study.study_name
        self.objectives: tuple[str, ...] = tuple(header.objectives)
        self.optuna = sound_view(study, len(self.objectives))
        self.config = header.config
        self.identity = header.identity
        self.facts = header.chosen
        self._claims: dict[int, str] = {}
        self._claimed: set[str] = set()  # more than in `_claims` where a claim was interrupted

    def require(self, identity: Mapping[str, str]) -> None:
        """Refuse to go on with another model, data or space than the study was made for.

        Raises:
            StudyError: naming everything that differs.
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

    def store_config(self, config: Mapping[str, Any]) -> None:
        """Store a changed config in place of the one that the search began with."""
        with storage_errors(self.url):
            replace_config(self.optuna, config)
        self.config = json.loads(json.dumps(config))

    def records(self) -> list[TrialRecord]:
        """Return the records of all trials, by number. Damaged ones are left out with a warning."""
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
        """Return the trial with the best raw score among those that climbed every rung; the earliest wins.

        With several objectives that is the end of the front where the score is best.
        Where the latency of finalists was measured, the best of those that kept to the budget with their
        whole interval, or else with their median; where none did, the fastest of them. Before that, the
        best of those that are expected to keep to it, if any.

        Raises:
            StudyError: no trial has completed yet.
        """
        finished = self.finished()
        measured = [record for record in finished if record.measured is not None]
        met = [record for record in measured if record.measured and record.measured.met is not False]
        sure = [record for record in met if record.measured and record.measured.keeps_surely]
        if measured and not met:
            return min(measured, key=lambda record: record.measured.ratio if record.measured else math.inf)
        limit = self.facts.limits.get(LATENCY, math.inf)
        expected = [record for record in finished if record.costs.get(LATENCY, 0.0) <= limit]
        return best_of(sure or met or expected or finished, self.objectives, self.dense_ms)

    @property
    def dense_ms(self) -> float | None:
        """The dense model's latency that predictions rest on; None where none was asked for."""
        return self.facts.dense_costs.get(LATENCY)

    def finished(self) -> list[TrialRecord]:
        """Return the trials that climbed every rung, by number.

        Raises:
            StudyError: there is none yet.
        """
        finished = [record for record in self.records() if record.is_whole]
        if not finished:
            raise StudyError(f"{self.name}: no trial has completed yet; resume the search first.")
        return finished

    def store_measured(self, number: int, measured: MeasuredLatency) -> None:
        """Keep the latency of a trial that has ended, in a note of its own: other hosts keep theirs."""
        self.store_note(f"{_MEASURED}:{number}", asdict(measured))

    def _measured(self) -> dict[int, MeasuredLatency]:
        with storage_errors(self.url):
            notes = self.optuna.user_attrs
        return {
            int(number): MeasuredLatency.from_json(values, where=f"{self.name}: {key} is damaged")
            for key, values in notes.items()
            if key.startswith(f"{_MEASURED}:") and (number := key.rpartition(":")[2]).isdecimal()
        }

    def enqueue(self, ratios: Mapping[str, float], origin: str) -> None:
        """Queue a trial with given ratios before the sampler's own; `origin` names where they come from."""
        with storage_errors(self.url):
            self.optuna.enqueue_trial(dict(ratios), user_attrs={ORIGIN: origin})

    def ask(self, target: int) -> Trial | None:
        """Claim the next waiting trial, or a new one while the study has fewer than `target` trials.

        Where several processes ask at the same moment, each may make the last one: see `queue.claim_trial`.
        """
        lease = this_process()
        self._claimed.add(lease.claim)
        with storage_errors(self.url):
            trial = queue.claim_trial(self.optuna, target=target, lease=lease)
        if trial is not None:
            self._claims[trial.number] = lease.claim
        return trial

    def was_queued(self, number: int) -> bool:
        """Tell whether a trial's ratios, or some of them, were given when it was queued."""
        return QUEUED in self._trial(number).system_attrs

    def claim_of(self, number: int) -> str:
        """Return what names the last time that `ask` gave a trial to this object."""
        return self._claims[number]

    def require_held(self, number: int, claim: str) -> None:
        """Refuse to say more of a trial that another process has taken over from a claim.

        Raises:
            TakenOverError: it was queued again since, and may run elsewhere or have ended there.
        """
        with storage_errors(self.url):
            taken_over = queue.is_taken_over(self.optuna, number, claim)
        if taken_over:
            raise self._taken_over(number)

    def tell(self, number: int, state: TrialState, values: Sequence[float] = ()) -> None:
        """Finish a trial; a complete one has a value for each objective.

        Raises:
            TakenOverError: another process has taken it over.
        """
        with storage_errors(self.url):
            try:
                self.optuna.tell(number, list(values) if state == TrialState.COMPLETE else None, state=state)
            except ValueError as error:  # of a trial that does not run, among others
                if not queue.is_taken_over(self.optuna, number, self._claims.get(number)):
                    raise
                raise self._taken_over(number) from error

    def _taken_over(self, number: int) -> TakenOverError:
        return TakenOverError(f"{self.name}: trial {number} was taken over by another process.")

    def left(self, target: int) -> int:
        """Return how many trials have not ended, with those that a study of `target` trials still lacks."""
        with storage_errors(self.url):
            return queue.count_left(self.optuna, target)

    def ended(self) -> int:
        """Return how many trials have ended, however they did."""
        with storage_errors(self.url):
            return queue.count_ended(self.optuna)

    def annotate(self, trial: Trial, **attributes: Any) -> None:
        """Store attributes of a trial's record."""
        with storage_errors(self.url):
            for key, value in attributes.items():
                trial.set_user_attr(key, value)

    def constrain(self, trial: Trial, violations: Mapping[str, float]) -> None:
        """Store by how much a trial breaks each limit of the budget. A constraint holds up to 0.

        Only Optuna's dashboard and plots use them: samplers propose nothing over the budget.
        """
        with storage_errors(self.url):
            for name in violations.keys() - trial.constraints.keys():  # all are there if it was interrupted
                trial.set_constraint(name, violations[name])

    def store_score(self, number: int, step: int, score: float) -> None:
        """Store the score that a trial reached at one step."""
        with storage_errors(self.url):
            queue.store_score(self.optuna, number, step, score)

    def requeue(self, number: int) -> None:
        """Send a running trial back to the queue under its own number."""
        with storage_errors(self.url):
            queue.requeue_trial(self.optuna, number)

    def requeue_dead(self, *, other_hosts: bool = False) -> list[int]:
        """Re-queue the running trials whose process is dead, and return their numbers.

        Trials that live processes hold are left alone, and so are those of other hosts, unless `other_hosts`
        says that those are gone. A trial whose process died again and again is failed instead.
        """
        with storage_errors(self.url):
            dead = queue.dead_trials(self.optuna, other_hosts=other_hosts)
            return [seen.number for seen in dead if queue.revive_trial(self.optuna, seen)]

    def held_elsewhere(self) -> dict[int, str]:
        """Return {number: host} of the running trials of other hosts: those cannot be seen from here."""
        with storage_errors(self.url):
            return queue.foreign_trials(self.optuna)

    def unended(self) -> dict[int, Lease | None]:
        """Return {number: who runs it, None if it waits} of the trials that have not ended."""
        with storage_errors(self.url):
            return queue.unended_trials(self.optuna)

    def store_note(self, key: str, value: Any) -> None:
        """Keep a JSON value beside the trials."""
        with storage_errors(self.url):
            self.optuna.set_user_attr(key, value)

    def store_note_once(self, key: str, value: Any) -> Any:
        """Keep a JSON value unless there is one under the key; return the one that counts, for all processes.

        To look and to write are two steps. Of processes that look before any has written, the last to write
        counts: each waits for the writes of others before it reads which that is. One that takes longer than
        the wait between its two steps replaces a value that others go by already.
        """
        if self.note(key) is None:
            self.store_note(key, value)
        time.sleep(queue.CLAIM_S)
        return self.note(key)

    def note(self, key: str) -> Any:
        """Return what `store_note` kept, or None."""
        with storage_errors(self.url):
            return self.optuna.user_attrs.get(key)

    def release(self) -> list[int]:
        """Re-queue the running trials that `ask` claimed for this object, and return their numbers.

        Not all of this process: another search on the study may run in it, in a thread of its own.
        """
        with storage_errors(self.url):
            held = queue.held_trials(self.optuna, self._claimed)
            return [seen.number for seen in held if queue.give_back(self.optuna, seen)]


def create_study(
    url: str,
    name: str,
    *,
    config: Mapping[str, Any],
    identity: Mapping[str, str],
    facts: StudyFacts,
    objectives: Sequence[str] = (SCORE,),
) -> SearchStudy:
    """Create the study of a new search; the first thing that touches the storage.

    Args:
        url: the storage; see `open_storage`.
        name: the study's name.
        config: the resolved config, as JSON takes it.
        identity: fingerprints of what the search rests on; a resume must bring the same.
        facts: what was measured and chosen at the start.
        objectives: "score" and the costs to minimise beside it.

    Raises:
        StudyError: a study of that name exists, or the storage cannot be used.
    """
    header = Header(
        config=json.loads(json.dumps(config)),  # as it reads back: lists for tuples
        identity=dict(identity),
        chosen=facts,
        objectives=list(objectives),
    )
    directions = [StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * (len(objectives) - 1)]
    storage = open_storage(url, create=True)
    with storage_errors(url):
        if _holds(storage, name):
            study = optuna.load_study(study_name=name, storage=storage)
            if not is_blank(study):
                raise StudyError(
                    f"{name}: a study of that name exists in {shown_url(url)}; resume it, or choose another "
                    "name."
                )
            if study.directions != directions:  # left empty by a search for something else
                optuna.delete_study(study_name=name, storage=storage)
        if not _holds(storage, name):
            study = optuna.create_study(storage=storage, study_name=name, directions=directions)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(list(objectives))  # for Optuna's dashboard, plots and data frames
        write_header(study, header)
        return SearchStudy(url, study, header)


def open_study(url: str, name: str) -> SearchStudy:
    """Open the study of an earlier search; nothing is written.

    Raises:
        StudyError: there is no such storage or study, it is not one of autoprune's, or of a later version.
    """
    storage = open_storage(url, create=False)
    with storage_errors(url):
        if not _holds(storage, name):
            names = study_names(storage)
            hint = suggest(name, names) or f" Studies there: {', '.join(names) or 'none'}."
            raise StudyError(f"{name}: no such study in {shown_url(url)}.{hint}")
        study = optuna.load_study(study_name=name, storage=storage)
        header = read_header(study)
        if header is None:
            raise StudyError(
                f"{name}: not a study of this version of autoprune (attribute {HEADER!r} is missing or of "
                "another format); choose another study or storage."
            )
        return SearchStudy(url, study, header)


def study_state(url: str, name: str) -> Literal["none", "ours", "foreign"]:
    """Tell what a storage has under a name: nothing, a study that can be gone on with, or someone else's.

    A study that was killed while it was made, before it held anything, counts as none.

    Raises:
        StudyError: the storage cannot be used.
    """
    if is_vacant(url):
        return "none"
    storage = open_storage(url, create=False)
    with storage_errors(url):
        if not _holds(storage, name):
            return "none"
        study = optuna.load_study(study_name=name, storage=storage)
        if read_header(study) is not None:
            return "ours"
        return "none" if is_blank(study) else "foreign"


def study_names(storage: BaseStorage) -> list[str]:
    """Return the names of all studies in a storage, or none if an attribute of any of them is damaged."""
    try:
        return [study.study_name for study in storage.get_all_studies()]
    except (ValueError, TypeError, RecursionError):
        return []


def _holds(storage: BaseStorage, name: str) -> bool:
    """Tell whether a storage has a study of a name, whatever the attributes of its studies are."""
    try:
        storage.get_study_id_from_name(name)
    except KeyError:
        return False
    return True
