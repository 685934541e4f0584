"""A fault of the report page does not lose the result of the verb."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from autoprune.reporting import StudySummary
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._results.page import refresh_page
from autoprune.study import create_study
from autoprune.support.events import Event
from tests.engines.toy import FACTS, IDENTITY


def test_a_fault_of_any_kind_is_one_line(tmp_path: Path) -> None:
    study = create_study(f"journal:///{tmp_path}/study.log", "toy", config={}, identity=IDENTITY, facts=FACTS)
    spec, events = RunSpec.of({"output": {"folder": str(tmp_path)}}), list[Event]()
    assert refresh_page(study, spec, events.append, cast(StudySummary, object())) is None
    (line,) = map(str, events)
    assert "warning: no HTML report: AttributeError: 'object' object has no attribute" in line
    assert "\n" not in line
