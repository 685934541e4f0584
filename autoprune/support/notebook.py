"""Shows results in notebooks as small HTML texts, and in terminals as one line.

The texts have no colours of their own, so that they are readable on light and on dark pages.

Example:
    class Found(Shown):
        def _headline(self): return "trial 3, 0.91"
        def _tables(self): return [widths_table(...)]
    Found()                                   # <Found: trial 3, 0.91>
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from rich.table import Table
from rich.text import Text

from autoprune.errors import printable, shortened

MOST_BYTES = 20_000
"""The largest HTML text of a result, so that notebooks stay small."""

_MOST_ROWS = 20
_LONGEST_CELL = 80
_LONGEST_HEADLINE = 600
_RIGHT = ' style="text-align:right"'


class Shown:
    """A result that a notebook shows as tables, and a terminal as one line."""

    def _headline(self) -> str:
        """Return the result in a sentence."""
        raise NotImplementedError

    def _tables(self) -> Sequence[Table]:
        """Return the tables that follow the sentence in a notebook."""
        return ()

    def __repr__(self) -> str:
        """Return the class and the sentence in one line."""
        return f"<{type(self).__name__}: {_clean(self._headline(), _LONGEST_HEADLINE)}>"

    def _repr_html_(self) -> str:
        """Return the sentence and the tables as HTML."""
        return as_html(f"{type(self).__name__}: {self._headline()}", self._tables())


def as_html(headline: str, tables: Sequence[Table] = ()) -> str:
    """Return a sentence and tables as HTML. Long tables are cut, and tables that no longer fit are left out.

    Args:
        headline: the sentence.
        tables: tables of rich. Their texts are escaped.
    """
    parts = [f"<p><b>{escape(_clean(headline, _LONGEST_HEADLINE))}</b></p>"]
    room = MOST_BYTES - len("<div></div>") - len(parts[0].encode())
    for table in tables:
        text = _table(table)
        room -= len(text.encode())
        if room < 0:
            break
        parts.append(text)
    return f"<div>{''.join(parts)}</div>"


def _table(table: Table) -> str:
    styles = [_RIGHT if column.justify == "right" else "" for column in table.columns]
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    head = "".join(f"<th>{_cell(column.header)}</th>" for column in table.columns)
    body = [
        "".join(f"<td{style}>{_cell(cell)}</td>" for style, cell in zip(styles, row, strict=True))
        for row in rows[:_MOST_ROWS]
    ]
    if len(rows) > _MOST_ROWS:
        body.append(f'<td colspan="{len(styles)}">and {len(rows) - _MOST_ROWS:,} more</td>')
    title = "" if table.title is None else f'<caption style="text-align:left">{_cell(table.title)}</caption>'
    lines = "".join(f"<tr>{line}</tr>" for line in body)
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


def _cell(content: object) -> str:
    text = content.plain if isinstance(content, Text) else str(content)
    return escape(_clean(text, _LONGEST_CELL))


def _clean(text: str, longest: int) -> str:
    """Return a text in one line of limited length, with control characters escaped."""
    return shortened(printable(" ".join(text.split())), longest)
