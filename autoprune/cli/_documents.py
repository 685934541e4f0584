"""Turns results into JSON documents. `autoprune guide json` lists their keys.

A document has the attributes of the result in Python under the same names, so that one description holds for
both. Numbers that are not finite are null.

Example:
    document(result, ["Next: autoprune finetune digits"])    # '{"document": "search", "version": 1, ...'

A new result is a class in `_study_documents` or `_model_documents`, and a row of DOCUMENTS.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from autoprune.cli._document_base import Document
from autoprune.cli._model_documents import (
    BenchDocument,
    CurvesDocument,
    ExportDocument,
    InspectDocument,
    Int8Document,
    MethodsDocument,
    PruneDocument,
    TrainDocument,
)
from autoprune.cli._study_documents import (
    BestDocument,
    BudgetsDocument,
    FinetuneDocument,
    FlowsDocument,
    InitDocument,
    ReportDocument,
    SearchDocument,
    SmokeDocument,
    WatchDocument,
)
from autoprune.config import Preset
from autoprune.exporting import ExportReport
from autoprune.reporting import BudgetCurve, Curves
from autoprune.run import (
    Bench,
    FinetuneResult,
    FlowComparison,
    FlowResult,
    Inspection,
    Int8Report,
    Picked,
    Proposal,
    Report,
    SearchResult,
    SmokeResult,
    StudyStatus,
    TrainResult,
)

DOCUMENTS: Mapping[type, tuple[type[Document], str]] = {
    TrainResult: (TrainDocument, ""),
    SearchResult: (SearchDocument, ""),
    SmokeResult: (SmokeDocument, ""),
    StudyStatus: (WatchDocument, ""),
    Picked: (BestDocument, ""),
    Proposal: (InitDocument, ""),
    BudgetCurve: (BudgetsDocument, ""),
    FinetuneResult: (FinetuneDocument, ""),
    FlowResult: (PruneDocument, ""),
    Report: (ReportDocument, ""),
    FlowComparison: (FlowsDocument, "comparisons"),
    Inspection: (InspectDocument, ""),
    Curves: (CurvesDocument, ""),
    ExportReport: (ExportDocument, ""),
    Int8Report: (Int8Document, ""),
    Bench: (BenchDocument, ""),
    Preset: (MethodsDocument, "methods"),
}
"""{class of a result: its document, and the key of its items if the result is a sequence of them}."""


def document(result: object, sentences: Sequence[str] = ()) -> str:
    """Return the JSON document of a result.

    Args:
        result: an object of a class in DOCUMENTS, or a sequence of them.
        sentences: those that the command prints under its tables.
    """
    first = result[0] if isinstance(result, tuple) else result
    kind, items = DOCUMENTS[type(first)]
    read = kind.model_validate({items: result} if items else result)
    values = {
        "document": None,
        **read.model_copy(update={"sentences": list(sentences)}).model_dump(mode="json"),
    }
    return json.dumps(values, indent=2, allow_nan=False)


def schema() -> str:
    """Return the JSON Schema of all documents."""
    from pydantic.json_schema import models_json_schema

    kinds: list[Any] = [(kind, "serialization") for kind, _ in DOCUMENTS.values()]
    _, found = models_json_schema(kinds)
    names = [kind.__name__ for kind, _ in DOCUMENTS.values()]
    one_of = [{"$ref": f"#/$defs/{name}"} for name in names]
    return json.dumps({"title": "Documents of autoprune", "oneOf": one_of, **found}, indent=2)
