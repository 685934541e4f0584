"""Histograms side by side: the counts, the table and the picture."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from autoprune.errors import ConfigError
from autoprune.reporting import Histograms, save_histograms

VALUES = {"weak": np.array([0.0, 0.5, 1.0, 2.0]), "strong": np.array([0.0, 0.0, 0.1, 0.9])}
HISTOGRAMS = Histograms.of("Scales", "scale", VALUES, bins=4, marks={"strong": 0.05})


def test_every_value_is_in_one_bin_of_all_histograms() -> None:
    np.testing.assert_allclose(HISTOGRAMS.edges, [0.0, 0.5, 1.0, 1.5, 2.0])
    assert {name: counts.tolist() for name, counts in HISTOGRAMS.counts.items()} == {
        "weak": [1, 1, 1, 1],
        "strong": [3, 1, 0, 0],
    }


def test_the_table_has_a_row_for_each_bin(tmp_path: Path) -> None:
    with save_histograms(HISTOGRAMS, tmp_path / "scales.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[4] == {"histogram": "strong", "from": "0", "to": "0.5", "count": "3"}
    assert sum(int(row["count"]) for row in rows) == 8


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml")])
def test_the_picture_is_written(tmp_path: Path, name: str, start: bytes) -> None:
    assert save_histograms(HISTOGRAMS, tmp_path / name).read_bytes().startswith(start)


def test_values_that_are_all_zero_have_a_picture(tmp_path: Path) -> None:
    zeros = Histograms.of("Scales", "scale", {"a": np.zeros(3)})
    assert zeros.counts["a"].sum() == 3
    assert save_histograms(zeros, tmp_path / "a.png").stat().st_size > 0


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected a name that ends in .*\.csv"):
        save_histograms(HISTOGRAMS, tmp_path / "a.gif")
