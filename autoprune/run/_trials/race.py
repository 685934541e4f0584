"""The race: the best trials train by the schedule of [finetune], and after each stage the weaker ones stop.

The learning rate of every stage is that of the whole schedule. So a stopped entrant lacks only the later
epochs, and the winner is trained as a finetune would train it. The study stores every stage and the output
folder the state of every training. A killed race therefore resumes after the last epoch.

Example:
    run_race(run, study, make_trainer)      # make_trainer() makes a `RaceTrainer`
    study.race().result.winner
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping, Sequence

from autoprune.config.rungs import RungScore, score_text
from autoprune.engines import Job, MakeScorer, RaceRunner, run_engine
from autoprune.errors import TrialError
from autoprune.run._resolving.run import Run
from autoprune.run._resolving.stored_config import threads_of
from autoprune.run._trials.race_plan import (
    RaceStage,
    entrants_of,
    learning_rates,
    places,
    race_epochs,
    stage_ends,
    survivors,
    trained_steps,
    uniform_of,
)
from autoprune.run._trials.race_trainer import StageScore
from autoprune.run._trials.retraining import training_settings, training_state
from autoprune.study import (
    RaceEntry,
    RaceResult,
    SearchStudy,
    StageFailure,
    StageRecord,
    TrialRecord,
    TriedRate,
    race_key,
    study_command,
)
from autoprune.support.events import Counted, Stage


def run_race(run: Run, study: SearchStudy, make_trainer: MakeScorer, *, take_over: bool = False) -> None:
    """Run the race of a study, or resume it, and store its result.

    Nothing happens if the settings have no race, if fewer than two trials could take part, or if the same
    trials have raced under the same settings.

    Args:
        run: the resolved run.
        study: its study, whose trials have ended.
        make_trainer: makes the trainer in the process that uses it.
        take_over: also continue the race that a process on another host has begun.

    Raises:
        TrialError: all entrants diverged, or a training failed for another reason.
    """
    if not run.spec.has_race or not any(record.is_whole for record in study.records()):
        return
    entrants = entrants_of(study, run.spec.race.entrants)
    if len(entrants) < 2 or _has_ended(run, study, entrants):
        return
    if study.unended():
        run.watch(Stage("the race of the best trials begins when all trials have ended"))
        return
    with study.racing(take_over=take_over) as held:
        if held is None:
            _Race(run, study, make_trainer, entrants).run()
            return
    take = study_command("resume", study.name, study.url, "--take-over")
    holder = f"process {held.pid} on {held.host}"
    run.watch(Stage(f"{holder} runs the race of this study. If that host is gone, run `{take}`"))


def _has_ended(run: Run, study: SearchStudy, entrants: Sequence[TrialRecord]) -> bool:
    """Return whether the same trials have raced under the same settings."""
    race = study.race()
    return (
        race is not None
        and race.result.settings == training_settings(run.spec)
        and race.result.key == _key_of(run, entrants)
    )


def _key_of(run: Run, entrants: Sequence[TrialRecord]) -> str:
    """Return the name of a race among those with equal settings of [finetune]."""
    others = [rate for rate in learning_rates(run.spec) if rate is not None]
    return race_key([each.number for each in entrants], others)


class _Race:
    """A race that runs in this process. The engine trains."""

    def __init__(
        self, run: Run, study: SearchStudy, make_trainer: MakeScorer, entrants: Sequence[TrialRecord]
    ) -> None:
        self._run = run
        self._study = study
        self._make_trainer = make_trainer
        self._records = {record.number: record for record in entrants}
        self._uniform = uniform_of(entrants)
        self._key = _key_of(run, entrants)
        self._settings = training_settings(run.spec)
        self._epochs = run.spec.finetune.epochs
        self._ends = stage_ends(self._epochs)
        self._rates = learning_rates(run.spec)
        self._compared = self._ends[-2] if len(self._rates) > 1 else None
        self._tried: list[TriedRate] = []
        self._entries = {number: self._known(number) for number in self._records}
        self._stage = 0
        self._rate: float | None = None

    def run(self) -> None:
        """Run all stages, and store the result."""
        finetunes = self._expected_epochs() / self._epochs
        ends = ", ".join(map(str, self._ends))
        self._run.watch(
            Stage(
                f"race of {len(self._records)} trials: stages end after {ends} epochs, and all trainings "
                f"together take {finetunes:.1f} finetunes"
            )
        )
        jobs = self._jobs()
        runner = RaceRunner(
            self._study,
            lambda: next((stage for stage in jobs if stage), ()),
            device=self._run.setting.device,
            on_score=self._store,
            on_death=self._drop,
        )
        spec = self._run.spec
        with threads_of(spec.search.engine, self._run.setting):
            run_engine(spec.search.engine, runner, self._make_trainer, spec.workers)

    def _jobs(self) -> Iterator[list[Job]]:
        """Yield the jobs of each stage that are not done. Each is requested when the one before has ended."""
        others = len(self._records) - (self._uniform is not None)
        racing = list(self._records)
        for stage, end in enumerate(self._ends):
            if stage > 0:
                to_come = len(self._ends) - 1 - stage
                scores = self._so_far(racing, self._ends[:stage])
                steps = trained_steps(self._run.spec, self._ends[:stage], len(self._run.dense.data.train))
                racing = survivors(scores, steps, places(others, to_come), uniform=self._uniform)
            self._stage = end
            # The jobs of one learning rate after those of another: an engine knows jobs by their trials.
            for rate in self._rates if end == self._compared else (self._rate,):
                self._rate = rate
                yield [self._job(number) for number in racing if self._is_open(number)]
            if end == self._compared:
                self._choose_rate(racing)
            # A later failure counts later only, or a resumed race would promote others than before.
            left = {number: found for number in racing if (found := self._failure(number)) is not None}
            racing = [number for number in racing if number not in left]
            if not racing:
                number, failure = next(iter(left.items()))
                raise TrialError(
                    f"{self._study.name}: race: no entrant is left. Trial {number}: {failure.reason} The "
                    "trials are kept."
                )
        self._conclude(self._scores(racing))

    def _job(self, number: int) -> Job:
        """Return the job that trains an entrant to the end of the stage."""
        stage = RaceStage(self._stage, self._rate)
        return Job(number, self._records[number].candidate, stage, claim=f"race-{number}-{stage}")

    def _is_open(self, number: int) -> bool:
        entry = self._entries[number]
        stage = entry.at(self._stage, self._rate)
        # An earlier race may have trained the entrant to the end at another learning rate since.
        is_known = stage is not None and (self._stage < self._epochs or stage == entry.last)
        return not is_known and self._failure(number) is None

    def _failure(self, number: int) -> StageFailure | None:
        """Return the failure of an entrant in this stage at this learning rate."""
        return self._entries[number].failure(self._stage, self._rate, self._key)

    def _choose_rate(self, racing: Sequence[int]) -> None:
        """Go on with the learning rate of the highest mean score. Of equal ones the first counts.

        A learning rate at which more trainings diverged than at another is out. Entrants that diverged at the
        chosen one leave the race.
        """
        # The death of a worker is no sign of a bad learning rate.
        alive = [number for number in racing if (found := self._failure(number)) is None or not found.race]
        stages = {rate: [self._entries[n].at(self._stage, rate) for n in alive] for rate in self._rates}
        scores = {rate: [stage.score for stage in each if stage] for rate, each in stages.items()}
        most = max(map(len, scores.values()))
        means = {rate: sum(each) / most for rate, each in scores.items() if len(each) == most > 0}
        self._tried = [TriedRate(learning_rate=self._value(rate), score=means.get(rate)) for rate in scores]
        self._rate = max(means, key=means.__getitem__, default=None)
        compared = f"race: learning rates after {self._stage} epochs: {', '.join(map(str, self._tried))}"
        self._run.watch(Stage(f"{compared}. It goes on with {self._value(self._rate):g}"))
        for number in alive:
            if (failure := self._failure(number)) is not None:
                self._report_left(number, failure.reason)

    def _value(self, rate: float | None) -> float:
        return self._run.spec.finetune.learning_rate if rate is None else rate

    def _conclude(self, final: Mapping[int, float]) -> None:
        """Store the result. Of equal scores the earlier trial counts."""
        self._report_count(is_over=True)
        winner = max(final, key=lambda number: (final[number], -number))
        self._study.store_race(
            RaceResult(
                settings=self._settings,
                entrants=list(self._records),
                ends=list(self._ends),
                winner=winner,
                uniform=self._uniform if self._uniform in final else None,
                tried=self._tried,
                compared=self._compared,
                learning_rate=self._rate,
            )
        )
        self._remove_states(final)

    def _known(self, number: int) -> RaceEntry:
        """Return the stored entry of a trial under these settings, or a new one."""
        stored = self._study.race_entry(number)
        if stored is not None and stored.settings == self._settings:
            return stored
        return RaceEntry(settings=self._settings)

    def _store(self, number: int, score: RungScore) -> None:
        """Store the score of an entrant after a stage, or the reason why it leaves the race."""
        end, known = self._stage, self._entries[number]
        failure = score.failure if isinstance(score, StageScore) else None
        if failure is not None or not math.isfinite(score.score):
            reason = failure or f"its score is {score.score}, expected a finite number."
            self._store_failure(number, reason)
            if end != self._compared:  # else the other learning rates count as well
                self._report_left(number, reason)
            return
        samples, curve = (score.samples, score.curve) if isinstance(score, StageScore) else (None, ())
        earlier = (each.epochs for each in known.stages if each.learning_rate == self._rate)
        before = max((epochs for epochs in earlier if epochs < end), default=0)
        others = [each for each in known.stages if (each.epochs, each.learning_rate) != (end, self._rate)]
        stage = StageRecord(
            epochs=end,
            score=score.score,
            error=score.error,
            seconds=score.seconds,
            learning_rate=self._rate,
            curve=[list(each) for each in curve if each[0] > before and all(map(math.isfinite, each))],
        )
        kept = {"stages": [*others, stage], "samples": known.samples if samples is None else samples}
        self._keep(number, known.model_copy(update=kept))
        origin = f" ({self._records[number].origin})" if self._records[number].is_warm_start else ""
        rate = "" if self._compared is None else f" at the learning rate {self._value(self._rate):g}"
        reached = f"after {end} of {self._epochs} epochs{rate}: {score_text(score.score, score.error)}"
        self._run.watch(Stage(f"race: trial {number}{origin} {reached}"))
        self._report_count()

    def _report_count(self, *, is_over: bool = False) -> None:
        """Report how many epochs of the race are trained. Their sum holds for a race without failures."""
        done = sum(stage.epochs for entry in self._entries.values() for stage in entry.stages[-1:])
        total = math.ceil(self._expected_epochs())
        self._run.watch(Counted("race, epochs", total if is_over else min(done, total - 1), total, level=0))

    def _expected_epochs(self) -> float:
        others = len(self._records) - (self._uniform is not None)
        has_uniform, rates = self._uniform is not None, len(self._rates)
        return race_epochs(self._epochs, others, uniform=has_uniform, rates=rates)

    def _drop(self, number: int, reason: str) -> None:
        """Store that the worker of an entrant died again and again."""
        self._store_failure(number, reason, race=self._key)
        self._report_left(number, reason)

    def _store_failure(self, number: int, reason: str, race: str | None = None) -> None:
        known = self._entries[number]
        failure = StageFailure(epochs=self._stage, learning_rate=self._rate, reason=reason, race=race)
        self._keep(number, known.model_copy(update={"failures": [*known.failures, failure]}))

    def _report_left(self, number: int, reason: str) -> None:
        self._run.watch(Stage(f"race: trial {number} leaves the race: {reason}"))

    def _keep(self, number: int, entry: RaceEntry) -> None:
        self._entries[number] = entry
        self._study.store_race_entry(number, entry)

    def _so_far(self, racing: Sequence[int], ends: Sequence[int]) -> dict[int, tuple[float, ...]]:
        """Return {trial: its scores after the last rung and after each stage}."""
        return {
            number: (
                self._records[number].scores[-1].score,
                *(stage.score for end in ends if (stage := self._at(number, end))),
            )
            for number in racing
        }

    def _at(self, number: int, end: int) -> StageRecord | None:
        """Return a stage of an entrant, at the chosen learning rate once several are compared."""
        is_before = self._compared is None or end < self._compared
        return self._entries[number].at(end, None if is_before else self._rate)

    def _scores(self, racing: Sequence[int]) -> dict[int, float]:
        """Return {trial: its score at the end of this stage}."""
        stages = {number: self._at(number, self._stage) for number in racing}
        return {number: stage.score for number, stage in stages.items() if stage is not None}

    def _remove_states(self, kept: Container[int]) -> None:
        """Remove the states of the trainings that stopped. Those that ended are left for a finetune."""
        for number, record in self._records.items():
            for rate in self._rates:
                if number not in kept or rate != self._rate:
                    spec = self._run.spec.with_learning_rate(rate)
                    training_state(spec, record.candidate).unlink(missing_ok=True)
