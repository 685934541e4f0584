"""What tests of several engines start from."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Where a study of its own can be."""
    return f"sqlite:///{tmp_path}/study.db"


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """A folder in which scorers leave a file a call."""
    folder = tmp_path / "calls"
    folder.mkdir()
    return folder
