"""The verbs: each a plain function that a script may call, and the command line does.

Before: `config` (or a script) makes a `RunConfig`; after: studies, checkpoints and exported models on disk.

    result = search(load_config("digits"))
    tuned = finetune(result.study, result.storage)
"""

from __future__ import annotations

from autoprune.pipeline.bench import Bench, BenchRow, bench
from autoprune.pipeline.best import Picked, best
from autoprune.pipeline.checks import study_exists
from autoprune.pipeline.curves import error_curves, sensitivity_curves
from autoprune.pipeline.dense import Dense
from autoprune.pipeline.export import export, load_saved
from autoprune.pipeline.finetune import finetune
from autoprune.pipeline.finetuned import FinetuneResult
from autoprune.pipeline.inspect import Inspection, inspect
from autoprune.pipeline.places import find_storage, settle
from autoprune.pipeline.report import report
from autoprune.pipeline.search import SearchResult, resume, search
from autoprune.pipeline.train import TrainResult, train
from autoprune.pipeline.trust import Consent

__all__ = [
    "Bench",
    "BenchRow",
    "Consent",
    "Dense",
    "FinetuneResult",
    "Inspection",
    "Picked",
    "SearchResult",
    "TrainResult",
    "bench",
    "best",
    "error_curves",
    "export",
    "find_storage",
    "finetune",
    "inspect",
    "load_saved",
    "report",
    "resume",
    "search",
    "sensitivity_curves",
    "settle",
    "study_exists",
    "train",
]
