"""Writes the page of the guide on JSON documents from their classes.

python -m tests.guide.documents
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import autoprune.guide
from autoprune.cli._document_base import Document, Part
from autoprune.cli._documents import DOCUMENTS, schema
from tests.guide.reference import documented, wrapped

PATH = Path(autoprune.guide.__file__).with_name("json.md")

HEAD = """\
# JSON: results for programs

`--json` prints the result of a verb as one JSON document on standard output. Progress, warnings and errors go
to standard error. A mistake still ends in one line there and exit code 2, and prints no document.

```sh
autoprune best digits --flops 40% --json | jq .trial.score
autoprune watch digits --once --json
```

- Every document has the keys `document` (its name below), `version` and `sentences`, the lines that the verb
  prints under its tables.
- Keys have the names of the attributes in Python.
- A number that is not known or not finite is null. FLOPs are 2 x MACs.
- The version is 1. It rises if a key is removed or changes its meaning. Keys may be added at any time.
- `autoprune guide json --json` prints the JSON Schema of all documents.

This page is made from the code by `python -m tests.guide.documents`.
"""

PARTS = """\
## Parts

The documents are made of these. A type such as `list of trial` names one.
"""


def page() -> str:
    """Return the page."""
    kinds = [kind for kind, _ in DOCUMENTS.values()]
    parts = [name for name in json.loads(schema())["$defs"] if name.endswith("Part")]
    found = {each.__name__: each for each in _all(Part)}
    listed = [_section(kind, "## " + kind.model_fields["document"].default) for kind in kinds]
    listed_parts = [_section(found[name], f"### {_name(name)}") for name in parts]
    return "\n".join([HEAD, *listed, PARTS, *listed_parts])


def _section(kind: type[Part], heading: str) -> str:
    docs: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        docs |= documented(each)
    fields = json.loads(schema())["$defs"][kind.__name__]["properties"]
    prose = (inspect.getdoc(kind) or "").partition("Attributes:")[0].strip()
    keys = [
        wrapped(f"`{key}` ({_type(values)}){f': {docs[key]}' if key in docs else ''}")
        for key, values in fields.items()
        if not (issubclass(kind, Document) and key in ("document", "version", "sentences"))
    ]
    return "\n".join([f"{heading}\n", prose, "", *keys, ""])


def _all(kind: type[Part]) -> Iterator[type[Part]]:
    yield kind
    for each in kind.__subclasses__():
        yield from _all(each)


def _name(part: str) -> str:
    """Return the heading of a part: "flow stage" for FlowStagePart."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", part.removesuffix("Part")).lower()


def _type(values: dict[str, Any]) -> str:
    """Return a type of JSON Schema in words."""
    if "$ref" in values:
        return _name(values["$ref"].rpartition("/")[2])
    if "anyOf" in values:
        names = dict.fromkeys(_type(each) for each in values["anyOf"])
        if names.keys() >= {"integer", "number"}:
            del names["integer"]
        # The head of the page says that any number may be null.
        return " or ".join(names).replace("number or null", "number")
    if "prefixItems" in values:
        return "pair"
    if values.get("type") == "array":
        return f"list of {_type(values['items'])}"
    if values.get("type") == "object":
        of = values["additionalProperties"]
        return "object" if of is True else f"object of {_type(of)}"
    return {"string": "text"}.get(str(values.get("type")), str(values.get("type", "any")))


if __name__ == "__main__":
    PATH.write_text(page(), encoding="utf-8")
