"""Results in notebooks: small, escaped, without colours, and with the text of the terminal."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import torch
from rich.table import Table
from rich.text import Text
from torch import nn

import autoprune
from autoprune.support.notebook import MOST_BYTES, Shown, as_html


class Reader(HTMLParser):
    """Collects the tags and the texts of a page, and checks that every tag is closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.tags.add(tag)
        assert all("color" not in (value or "") and "background" not in (value or "") for _, value in attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


class Found(Shown):
    """A result with hostile texts and long tables."""

    hostile = '<script>alert("1")</script>\x1b[31m'

    def _headline(self) -> str:
        return f"trial 3 {self.hostile}"

    def _tables(self) -> list[Table]:
        table = Table(title=self.hostile)
        table.add_column(self.hostile)
        table.add_column("score", justify="right")
        for number in range(100):
            table.add_row(Text(self.hostile), f"{number}" * 200)
        return [table] * 5


def test_a_result_is_a_line_in_a_terminal_and_escaped_tables_in_a_notebook() -> None:
    page = Found()._repr_html_()
    read = Reader(page)
    assert read.tags == {"div", "p", "b", "table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert f"<{read.texts[0]}>" == repr(Found())
    assert "\x1b" not in page + repr(Found())
    assert "and 80 more" in read.texts
    assert len(page.encode()) <= MOST_BYTES


def test_tables_that_no_longer_fit_are_left_out() -> None:
    table = Table()
    for column in range(30):
        table.add_column(f"{column}")
    for _ in range(20):
        table.add_row(*["x" * 80] * 30)
    assert len(as_html("large", [table]).encode()) <= MOST_BYTES
    assert Reader(as_html("large", [table])).texts == ["large"]


def test_a_traced_model_and_a_plan_are_shown_by_their_groups() -> None:
    layers = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.LazyLinear(2)]
    model = nn.Sequential(*layers)
    model(torch.zeros(1, 1, 8, 8))
    prunable = autoprune.trace(model, torch.zeros(1, 1, 8, 8))
    read = Reader(prunable._repr_html_())
    assert f"<{read.texts[0]}>" == repr(prunable)
    rows = [read.texts.index(group.name) for group in prunable.groups]
    assert rows == sorted(rows)
    macs, params = prunable.formula.carried(0)
    assert read.texts[rows[0] : rows[0] + 4] == [prunable.groups[0].name, "8", f"{macs:,}", f"{params:,}"]
    plan = autoprune.Plan({"0": np.arange(3), "2": np.arange(2)})
    assert Reader(plan._repr_html_()).texts[-4:] == ["0", "3", "2", "2"]
