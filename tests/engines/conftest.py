"""Fixtures for the tests of several engines."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Return the URL of a new storage: a journal, which costs a fifth of the time of SQLite."""
    return f"journal:///{tmp_path}/study.log"


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """Return a folder in which scorers leave one file per call."""
    folder = tmp_path / "calls"
    folder.mkdir()
    return folder
