"""Write a study as one HTML file that needs no other file and no network.

A study may come from a stranger. All of its texts are escaped, and the page allows only its own script.

Example:
    save_page(Page(summary, facts, config, identity), "runs/digits/report.html")
"""

from __future__ import annotations

import base64
import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from autoprune.config.rungs import score_text
from autoprune.cost import COSTS
from autoprune.errors import StudyError, printable
from autoprune.latency import Stairs
from autoprune.reporting import _html_charts as charts
from autoprune.reporting._conclusions import headline
from autoprune.reporting._criteria import criterion_scores
from autoprune.reporting._history import origin_note, origins
from autoprune.reporting._html_chart import Chart
from autoprune.reporting._notes import (
    agreement_note,
    criteria_notes,
    latency_notes,
    rung_warning,
    summary_notes,
)
from autoprune.reporting._rows import cost_rows, counted, listed, outcome, race_rows, width_rows
from autoprune.reporting._summary import StudySummary
from autoprune.study import StudyFacts, TrialRecord
from autoprune.support.atomic import saving

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Epoch:
    """One epoch of a finetune: the mean loss of its training, and the score on the validation part."""

    loss: float
    score: float


@dataclass(frozen=True)
class Tuned:
    """A finetuned model.

    Attributes:
        trial: number of its trial.
        folder: where it is saved.
        scores: {"val_score": ..., "test_score": ..., "dense_val_score": ..., "dense_test_score": ...}. The
            score of a missing part is None.
        epochs: the epochs of its training, or () if they are not known.
    """

    trial: int
    folder: Path
    scores: Mapping[str, float | None]
    epochs: Sequence[Epoch] = ()


@dataclass(frozen=True)
class Page:
    """The contents of an HTML report.

    Attributes:
        summary: the trials and figures of the study.
        facts: the measurements that the search made once.
        settings: the settings that differ from the defaults, as TOML.
        identity: {part: its fingerprint}.
        stairs: latency over width, if the search measured it.
        savings: {trial: {group: {cost: amount that narrowing it saves}}} of the trials for which it is known.
        tuned: the finetuned models.
        commands: {purpose: command line}.
        next_step: a line that names the next command, or "".
    """

    summary: StudySummary
    facts: StudyFacts
    settings: str = ""
    identity: Mapping[str, str] = field(default_factory=dict)
    stairs: Stairs | None = None
    savings: Mapping[int, charts.Savings] = field(default_factory=dict)
    tuned: Sequence[Tuned] = ()
    commands: Mapping[str, str] = field(default_factory=dict)
    next_step: str = ""


def save_page(page: Page, path: str | os.PathLike[str]) -> Path:
    """Write a report to a file. Its folder is made if it is missing.

    Raises:
        StudyError: the file cannot be written. An existing file is not changed.
    """
    text = render_page(page)
    with saving(Path(path), "report", StudyError) as partial:
        partial.write_text(text, "utf-8")
    return Path(path)


def render_page(page: Page) -> str:
    """Return the report as HTML."""
    style, script = (Markup(_asset(name)) for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        _environment()
        .get_template("page.html")
        .render(
            page=page,
            summary=page.summary,
            style=style,
            script=script,
            policy=policy,
            version=metadata.version("autoprune"),
            written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            **_head(page),
            **_sections(page),
        )
    )


def _head(page: Page) -> dict[str, Any]:
    """Return the verdict, the score and the costs."""
    summary, best = page.summary, page.summary.best
    costs = [] if best is None else cost_rows(summary, best)
    # A timed latency follows the predicted one, and takes its place.
    known = {row.cost: row for row in costs if row.share is not None and row.cost in summary.shown_costs}
    return {
        "headline": headline(summary),
        "counted": counted(summary),
        "best": best,
        "score": None if best is None else _score_card(page, best),
        "costs": costs,
        "cards": known.values(),
        "limits": [
            (COSTS[cost].label, COSTS[cost].unit.write(limit), limit / summary.dense_costs[cost])
            for cost, limit in summary.limits.items()
            if summary.dense_costs.get(cost)
        ],
        "notes": summary_notes(summary),
        "latency_notes": latency_notes(summary),
    }


def _score_card(page: Page, best: TrialRecord) -> dict[str, Any]:
    """Return the best trial's score and the dense model's, with the training and the part of the data."""
    summary = page.summary
    tuned = next((each for each in page.tuned if each.trial == best.number), None)
    score, error, dense = best.score, best.error, score_text(summary.dense_score, summary.dense_error)
    if tuned is not None and tuned.scores["test_score"] is not None:
        score, error = tuned.scores["test_score"], None
        dense = score_text(tuned.scores["dense_test_score"], None)
        about = "on the test part, read once"
    elif summary.race is not None:
        stage = summary.race.winner.last
        score, error = stage.score, stage.error
        about = f"after {stage.epochs} epochs, on the validation part"
    else:
        about = f"after {best.scores[-1].name}, on the validation part" if best.scores else ""
    return {"score": score, "error": error, "dense": dense, "about": about}


def _sections(page: Page) -> dict[str, Any]:
    """Return the charts and the rows of the sections below."""
    summary, best = page.summary, page.summary.best
    savings = {} if best is None else page.savings.get(best.number, {})
    found = origins(summary.records) if any(each.is_whole for each in summary.records) else []
    axis = charts.score_axis(found)
    return {
        "strip": None if best is None else charts.strip_chart(summary, best, savings),
        "widths": width_rows(summary, best),
        "savings": savings,
        "history": charts.history_chart(summary),
        "trade_offs": charts.cost_charts(summary),
        "trials": listed(summary),
        "front": {record.number for record in summary.front},
        "rungs": [
            (agreement_note(each, summary), charts.agreement_chart(each, summary))
            for each in summary.agreements
        ],
        "rung_warnings": rung_warning(summary),
        "race": charts.race_chart(summary),
        "race_rows": race_rows(summary),
        "curves": [chart for tuned in page.tuned for chart in _curves(tuned)],
        "origins": [(each, charts.dots(each, summary, axis)) for each in found],
        "origin_note": origin_note(summary),
        "criteria": criterion_scores(summary.records),
        "criteria_notes": criteria_notes(summary),
        "stairs": [] if page.stairs is None else charts.stairs_charts(page.stairs),
    }


def _curves(tuned: Tuned) -> list[Chart]:
    """Return the curves of a finetune, or nothing if its epochs are not known."""
    if len(tuned.epochs) < 2:
        return []
    aid = f"Trial {tuned.trial}. "
    return [
        charts.curve_chart(
            "Score of the finetune",
            f"{aid}The dashed line is the dense model.",
            "score on the validation part",
            [epoch.score for epoch in tuned.epochs],
            dense=tuned.scores["dense_val_score"],
        ),
        charts.curve_chart(
            "Loss of the finetune",
            f"{aid}A falling line that has flattened has trained enough.",
            "training loss",
            [epoch.loss for epoch in tuned.epochs],
        ),
    ]


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    made.filters |= {"percent": _percent, "score": score_text, "amount": _amount, "outcome": outcome}
    made.globals["costs_table"] = COSTS
    return made


def _visible(value: Any) -> Any:
    """Escape control characters of a text, which could hide parts of it or reorder them."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _percent(share: float | None, digits: int = 1) -> str:
    return "-" if share is None or not math.isfinite(share) else f"{share:.{digits}%}"


def _amount(value: float | None, cost: str) -> str:
    """Write an amount without its unit if the name of the cost contains it: "1.12 M" of MACs, "174 kB"."""
    if value is None or not math.isfinite(value):
        return "-"
    unit = COSTS[cost].unit
    return unit.write(value).removesuffix(f" {unit.name}") if unit.is_whole else unit.write(value)


@cache
def _asset(name: str) -> str:
    return (_TEMPLATES / name).read_text("utf-8")


def _hash(text: str) -> str:
    """Return the hash by which a page allows a script or a style."""
    digest = hashlib.sha256(str(text).encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
