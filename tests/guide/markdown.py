"""Reads the parts of a Markdown page that a test can check: code blocks, commands and links."""

from __future__ import annotations

import re
import shlex

from typer.main import get_command

from autoprune.cli.commands import app

COMMANDS = vars(get_command(app))["commands"]


def blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a language; "" for those without one."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    """Return the command lines that start autoprune, without their comments."""
    lines = [
        line.split("# ")[0].split("&&")[-1].strip()
        for block in blocks(page, "sh")
        for line in block.splitlines()
    ]
    return [line for line in lines if re.match(r"(\.venv/bin/)?autoprune ", line)]


def unknown_words(command: str) -> list[str]:
    """Return the verb or the options of a command line that the program does not have."""
    _, verb, *rest = shlex.split(command)
    if verb not in COMMANDS:
        return [verb]
    options = {option for parameter in COMMANDS[verb].params for option in parameter.opts}
    return [word for word in rest if word.startswith("-") and word not in options]


def overrides(page: str) -> list[str]:
    """Return what follows `--set` anywhere on a page, but for values that are left open."""
    found = re.findall(r"--set ([\w.]+=[^\s`]+)", page)
    return [each for each in found if not each.endswith("...") and each != "section.key=value"]


def links(page: str) -> list[str]:
    """Return the targets of links within the repository."""
    return [link for link in re.findall(r"\]\(([^)]+)\)", page) if "://" not in link]
