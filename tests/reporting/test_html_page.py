"""The HTML report: every part of a study with its numbers, no access to a network, and escaped texts."""

from __future__ import annotations

import dataclasses
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoprune.config.rungs import RungScore
from autoprune.errors import StudyError
from autoprune.latency import Curve, Stairs
from autoprune.reporting import Epoch, Page, StudySummary, Tuned, save_page
from autoprune.reporting._agreement import agreements
from autoprune.reporting._html_page import render_page
from autoprune.study import StudyFacts, TrialRecord
from tests.reporting.test_tables import HOPELESS, RECORD, SUMMARY, WITH_LATENCY
from tests.reporting.test_verdict import race

FACTS = StudyFacts(
    setting={"device": "cpu", "threads": 3}, ranking={}, dense_score=0.99, environment={"torch": "2.99.1"}
)
IDENTITY = {"model (its weights)": "c0ffee" * 10}


class Parsed(HTMLParser):
    """A page's elements and texts. Every element must be closed, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.titles: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["title"]:
            self.titles.append(data)
        elif self.open[-1:] not in (["script"], ["style"]):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))

    @property
    def sections(self) -> list[str]:
        return [found["id"] for tag, found in self.elements if tag == "section" and "id" in found]

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def parsed(summary: StudySummary, **parts: Any) -> Parsed:
    return Parsed(render_page(Page(**{"summary": summary, "facts": FACTS, "identity": IDENTITY, **parts})))


def searched(count: int) -> StudySummary:
    """A study of so many trials: each third one was pruned, each tenth failed, and uniform won the race."""
    draw = random.Random(0)
    records = []
    for number in range(count):
        score = draw.uniform(0.8, 0.9)
        cheap = RungScore(0, "calibrate", score - 0.3, 0.1, 0.02)
        scores = (cheap, RungScore(1, "50 steps", score, 1.0, 0.01))
        record = dataclasses.replace(
            RECORD,
            number=number,
            scores=scores,
            widths={"conv1": draw.randint(4, 16)},
            costs={"macs": 490 + number % 10, "params": draw.randint(30, 60)},
            origin="uniform" if number == 0 else "l1, taylor" if number == 1 else "sampler",
        )
        if number > 7 and number % 10 == 9:
            record = dataclasses.replace(record, state="failed", scores=(), failure="diverged")
        elif number > 7 and number % 3 == 0:
            record = dataclasses.replace(record, state="pruned", scores=scores[:1])
        records.append(record)
    hits = np.ones(100)
    return dataclasses.replace(
        SUMMARY,
        records=tuple(records),
        best=records[7],
        agreements=agreements(records),
        dense_error=0.005,
        race=race(hits, (np.arange(100) % 10 > 0).astype(float), 7),
        importances={"conv1": 0.75, "conv2": 0.25},
    )


def full_page(summary: StudySummary) -> Page:
    stairs = Stairs(8, "eager, cpu", {"layer9": Curve((7, 8), (0.31, 0.32), (0.01, 0.01))})
    scores = {"val_score": 0.971, "test_score": 0.962, "dense_val_score": 0.981, "dense_test_score": 0.982}
    tuned = Tuned(3, Path("runs/s/trial-3"), scores, [Epoch(0.7, 0.95), Epoch(0.4, 0.96)])
    return Page(
        summary,
        FACTS,
        settings='[search]\nstudy = "s"\n',
        identity=IDENTITY,
        stairs=stairs,
        savings={7: {"conv1": {"macs": 123.0, "params": 12.0}}},
        tuned=[tuned],
        commands={"Go on": "autoprune resume s --storage sqlite:///s.db"},
        next_step="Next: autoprune finetune s",
    )


def test_a_page_shows_each_part_of_a_study_with_its_numbers() -> None:
    summary = searched(40)
    page = Parsed(render_page(full_page(summary)))
    assert page.sections == [
        *("budget", "architecture", "trade-off", "trials", "training", "trust", "stairs", "reproduce")
    ]
    verdict = summary.verdict
    assert verdict is not None
    best = summary.best
    assert best is not None
    (agreement,) = summary.agreements
    complete, failed = summary.counts()["complete"], summary.counts()["failed"]
    for shown in (
        verdict.sentence,
        f"{complete} complete",
        f"{best.costs['macs'] / 1000:.1%}",  # of the dense MACs
        "50.0%",  # the budget
        f"{best.widths['conv1']} / 16",
        "12.3%",  # MACs that the group saves
        "12.0%",  # parameters that it saves
        f"Kendall's tau {agreement.tau:.2f}",
        "75%",  # importance
        "diverged",
        "runs/s/trial-3",
        "0.9620",  # on the test part
        "widths are multiples of 8",
        "layer9",
        "autoprune resume s --storage sqlite:///s.db",
        'study = "s"',
        "2.99.1",
        IDENTITY["model (its weights)"],
        "Next: autoprune finetune s",
    ):
        assert shown in page.text, shown
    assert len(re.findall(r"Trial \d+ failed: diverged", "\n".join(page.titles))) == failed
    rows = [found["data-t"] for found in page.named("tr") if "data-t" in found]
    assert set(rows) == {str(record.number) for record in summary.records}


def test_a_page_reads_nothing_from_elsewhere_and_allows_its_own_script_alone() -> None:
    page = Parsed(render_page(full_page(searched(20))))
    links = [value for _, found in page.elements for key, value in found.items() if key in ("href", "src")]
    assert links
    assert all(link.startswith("#") for link in links)
    assert {link.removeprefix("#") for link in links} <= {found.get("id") for _, found in page.elements}
    assert len(page.named("script")) == 1
    (policy,) = [found["content"] for found in page.named("meta") if "http-equiv" in found]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert not any("style" in found or key.startswith("on") for _, found in page.elements for key in found)


HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202egnp.exe\x1b[31m\ud800"


def test_texts_of_a_study_are_escaped_and_their_control_characters_shown() -> None:
    record = dataclasses.replace(RECORD, widths={HOSTILE: 4}, origin=HOSTILE)
    failed = dataclasses.replace(record, number=1, state="failed", scores=(), failure=HOSTILE)
    summary = dataclasses.replace(
        SUMMARY,
        study=HOSTILE,
        metric=HOSTILE,
        records=(record, failed),
        best=record,
        dense_widths={HOSTILE: 16},
        importances={HOSTILE: 1.0},
    )
    page = parsed(summary, identity={HOSTILE: HOSTILE}, settings=HOSTILE, commands={HOSTILE: HOSTILE})
    assert len(page.named("script")) == 1
    assert page.named("img") == []
    shown = HOSTILE[: HOSTILE.index("\u202e")] + "\\u202egnp.exe\\x1b[31m\\ud800"
    assert page.texts.count(shown) > 5
    written = render_page(Page(summary, FACTS))
    assert not {"\u202e", "\x1b", "\ud800"} & set(written)


def test_numbers_that_no_search_stores_have_a_page_as_well() -> None:
    large = tuple(
        dataclasses.replace(RECORD, number=number, scores=(RungScore(0, "50 steps", score, 0.1),))
        for number, score in enumerate((1e308, -1e308, 0.5))
    )
    widths = {"conv1": -3, "conv2": 0, "conv3": 8}
    best = dataclasses.replace(large[2], widths=dict.fromkeys(widths, 2))
    summary = dataclasses.replace(SUMMARY, records=large, best=best, dense_widths=widths)
    page = parsed(summary)
    assert "2 / 8" in page.text
    assert not any("nan" in value or "inf" in value for _, found in page.elements for value in found.values())


def test_a_study_without_trials_and_one_with_failures_alone_have_a_page() -> None:
    empty = parsed(dataclasses.replace(SUMMARY, records=(), best=None))
    assert empty.sections == ["budget", "trials", "reproduce"]
    assert "The search has no trials yet." in empty.text
    assert "MACs: at most 500 MACs, 50.0% of the dense model." in empty.text
    hopeless = parsed(HOPELESS)
    assert "No trial has completed yet, and 3 of 3 failed." in hopeless.text
    assert "diverged [nan]" in hopeless.text
    assert "out of memory" in hopeless.text


def test_a_front_is_drawn_over_its_cost_and_named() -> None:
    def trial(number: int, macs: float, score: float) -> TrialRecord:
        return dataclasses.replace(
            RECORD, number=number, costs={"macs": macs}, scores=(RungScore(0, "50 steps", score, 0.1),)
        )

    records = (trial(0, 200, 0.7), trial(1, 300, 0.6), trial(2, 400, 0.9))
    summary = dataclasses.replace(
        SUMMARY,
        records=records,
        best=records[2],
        front=(records[0], records[2]),
        objectives=("score", "macs"),
        limits={},
    )
    page = parsed(summary)
    assert "The Pareto front of accuracy against MACs has 2 trials" in page.text
    assert page.text.count("complete, on the front") == 2
    assert "Pareto front" in page.text


def test_a_tolerance_and_a_search_without_a_race_open_with_their_own_result() -> None:
    tolerant = dataclasses.replace(SUMMARY, smallest="macs", least_score=0.89, limits={})
    assert "The smallest of 1 trials within the tolerance" in parsed(tolerant).text
    assert (
        "Trial 0 is the best: accuracy 0.9000 after 50 steps, with 50.0% of the MACs." in parsed(SUMMARY).text
    )


def test_a_timed_latency_has_its_interval_and_takes_the_card_of_the_predicted_one() -> None:
    page = parsed(WITH_LATENCY)
    assert "latency, timed 58.3%" in page.text
    assert "56.1% to 60.1% in 95% of timings" in page.text
    assert page.text.count("latency, predicted") == 1


def test_a_page_of_a_thousand_trials_is_small(tmp_path: Path) -> None:
    path = save_page(full_page(searched(1000)), tmp_path / "new" / "report.html")
    assert path.stat().st_size < 2_000_000
    with pytest.raises(StudyError, match=r"report .*: cannot be written \(Not a directory\)"):
        save_page(full_page(searched(20)), path / "below.html")


def test_a_study_whose_trials_all_failed_compares_no_origins() -> None:
    records = tuple(
        dataclasses.replace(each, state="failed", scores=each.scores[:1], failure="diverged")
        for each in searched(8).records
    )
    summary = dataclasses.replace(searched(8), records=records, best=None, race=None)
    text = render_page(Page(summary, FACTS))
    assert "Warm starts against the sampler" not in text
    assert "pruned, or failed after a rung" in text
    assert text.count("failed after calibrate") >= len(records)
