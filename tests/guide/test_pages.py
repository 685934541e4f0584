"""The pages keep their word: commands exist, configs are valid, the Python runs, links lead somewhere."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import autoprune.guide
from autoprune.config import load_config
from autoprune.data import load
from autoprune.guide import TOPICS, read_page
from autoprune.run._resolving.spec import RunSpec
from tests.guide.markdown import blocks, commands, links, overrides, unknown_words

FOLDER = Path(autoprune.guide.__file__).parent


@pytest.mark.parametrize("topic", TOPICS)
def test_commands_and_their_options_exist(topic: str) -> None:
    assert {line: unknown_words(line) for line in commands(read_page(topic)) if unknown_words(line)} == {}


@pytest.mark.parametrize("topic", TOPICS)
def test_configs_are_valid(topic: str) -> None:
    """A block may be a part of a config. Settings on the command lines of the page are valid, too."""
    for block in blocks(read_page(topic), "toml"):
        _ = RunSpec.of(tomllib.loads(block)).runtime
    load_config("digits", overrides(read_page(topic)))


@pytest.mark.parametrize("topic", ["start", "data", "methods", "python", "questions", "repair", "proof"])
def test_the_python_of_a_page_runs_in_its_order(
    topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": topic}
    for block in blocks(read_page(topic), "python"):
        exec(compile(block, f"{topic}.md", "exec"), names)
    assert names.keys() > {"__name__", "__builtins__"}


@pytest.mark.parametrize("topic", TOPICS)
def test_links_lead_to_pages_or_files(topic: str) -> None:
    assert [target for target in links(read_page(topic)) if not (FOLDER / target).is_file()] == []


def test_the_loaders_of_the_page_are_loaders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = blocks(read_page("data"), "python")
    (tmp_path / "paged").mkdir()
    (tmp_path / "paged" / "data.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    assert load("paged.data:make", batch_size=64).classes == 10
