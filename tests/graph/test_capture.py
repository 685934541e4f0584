"""Tests for how a model is captured."""

from __future__ import annotations

import logging

import pytest

from autoprune.graph.capture import quiet_export


def test_loggers_of_modules_that_an_export_imports_are_silent_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    known = logging.getLogger("torch.known_before_the_export")
    with quiet_export():
        known.warning("of a known logger")
        logging.getLogger("torch.imported_by_the_export").warning("of a new logger")
        logging.getLogger("elsewhere").warning("of another package")
    known.warning("after the export")
    assert caplog.messages == ["of another package", "after the export"]


def test_exports_that_overlap_leave_the_level_as_it_was() -> None:
    before = logging.getLogger("torch").level
    first, second = quiet_export(), quiet_export()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert logging.getLogger("torch").level == before
