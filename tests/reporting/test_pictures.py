"""Pictures of a study: their format, and the mark of each trial."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from autoprune.errors import ConfigError, StudyError
from autoprune.reporting import _plot as plot
from autoprune.reporting import plot_study
from tests.conftest import FullDisk
from tests.reporting.test_tables import FAILED, RECORD, SUMMARY

PRUNED = dataclasses.replace(
    RECORD, number=1, state="pruned", value=None, scores=RECORD.scores[:1], costs={"macs": 450, "params": 50}
)


@pytest.mark.parametrize(
    ("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF"), ("a.SVG", b"<?xml")]
)
def test_the_suffix_is_the_format(tmp_path: Path, name: str, start: bytes) -> None:
    assert plot_study(SUMMARY, tmp_path / "new" / name).read_bytes().startswith(start)


@pytest.mark.parametrize("name", ["a", "a.gif", "study.db", ".png"])
def test_other_suffixes_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"expected a name that ends in \.png, \.svg, \.pdf\."):
        plot_study(SUMMARY, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_picture_that_was_there(tmp_path: Path, full_disk: FullDisk) -> None:
    (tmp_path / "a.png").write_bytes(b"before")
    with (
        full_disk(1000),
        pytest.raises(StudyError, match=r"picture .*a\.png: cannot be written"),
    ):
        plot_study(SUMMARY, tmp_path / "a.png")
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("a.png", b"before")]


def drawn(axes: Axes) -> dict[str, list[tuple[float, float]]]:
    """Return {colour: points} of what was scattered."""
    found: dict[str, list[tuple[float, float]]] = {}
    for points in axes.collections:
        found.setdefault(to_hex(np.asarray(points.get_facecolor())[0]), []).extend(
            (x, y) for x, y in np.asarray(points.get_offsets()).tolist()
        )
    return found


def test_pruned_trials_are_drawn_as_such_in_every_panel() -> None:
    failed = dataclasses.replace(FAILED, number=2, scores=RECORD.scores[:1], costs={"macs": 440})
    summary = dataclasses.replace(SUMMARY, records=(RECORD, PRUNED, failed))
    over_trials, over_cost = Figure().subplots(1, 2)
    plot._draw_trials(over_trials, summary, 0.0)
    plot._draw_cost(over_cost, summary, 0.0, "macs")
    assert drawn(over_trials) == {plot._TRIALS: [(0.0, 0.9)], plot._PARTIAL: [(1.0, 0.5), (2.0, 0.5)]}
    points = drawn(over_cost)
    assert points.pop(plot._BEST) == [(50.0, 0.9)]
    assert points == {plot._TRIALS: [(50.0, 0.9)], plot._PARTIAL: [(45.0, 0.5), (44.0, 0.5)]}
