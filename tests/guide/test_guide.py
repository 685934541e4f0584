"""The guide as the command line prints it, and the page that is made from the settings."""

from __future__ import annotations

import sys
from importlib import resources

import pytest

from autoprune.cli import main
from autoprune.guide import TOPICS, read_page, topics
from tests.guide.documents import page
from tests.guide.markdown import blocks
from tests.guide.reference import reference


def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["autoprune", "guide", *words])
    with pytest.raises(SystemExit) as left:
        main()
    output = capsys.readouterr()
    assert left.value.code == (2 if output.err else 0)
    return output.out + output.err


def test_the_pages_are_those_of_the_folder() -> None:
    names = [entry.name for entry in resources.files("autoprune.guide").iterdir()]
    assert sorted(TOPICS) == sorted(name.removesuffix(".md") for name in names if name.endswith(".md"))


@pytest.mark.parametrize("topic", TOPICS)
def test_a_page_opens_with_its_heading_and_is_printed(
    topic: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    heading, _, about = read_page(topic).partition("\n")[0].removeprefix("# ").partition(": ")
    assert (heading.lower(), about) == (topic, topics()[topic])
    shown = printed(capsys, monkeypatch, topic)
    assert about in shown
    assert not [page for page in TOPICS if f"{page}.md" in shown], "links name commands, not files"
    assert max(map(len, shown.splitlines())) <= 100


def test_without_a_topic_all_pages_are_listed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = printed(capsys, monkeypatch).splitlines()
    assert [line.split()[0] for line in lines[: len(TOPICS)]] == list(TOPICS)


def test_an_unknown_topic_is_one_line_with_the_nearest(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = printed(capsys, monkeypatch, "confg")
    assert shown == 'autoprune: guide: unknown topic "confg". Did you mean "config"?\n'
    assert "Known: " in printed(capsys, monkeypatch, "zzz")


@pytest.mark.parametrize("topic", TOPICS)
def test_code_and_drawings_fit_a_terminal(topic: str) -> None:
    lines = [line for block in blocks(read_page(topic), r"\w*") for line in block.splitlines()]
    assert [line for line in lines if len(line) > 78] == []


def test_the_config_reference_is_made_from_the_settings() -> None:
    assert read_page("config") == reference(), "run `python -m tests.guide.reference`"


def test_the_page_of_documents_is_made_from_their_classes() -> None:
    assert read_page("json") == page(), "run `python -m tests.guide.documents`"


def test_links_become_commands_and_places(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = " ".join(printed(capsys, monkeypatch, "repair").split())
    assert "(experiments/repair)" in shown
    shown = " ".join(printed(capsys, monkeypatch, "start").split())
    assert "has a default (autoprune guide config):" in shown
    assert "Next: concepts (autoprune guide concepts) for the words" in shown
