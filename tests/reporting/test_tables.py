"""The tables of a study: failed trials with their reasons, and the widths that were kept."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table
from typer.main import get_command

from autoprune.cli.commands import app
from autoprune.config.rungs import RungScore
from autoprune.cost import budget_keys
from autoprune.errors import TrialError
from autoprune.reporting import (
    StudySummary,
    cost_notes,
    cost_table,
    failure_table,
    front_table,
    next_command,
    summary_notes,
    trial_table,
    widths_table,
)
from autoprune.reporting._rows import outcome
from autoprune.run import SearchResult
from autoprune.study import MeasuredLatency, TrialRecord

RECORD = TrialRecord(
    number=0,
    state="complete",
    value=0.9,
    scores=(RungScore(0, "calibrate", 0.5, 0.1), RungScore(1, "50 steps", 0.9, 1.0)),
    ratios={},
    widths={"conv1": 10, "fc": 10},
    costs={"macs": 500, "params": 50},
    seed=1,
    seconds=1.1,
    device="cpu",
    origin="sampler",
    reused=None,
    failure=None,
)
FAILED = dataclasses.replace(RECORD, state="failed", value=None, scores=(), failure="diverged [nan]")
SUMMARY = StudySummary(
    study="s",
    metric="accuracy",
    rungs=("calibrate", "50 steps"),
    records=(RECORD, dataclasses.replace(RECORD, number=1, scores=RECORD.scores[:1], state="pruned")),
    best=RECORD,
    objectives=("score",),
    front=(),
    dense_costs={"macs": 1000, "params": 100},
    dense_score=0.99,
    dense_widths={"conv1": 16},
    limits={"macs": 500},
    agreements=(),
)
HOPELESS = dataclasses.replace(
    SUMMARY,
    records=(
        dataclasses.replace(FAILED, number=0, failure="out of memory"),
        *(dataclasses.replace(FAILED, number=number) for number in (1, 2)),
    ),
    best=None,
)


def drawn(table: Table, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_best_widths_are_shown_of_the_dense_ones_without_frozen_groups() -> None:
    text = drawn(widths_table(SUMMARY, SUMMARY.best))
    assert "10 / 16" in text
    assert "fc" not in text
    older = dataclasses.replace(SUMMARY, dense_widths={})  # a study from before dense widths were stored
    assert "fc" in drawn(widths_table(older, older.best))


def test_a_score_names_the_rung_that_it_was_measured_after() -> None:
    text = drawn(trial_table(SUMMARY, most=5))
    assert "after 50 steps" in text
    assert "pruned at calibrate" in text
    failed = dataclasses.replace(SUMMARY.records[1], state="failed")
    assert outcome(failed) == "failed after calibrate"
    assert any("A finetune trains the best trial fully" in note for note in summary_notes(SUMMARY))


def test_a_standard_error_stands_beside_its_score_and_is_explained() -> None:
    assert "±" not in drawn(trial_table(SUMMARY)) + "".join(summary_notes(SUMMARY))
    (record, _) = SUMMARY.records
    record = dataclasses.replace(record, scores=(RungScore(0, "50 steps", 0.9, 1.0, 0.012),))
    known = dataclasses.replace(SUMMARY, records=(record,), front=(record,), dense_error=0.0045)
    for table in (trial_table(known), front_table(known)):
        assert "0.9000 ±0.0120" in drawn(table)
        assert "0.9900 ±0.0045" in drawn(table)
    assert any("± is the standard error of a score" in note for note in summary_notes(known))


def test_a_supernets_scores_need_no_finetune() -> None:
    shared = dataclasses.replace(SUMMARY, rungs=("supernet",))
    (note,) = summary_notes(shared)
    assert (
        'after the rung "supernet", on weights of the supernet. An export writes the best trial as scored'
        in note
    )
    assert "autoprune export" in next_command(shared, "sqlite:///s.db")


def test_scores_of_a_rung_that_trained_on_from_the_supernet_do() -> None:
    """The weights of that rung are not kept: an export would write another model than the scored one."""
    trained = dataclasses.replace(SUMMARY, rungs=("supernet", "50 steps"))
    (note,) = summary_notes(trained)
    assert 'after the rung "50 steps", which no trial keeps. A finetune trains' in note
    assert "autoprune finetune" in next_command(trained, "sqlite:///s.db")


def test_scores_of_repaired_candidates_say_what_a_finetune_begins_with() -> None:
    """A repair alone can be exported as it was scored; what trained on from it cannot."""
    alone = dataclasses.replace(SUMMARY, rungs=("repair", "calibrate"))
    (note,) = summary_notes(alone)
    assert 'after the rung "calibrate". An export writes the best trial as scored' in note
    assert "autoprune export" in next_command(alone, "sqlite:///s.db")
    trained = dataclasses.replace(SUMMARY, rungs=("repair", "50 steps"))
    (note,) = summary_notes(trained)
    assert note.endswith("A finetune trains the best trial fully, from repaired weights.")
    assert "autoprune finetune" in next_command(trained, "sqlite:///s.db")
    (note,) = summary_notes(dataclasses.replace(SUMMARY, rungs=("supernet", "repair", "50 steps")))
    assert note.endswith("fully, from repaired weights of the supernet.")


def test_a_trial_that_several_heuristics_came_to_names_them_all() -> None:
    origins = ["uniform", "taylor-knapsack", "sensitivity"]
    warm = dataclasses.replace(RECORD, number=2, origin=", ".join(origins))
    text = drawn(trial_table(dataclasses.replace(SUMMARY, records=(*SUMMARY.records, warm)), most=5))
    assert all(name in text for name in origins)
    assert "…" not in text


def test_failures_are_counted_by_reason_the_most_frequent_first() -> None:
    assert [(each.reason, each.trials) for each in HOPELESS.failures()] == [
        ("diverged [nan]", (1, 2)),
        ("out of memory", (0,)),
    ]
    text = drawn(failure_table(HOPELESS))
    assert text.index("diverged [nan]") < text.index("out of memory")
    assert summary_notes(HOPELESS) == []
    assert SUMMARY.failures() == []


def test_a_search_without_a_complete_trial_raises_the_most_frequent_reason() -> None:

    result = SearchResult("s", "sqlite:///s.db", Path("runs"), HOPELESS)
    with pytest.raises(TrialError, match=r"s: none of 3 trials completed, 2 of them with: diverged \[nan\]"):
        _ = result.best


def test_every_option_of_a_next_step_is_one_of_best() -> None:
    parameters = vars(get_command(app))["commands"]["best"].params
    options = {each for parameter in parameters for each in parameter.opts}
    assert {key.option for key in budget_keys().values()} <= options


MEASURED = MeasuredLatency(1.08, (1.0, 1.1), 0.583, (0.561, 0.601), met=True)
TIMED = dataclasses.replace(RECORD, costs={**RECORD.costs, "latency_ms": 1.2}, measured=MEASURED)
PREDICTED = dataclasses.replace(TIMED, number=1, measured=None)
WITH_LATENCY = dataclasses.replace(
    SUMMARY,
    records=(TIMED, PREDICTED),
    best=TIMED,
    dense_costs={**SUMMARY.dense_costs, "latency_ms": 2.0},
    limits={"latency_ms": 1.3},
)


def cells(text: str, first: str) -> list[str]:
    """Return the words of the row that begins with `first`."""
    (row,) = [line.split() for line in text.splitlines() if line.split()[:1] == [first]]
    return row


def test_latencies_are_shown_in_milliseconds_beside_their_shares() -> None:
    front = dataclasses.replace(
        WITH_LATENCY, objectives=("score", "latency_ms"), front=(TIMED, PREDICTED), limits={}
    )
    for table in (trial_table(WITH_LATENCY), front_table(front)):
        text = drawn(table)
        assert "…" not in text
        assert cells(text, "0")[4:6] == ["58.3%", "1.17"]
        assert cells(text, "1")[4:6] == ["60.0%", "1.2"]
        assert cells(text, "dense")[4:6] == ["100.0%", "2"]
    assert " ms" not in drawn(trial_table(SUMMARY))


def test_a_predicted_latency_is_called_so_and_a_trial_that_was_not_timed_is_named() -> None:
    text = drawn(cost_table(WITH_LATENCY, TIMED))
    assert "latency, predicted" in text
    assert "latency, timed" in text
    assert cost_notes(TIMED) == []
    assert "latency, timed" not in drawn(cost_table(WITH_LATENCY, PREDICTED))
    (note,) = cost_notes(PREDICTED)
    assert note.startswith("Trial 1 was not timed, its latency is predicted: finetune and export it")
    assert cost_notes(RECORD) == []


def test_a_measured_latency_stands_in_for_the_predicted_one() -> None:
    (note,) = [note for note in summary_notes(WITH_LATENCY) if note.startswith("Latencies")]
    unsure = dataclasses.replace(TIMED, measured=dataclasses.replace(MEASURED, surely=False))
    doubted = summary_notes(dataclasses.replace(WITH_LATENCY, records=(unsure,), best=unsure))
    assert any(each.endswith("within the budget, though its interval reaches beyond it.") for each in doubted)
    assert "predicted. For trial 0 they were measured side by side with the dense model." in note
    assert "1.08 ms, 58.3% (56.1% to 60.1%) of the dense model's time: within the budget." in note


def test_a_winner_that_has_lost_its_task_is_warned_of() -> None:
    """A detector that finds nothing scores 0. A loss as a score is negative, and has no share."""

    def warnings(score: float, dense: float = 0.4, rungs: tuple[str, ...] = ("calibrate",)) -> list[str]:
        best = dataclasses.replace(RECORD, scores=(RungScore(0, rungs[0], score, 0.1),))
        notes = summary_notes(dataclasses.replace(SUMMARY, best=best, dense_score=dense, rungs=rungs))
        return [note for note in notes if note.startswith("Warning")]

    (note,) = warnings(0.0)
    assert "scores 0.0000, and the dense model 0.4000: it has lost most of its task." in note
    assert 'begin score.rungs with "repair"' in note
    assert "make the last rung longer" in warnings(0.05, rungs=("repair",))[0]
    assert [warnings(0.1), warnings(-2.0, dense=-0.4)] == [[], []]
