"""Results as JSON: the keys of the schema, the values of the results, and no number that is not finite."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoprune.cli._document_base import VERSION
from autoprune.cli._documents import DOCUMENTS, document, schema
from autoprune.config import load_config, parse_settings, presets
from autoprune.exporting import ExportReport
from autoprune.flow import StageEntry
from autoprune.graph import Cost
from autoprune.latency import Measurement, Ratio
from autoprune.masks import Remaining
from autoprune.reporting import BudgetCurve, BudgetPoint, Curve, Curves, Epoch
from autoprune.run import (
    Bench,
    BenchRow,
    ComparedFlow,
    CostRange,
    Entrant,
    FinetuneResult,
    FlowComparison,
    FlowResult,
    Inspection,
    Int8Report,
    Picked,
    Proposal,
    RaceStatus,
    Report,
    SearchResult,
    SmokeResult,
    StudyStatus,
    TrainResult,
    Worker,
)
from autoprune.run._report import report
from autoprune.run._resolving.paths import settle
from autoprune.run._resolving.spec import RunSpec
from autoprune.space import Budget
from autoprune.study import MeasuredLatency, Race, RaceEntry, RaceResult, StageRecord, create_study
from tests.engines.toy import FACTS
from tests.reporting.test_tables import FAILED, RECORD, SUMMARY

ENTRY = RaceEntry(settings="f", stages=[StageRecord(epochs=2, score=0.9)])
RACED = dataclasses.replace(
    SUMMARY,
    records=(
        dataclasses.replace(RECORD, measured=MeasuredLatency(1.0, (0.9, 1.1), 0.5, (0.4, 0.6), met=True)),
        dataclasses.replace(FAILED, number=1),
    ),
    front=(RECORD,),
    dense_score=math.nan,
    race=Race(RaceResult(settings="f", entrants=[0], ends=[2], winner=0), {0: ENTRY}),
)
COST = Cost(500, 50, latency_ms=np.float64(1.5))
SCORES: dict[str, Any] = {
    "val_score": 0.9,
    "test_score": None,
    "dense_val_score": 0.95,
    "dense_test_score": math.nan,
}
STAGE = StageEntry(
    number=1, stage="select", seconds=1.0, score=None, base=None, small=None, cut=None, cost={}, facts={}
)
TIME = Measurement(1.0, (0.9, 1.1), 1.2, 9, 1.0, True)
TUNED = FinetuneResult("s", Path("best"), 0, COST, COST, **SCORES, epochs=(Epoch(0.5, 0.9),))
RESULTS: list[Any] = [
    TrainResult(Path("dense.safetensors"), math.inf),
    SearchResult("s", "sqlite:///s.db", Path("runs"), RACED, "Next: x", Path("report.html")),
    StudyStatus(
        SUMMARY,
        "sqlite:///s.db",
        9,
        2,
        {"calibrate": 2},
        math.inf,
        None,
        1.0,
        (Worker("box", 4711, "race", None, {3: 1.5}),),
        (),
        RaceStatus((Entrant(0, "sampler", 2, 0.9, None),), 3, (1, 2), None),
        is_finished=False,
        resume="autoprune resume s",
    ),
    Picked(SUMMARY, RECORD, "autoprune finetune s"),
    BudgetCurve("s", "flops", "macs", (BudgetPoint("30%", 0.1, {"macs": 5}, {"a": 1}),), {"macs": 9}),
    TUNED,
    FlowResult(
        Path("flow"),
        "l1",
        COST,
        COST,
        **SCORES,
        remaining=Remaining(5, 10, 5, 10),
        stages=(STAGE,),
        model=torch.nn.Identity(),
    ),
    Report(SUMMARY, None, None, (TUNED,), "", {"search": {"trials": 3}}, Path("report.html")),
    (FlowComparison("accuracy", 0.9, (ComparedFlow(Path("a"), {"k": "1"}, 0.8, 0.5),), {"k": [("1", 0.8)]}),),
    Inspection(
        "net",
        (),
        (),
        3,
        drops_blocks=False,
        dense_cost=COST,
        smallest=COST,
        largest=COST,
        costs={"macs": CostRange(1, 2, 3)},
        budget=Budget(macs=500),
        plans=None,
        few_plans="",
        in_window=True,
        problem="",
        memory_bytes=9,
    ),
    Curves("t", "error", (Curve("a", (1, 2), (0.5, 1.0), (math.nan, 0.0)),)),
    ExportReport(Path("m.onnx"), "onnx", 1e-7, part="backbone"),
    Bench(
        tuple(
            BenchRow(Path(name), "PyTorch", TIME, ratio)
            for name, ratio in (("a.pt2", None), ("b.pt2", Ratio(0.5, (0.4, 0.6), True)))
        ),
        1,
        1,
        "cpu",
    ),
    tuple(presets().values()),
    Proposal("[model]\n", ("Data: 3",), "1 trial takes about 1 s"),
    SmokeResult(12.0, 2, 256, "onnx"),
    Int8Report(
        path=Path("int8.onnx"),
        float_path=None,
        metric="accuracy",
        score=0.9,
        float_score=0.91,
        interval=(-0.02, 0.0),
        val_images=10,
        size_bytes=1,
        float_size_bytes=4,
        time=TIME,
        float_time=TIME,
        ratio=Ratio(0.5, (0.4, 0.6), True),
        calibration="minmax",
        images=10,
        reduce_range=False,
        tolerance=0.01,
    ),
]


def first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value


def names(value: Any) -> str:
    return type(first(value)).__name__


@pytest.mark.parametrize("result", RESULTS, ids=names)
def test_a_document_fits_its_schema_and_has_its_sentences(result: Any) -> None:
    read = json.loads(document(result, ["one", "two"]), parse_constant=pytest.fail)
    assert next(iter(read)) == "document"
    assert (read["version"], read["sentences"]) == (VERSION, ["one", "two"])
    kind, _ = DOCUMENTS[type(first(result))]
    assert kind.model_validate(read, by_name=True, by_alias=False).model_dump(mode="json") == read
    assert read.keys() == json.loads(schema())["$defs"][kind.__name__]["properties"].keys()


def test_every_result_has_a_document_and_every_document_another_name() -> None:
    assert {names(result) for result in RESULTS} == {kind.__name__ for kind in DOCUMENTS}
    kinds = [kind.model_fields["document"].default for kind, _ in DOCUMENTS.values()]
    assert sorted(set(kinds)) == sorted(kinds)


def test_values_are_those_of_the_result() -> None:
    """Numbers are not rounded, and those that are not finite are null."""
    search = json.loads(document(RESULTS[1]))["summary"]
    assert search["best"]["score"] == RECORD.score
    assert search["best"]["rungs"][1]["name"] == "50 steps"
    assert search["dense_score"] is None
    assert search["counts"] == {"complete": 1, "failed": 1}
    assert search["failures"] == [{"reason": "diverged [nan]", "trials": [1]}]
    assert search["race"]["entrants"][0]["stages"][0]["score"] == 0.9
    assert search["verdict"]["winner"] == 0
    assert search["trials"][0]["measured"]["interval_ms"] == [0.9, 1.1]
    tuned = json.loads(document(TUNED))
    assert tuned["cost"] == {"macs": 500, "params": 50, "latency_ms": 1.5}
    assert (tuned["test_score"], tuned["dense_test_score"]) == (None, None)
    assert json.loads(document(RESULTS[10]))["curves"][0]["values"] == [None, 0.0]
    bench = json.loads(document(RESULTS[12]))["rows"]
    assert [row["ratio"] for row in bench] == [None, 0.5]
    assert json.loads(document(RESULTS[9]))["limits"] == {"macs": 500}


def test_a_report_has_the_settings_of_its_study_without_passwords(tmp_path: Path) -> None:
    changes = [
        f"output.folder={tmp_path}",
        "search.trials=7",
        "search.storage=postgresql://me:secret@host/db",
    ]
    config = settle(load_config("digits", changes))
    url = f"journal:///{tmp_path}/study.log"
    create_study(url, "toy", config=dataclasses.asdict(config), identity={}, facts=FACTS)
    text = document(report("toy", url))
    settings = json.loads(text)["settings"]
    assert "secret" not in text
    assert settings["search"].pop("storage") == "postgresql://me:***@host/db"
    assert RunSpec.of(parse_settings(settings)) == dataclasses.replace(
        config, search=dataclasses.replace(config.search, storage=None)
    )
