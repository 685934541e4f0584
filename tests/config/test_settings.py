"""The docstrings of the settings, which are the reference of a config, name the units and formats of a value.

The names of tables are in the guide's page: tests/guide.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from autoprune.config import settings
from autoprune.cost import BYTES, MILLISECONDS
from autoprune.support.dtypes import DTYPES


@pytest.mark.parametrize(
    ("section", "table"),
    [
        (settings.BudgetSettings, MILLISECONDS.suffixes),
        (settings.BudgetSettings, [suffix for suffix in BYTES.suffixes if len(suffix) > 1]),
        (settings.SearchSettings, DTYPES),
    ],
)
def test_every_name_of_a_table_is_in_the_docstring_of_its_section(
    section: type, table: Iterable[str]
) -> None:
    words = re.findall(r"[\w-]+", str(section.__doc__).lower())
    assert [name for name in table if name and name not in words and "µ" not in name] == []
