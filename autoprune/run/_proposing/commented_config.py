"""Writes a config with a comment above each key, which explains its effect and the choice of its value.

Example:
    write_commented({"search": {"trials": 60}}, {"search.trials": "how many are tried"}, heading="A search.")
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from autoprune.support.toml import write_toml

_WIDTH = 98


def write_commented(
    sections: Mapping[str, Mapping[str, Any]], why: Mapping[str, str], *, heading: str
) -> str:
    """Return the text of a config.

    Args:
        sections: {section: {key: value}}. Empty sections are left out.
        why: {"section.key": comment}, or "section" for a comment at the top of a section.
        heading: the comment at the top of the file.
    """
    blocks = [_comment(heading)]
    for section, values in sections.items():
        if values:
            blocks.append("\n".join([f"[{section}]", *_lines(section, values, why)]))
    return "\n\n".join(blocks) + "\n"


def _lines(section: str, values: Mapping[str, Any], why: Mapping[str, str]) -> Iterator[str]:
    if section in why:
        yield _comment(why[section])
    for key, value in values.items():
        if f"{section}.{key}" in why:
            yield _comment(why[f"{section}.{key}"])
        yield write_toml({key: value}).strip()


def _comment(text: str) -> str:
    return "\n".join(f"# {line}" for line in textwrap.wrap(text, _WIDTH, break_on_hyphens=False))
