"""The score cache of the first rung: a CSV file a setup and seed, with a row for each candidate.

The same widths always get the same score, whichever sampler proposes them, and all samplers are compared on
the same batches. Seconds are those of the one evaluation.

    scorer = CachedScore("resnet20-25", seed=0)
    scorer({"layer1.0.conv1": 8, ...}, seed=17)     # the trial's own seed does not matter here
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from autoprune.config.rungs import RungScore
from autoprune.score import FinetuneScore, Rung
from experiments.common import append_row, rows_of
from experiments.search_efficiency.setups import HERE, context_of

RUNG = Rung("calibrate")


class CachedScore:
    """Scores widths by BatchNorm recalibration and the whole validation part, each widths once."""

    def __init__(self, setup: str, seed: int) -> None:
        self._context = context_of(setup, seed)
        self._seed = seed
        self._path = HERE / "scores" / f"{setup}-{seed}.csv"
        self._path.parent.mkdir(exist_ok=True)
        self._known = {row["widths"]: row for row in rows_of(self._path)}
        context = self._context
        self._score = FinetuneScore(
            context.run.prunable,
            context.ranked,
            context.run.dense.data,
            context.run.dense.task,
            context.run.setting,
            (RUNG,),
            calibration_batches=context.run.spec.score.calibration_batches,
        )

    def __call__(self, widths: Mapping[str, int], seed: int) -> Iterator[RungScore]:
        """Yield the one rung's score and its seconds, known or measured now."""
        row = self.of(widths)
        yield RungScore(0, RUNG.name, float(row["score"]), float(row["seconds"]))

    def of(self, widths: Mapping[str, int]) -> Mapping[str, str]:
        """Return the row of a candidate: its widths, score and the seconds of its evaluation."""
        key = " ".join(str(widths[group.name]) for group in self._context.run.prunable.searchable)
        if key not in self._known:
            started = time.perf_counter()
            (rung,) = self._score(widths, self._seed)
            seconds = time.perf_counter() - started
            row = {"widths": key, "score": f"{rung.score:.6f}", "seconds": f"{seconds:.3f}"}
            append_row(self._path, row, quiet=True)
            self._known[key] = row
        return self._known[key]
