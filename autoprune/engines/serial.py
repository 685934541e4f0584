"""The serial engine: one trial after the other in this process. A resumed search repeats exactly.

Example:
    run_serial(runner, make_scorer, Workers())
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from autoprune.config.rungs import RungScore
from autoprune.engines._runner import Job, MakeScorer, Runner, Scorer
from autoprune.engines._workers import Workers
from autoprune.errors import AutopruneError, StudyError, TrialError, is_lost_gpu, summary_of
from autoprune.space import Candidate
from autoprune.study import study_command


def run_serial(runner: Runner, make_scorer: MakeScorer, workers: Workers) -> None:
    """Run jobs until none is left. `workers` is ignored."""
    scorer = make_scorer()
    while (job := runner.ask()) is not None:
        run_trial(runner, scorer, job)


def run_trial(runner: Runner, scorer: Scorer, job: Job) -> None:
    """Climb the rungs of one trial. An error of the scorer fails this trial only.

    Raises:
        StudyError: the error was one of CUDA after which all later trials of this process would fail.
    """
    rungs = climb(scorer, job.widths, job.variant)
    while True:
        try:
            rung = next(rungs, None)
        except TrialError as error:
            runner.fail(job, str(error))
            if is_lost_gpu(str(error)):
                command = study_command("resume", runner.study.name, runner.study.url)
                raise StudyError(
                    f"{runner.study.name}: trial {job.number} failed, and CUDA cannot be used in this "
                    f"process any more ({error}). Go on with: {command}"
                ) from error
            return
        if rung is None or not runner.report(job, rung):
            runner.finish(job)
            return


def climb(scorer: Scorer, widths: Candidate, variant: Any) -> Iterator[RungScore]:
    """Yield the scorer's rungs.

    Raises:
        TrialError: the scorer raised any error. The message is one line.
    """
    rungs = scorer(widths, variant)
    while True:
        try:
            rung = next(rungs, None)
        except (TrialError, KeyboardInterrupt):
            raise
        except AutopruneError as error:
            raise TrialError(str(error)) from error
        except BaseException as error:  # a user's model or loss may call sys.exit
            raise TrialError(summary_of(error)) from error
        if rung is None:
            return
        yield rung
