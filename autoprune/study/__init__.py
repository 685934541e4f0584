"""The study of a search, in an Optuna storage: the single source of truth for every engine.

Example:
    study = open_study("sqlite:///runs/fm.db", "fm-50")
    study.facts.dense_score, study.best().widths

`SearchStudy` hands out trials and keeps their records. `StudyFacts` holds the measurements and choices that
are made once, before the first trial.
"""

from __future__ import annotations

from autoprune.study._dashboard import keep_file, kept_files, save_note, show
from autoprune.study._database_tables import names_in_file
from autoprune.study._facts import StrengthFacts, StudyFacts, ToleranceFacts, WarmStart, WarmStarts
from autoprune.study._header import damaged
from autoprune.study._opening import create_study, delete_study, open_study, study_state
from autoprune.study._processes import ENDED, Process, at_work, processes
from autoprune.study._race import (
    Race,
    RaceEntry,
    RaceResult,
    Samples,
    StageFailure,
    StageRecord,
    TriedRate,
    race_key,
)
from autoprune.study._records import (
    MeasuredLatency,
    TrialRecord,
    is_warm_start,
    took_scores,
)
from autoprune.study._search_study import SCORE, SearchStudy
from autoprune.study._storage_url import RUNS, file_of, is_in_memory, require_url, study_command
from autoprune.study._trial_attributes import SAMPLER
from autoprune.support.leases import TakenOverError

__all__ = [
    "ENDED",
    "RUNS",
    "SAMPLER",
    "SCORE",
    "MeasuredLatency",
    "Process",
    "Race",
    "RaceEntry",
    "RaceResult",
    "Samples",
    "SearchStudy",
    "StageFailure",
    "StageRecord",
    "StrengthFacts",
    "StudyFacts",
    "TakenOverError",
    "ToleranceFacts",
    "TrialRecord",
    "TriedRate",
    "WarmStart",
    "WarmStarts",
    "at_work",
    "create_study",
    "damaged",
    "delete_study",
    "file_of",
    "is_in_memory",
    "is_warm_start",
    "keep_file",
    "kept_files",
    "names_in_file",
    "open_study",
    "processes",
    "race_key",
    "require_url",
    "save_note",
    "show",
    "study_command",
    "study_state",
    "took_scores",
]
