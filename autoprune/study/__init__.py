"""The study: one search in an Optuna storage, the single source of truth for every engine.

Before: `pipeline` resolved the config; after: `engines` run its trials, `report` reads its records.

    study = open_study("sqlite:///runs/fm.db", "fm-50")
    study.best().widths
"""

from __future__ import annotations

from autoprune.rungs import RungScore
from autoprune.study.records import MeasuredLatency, TrialRecord
from autoprune.study.search_study import SCORE, SearchStudy, create_study, open_study, study_state

__all__ = [
    "SCORE",
    "MeasuredLatency",
    "RungScore",
    "SearchStudy",
    "TrialRecord",
    "create_study",
    "open_study",
    "study_state",
]
