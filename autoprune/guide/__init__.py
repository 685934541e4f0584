"""The guide: Markdown pages that ship with the package, for `autoprune guide` and for readers on a forge.

    topics()["latency"]            # "budgets in milliseconds, on the runtime that will run the model"
    show_page("latency")           # a renderable for rich

A new page is a file in this folder whose first line is "# Topic: the subject in a few words", and its name in
TOPICS.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import TYPE_CHECKING

from autoprune.errors import ConfigError, unknown

if TYPE_CHECKING:
    from rich.markdown import Markdown

__all__ = ["TOPICS", "read_page", "show_page", "topics"]

TOPICS = (
    "start",
    "concepts",
    "search",
    "data",
    "tasks",
    "questions",
    "python",
    "engines",
    "cluster",
    "latency",
    "deploy",
    "methods",
    "repair",
    "report",
    "trackers",
    "json",
    "proof",
    "config",
    "extending",
    "trust",
)
"""The pages in the order in which a newcomer would read them."""

_LINK = re.compile(r"(?P<alone>\()?\[(?P<words>[^\]]+)\]\((?P<target>[^)]+)\)(?(alone)\))")


def topics() -> dict[str, str]:
    """Return {topic: its subject}, as in the headings of the pages."""
    return {topic: read_page(topic).partition("\n")[0].partition(": ")[2] for topic in TOPICS}


def read_page(topic: str) -> str:
    """Return the Markdown of a page.

    Raises:
        ConfigError: there is no such page. The message names the nearest, or else all.
    """
    if topic not in TOPICS:
        raise ConfigError(unknown("guide", topic, TOPICS, kind="topic"))
    return resources.files(__name__).joinpath(f"{topic}.md").read_text("utf-8")


def show_page(topic: str) -> Markdown:
    """Return a page for a terminal. Links become the commands that show the other pages.

    Raises:
        ConfigError: there is no such page.
    """
    from rich.markdown import Markdown

    # The palette of the terminal itself, so that code can be read on light and on dark ones.
    return Markdown(_LINK.sub(_without_link, read_page(topic)), code_theme="ansi_dark", hyperlinks=False)


def _without_link(link: re.Match[str]) -> str:
    """Return the command that shows the target of a link, or its folder in the repository, in parentheses."""
    topic = link["target"].removesuffix(".md")
    place = f"`autoprune guide {topic}`" if topic in TOPICS else topic.strip("./").rpartition("/")[0]
    return f"({place})" if link["alone"] else f"{link['words']} ({place})"
