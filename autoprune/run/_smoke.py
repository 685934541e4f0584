"""A trial run: search, finetune and export of a config on a few images, to find faults before a long search.

Example:
    found = smoke(load_config("run.toml", profile="smoke"))
    found.seconds
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from autoprune.progress import GIVEN_WATCH, Watch, watching
from autoprune.run._export_target import export
from autoprune.run._finetune import finetune
from autoprune.run._resolving.latency import table_path
from autoprune.run._resolving.paths import settle
from autoprune.run._resolving.spec import ConfigSource, RunSpec
from autoprune.run._search import search
from autoprune.support.events import Stage
from autoprune.support.usercode import entry


@dataclass(frozen=True)
class SmokeResult:
    """The result of a trial run in which nothing failed.

    Attributes:
        seconds: how long it took.
        trials: how many sub-models were tried.
        samples: most images of each part that were read, or None for all.
        format: the format to which the small model was exported.
    """

    seconds: float
    trials: int
    samples: int | None
    format: str

    @property
    def sentence(self) -> str:
        """The sentence that lists the steps that worked, and warns that the figures mean nothing."""
        images = "all images" if self.samples is None else f"about {self.samples} images of each part"
        return (
            f"The trial run passed in {self.seconds:.0f} s: search, finetune and export to "
            f"{self.format} work. Its figures mean nothing: it tried {self.trials} sub-models "
            f"on {images}, and nothing of it is kept."
        )


@entry(watch=GIVEN_WATCH)
def smoke(config: ConfigSource, *, watch: Watch = True) -> SmokeResult:
    """Run a config from search to export in a temporary folder, which is removed at the end.

    Only the data that a named set downloads are kept, and the latency table, which the real search reads.

    Args:
        config: the config, with the keys of a profile that make the run short.
        watch: called with events that report the progress. True shows them if there is a terminal or a
            notebook, and None or False shows nothing.

    Raises:
        AutopruneError: an error that the real search would raise later.
    """
    started = time.perf_counter()
    spec = settle(config)
    with tempfile.TemporaryDirectory(prefix="autoprune-smoke-") as folder, watching(watch) as show:
        show(Stage("a trial run, whose figures mean nothing"))
        found = search(config=_inside(spec, Path(folder)), watch=show)
        front = found.summary.front
        tuned = finetune(found, trial=front[0].number if front else None, watch=show)
        report = export(tuned, watch=show)
        trials = len(found.summary.records)
    return SmokeResult(time.perf_counter() - started, trials, spec.data.most_samples, report.format)


def _inside(spec: RunSpec, folder: Path) -> RunSpec:
    """Return the settings with all outputs in a folder, and without trackers.

    They name no profile, because a search under that of a trial run trains no checkpoint.
    """
    model, finetuned, train = spec.model, spec.finetune, spec.train
    if model.new_head:
        # The training of the last layer would write the file that the real search reads.
        finetuned, train = replace(finetuned, teacher="none"), replace(train, when_missing=False)
    elif train.when_missing and model.checkpoint is not None and not Path(model.checkpoint).exists():
        model = replace(model, checkpoint=str(folder / "dense.safetensors"))
    table = table_path(spec) if spec.limits_latency else None
    return replace(
        spec.with_search(study="smoke", storage=f"sqlite:///{folder}/smoke.db", profile=None),
        model=model,
        finetune=finetuned,
        train=train,
        latency=spec.latency if table is None else replace(spec.latency, table=str(table)),
        output=replace(spec.output, folder=str(folder / "output")),
        report=replace(spec.report, trackers=()),
    )
