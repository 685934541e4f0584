"""Write the README.md of a saved model: a model card that states its origin, costs, accuracy and use.

The card is made of recipe.json and of the files next to it, so it can be written again at any time.

Example:
    save_pruned(small, plan, "best/", extra={"card": CardFacts(title="ResNet-20").model_dump(mode="json")})
    write_card(Path("best"))
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field

from autoprune.errors import CheckpointError, ExportError, printable, reason_of
from autoprune.exporting._onnx import OnnxSignature, read_signature
from autoprune.exporting._recipe import Recipe
from autoprune.exporting._recipe_schema import Architecture, read_architecture
from autoprune.exporting._saved_model import RECIPE, WEIGHTS, read_recipe
from autoprune.support.atomic import saving
from autoprune.support.files import open_regular, read_text
from autoprune.support.schema import Strict, read_as

if TYPE_CHECKING:
    from jinja2 import Environment

T = TypeVar("T")

CARD = "README.md"
ONNX = "model.onnx"
INT8 = "model.int8.onnx"
PT2 = "model.pt2"
PAGE = "report.html"

MARK = "<!-- Written by autoprune"
"""The first characters of a card. A README.md without them is the user's own and is never replaced."""

_FILES = {
    WEIGHTS: "the weights",
    RECIPE: "the shapes, the channels kept, and the facts of this page",
    ONNX: "the model for ONNX Runtime and other runtimes",
    INT8: "the same with 8-bit weights and activations",
    PT2: "the model for torch.export.load",
    PAGE: "the report of the search",
}


class CardCost(Strict):
    """One cost of the pruned model next to the dense model's, as texts."""

    label: str
    small: str
    dense: str = ""
    share: str = ""
    budget: str = ""


class CardScore(Strict):
    """The score on one part of the data, as texts.

    Attributes:
        part: "test" or "validation".
        small: of the pruned model.
        dense: of the dense model.
        interval: 95% interval of `small` over the draw of the images, or "".
        images: number of images.
    """

    part: str
    small: str
    dense: str
    interval: str = ""
    images: int


class CardPreprocessing(Strict):
    """How images become inputs: `autoprune.data.Preprocessing` explains the keys."""

    mean: list[float]
    std: list[float]
    resize: int | None = None


class CardFacts(Strict):
    """The facts of a model card that only the run knows, as the recipe stores them under "card".

    Attributes:
        title: of the card.
        about: sentences on the model and its origin.
        metric: name of the score.
        costs: the costs and the budget.
        scores: the scores.
        notes: sentences on costs and scores.
        data: {topic: text} on the training data.
        class_names: the names of the classes, or [].
        preprocessing: how images become inputs, if it is known.
        origin: {topic: text} on the dense model, its code and its licence.
        training: {topic: text} on the training.
        versions: {package or part of the machine: text}.
        hashes: {part: its fingerprint}.
        commands: the commands that make the model again.
        settings: the settings that differ from the defaults, as TOML.
        limits: sentences on the limits of these figures.
        failed: {file: the reason why it could not be exported}.
    """

    title: str = "A pruned model"
    about: list[str] = Field(default_factory=list)
    metric: str = "score"
    costs: list[CardCost] = Field(default_factory=list)
    scores: list[CardScore] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    data: dict[str, str] = Field(default_factory=dict)
    class_names: list[str] = Field(default_factory=list)
    preprocessing: CardPreprocessing | None = None
    origin: dict[str, str] = Field(default_factory=dict)
    training: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    hashes: dict[str, str] = Field(default_factory=dict)
    commands: list[str] = Field(default_factory=list)
    settings: str = ""
    limits: list[str] = Field(default_factory=list)
    failed: dict[str, str] = Field(default_factory=dict)


class Int8Facts(Strict):
    """The facts of an int8 file, as the recipe stores them under "int8".

    Attributes:
        made: how it was quantised, in sentences.
        rows: [[quantity, float file, int8 file], ...], as texts.
        notes: sentences on the comparison.
    """

    made: list[str] = Field(default_factory=list)
    rows: list[list[str]] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)


def write_card(folder: Path) -> Path | None:
    """Write the model card of a saved model into its folder.

    Returns:
        The file, or None if there is a README.md that this package has not written.

    Raises:
        CheckpointError: the recipe is missing or damaged.
        ExportError: the card cannot be written.
    """
    path = folder / CARD
    if path.exists() and not is_own_card(path):
        return None
    text = render_card(folder)
    with saving(path, "model card", ExportError) as partial:
        partial.write_text(text, "utf-8")
    return path


def is_own_card(path: Path) -> bool:
    """Return whether a file is a card that this package has written, rather than one of the user's own."""
    try:
        return read_text(path).startswith(MARK)
    except (OSError, ValueError):
        return False


def render_card(folder: Path) -> str:
    """Return the model card of a saved model as Markdown."""
    recipe = read_recipe(folder)
    signature, problem = _signature(folder)
    facts = read_facts(recipe, folder / RECIPE)
    failed = {name: reason for name, reason in facts.failed.items() if not (folder / name).is_file()}
    int8 = recipe.extra.get("int8") if (folder / INT8).is_file() else None
    return (
        _environment()
        .get_template("model_card.md")
        .render(
            mark=MARK,
            card=facts,
            recipe=recipe,
            net=_architecture(recipe, folder / RECIPE),
            onnx=signature,
            failed={**({ONNX: problem} if problem else {}), **failed},
            int8=None if int8 is None else _read(Int8Facts, int8, folder / RECIPE, "int8"),
            files=[(name, *_size_and_hash(folder / name), about) for name, about in _present(folder)],
            ONNX=ONNX,
            INT8=INT8,
        )
    )


def read_facts(recipe: Recipe, path: Path) -> CardFacts:
    """Return the facts of the card in a recipe. All are empty if an earlier version wrote it.

    Raises:
        CheckpointError: one of them has the wrong type.
    """
    return _read(CardFacts, recipe.extra.get("card", {}), path, "card")


def _read(kind: type[T], values: Any, path: Path, key: str) -> T:
    where = f"{path}: extra.{key}"
    return read_as(kind, values, where=where, error=CheckpointError, advice="Save the model again.")


def _architecture(recipe: Recipe, path: Path) -> Architecture | None:
    noted = recipe.extra.get("architecture")
    if not isinstance(noted, dict) or noted.get("name") is None:
        return None
    return read_architecture(path, noted)


def _signature(folder: Path) -> tuple[OnnxSignature | None, str]:
    """Return the signature of the folder's ONNX file, and the reason why it cannot be read, or ""."""
    if not (folder / ONNX).is_file():
        return None, ""
    try:
        return read_signature(folder / ONNX), ""
    except Exception as error:  # the reader may raise anything
        return None, f"it cannot be read ({reason_of(error)})"


def _present(folder: Path) -> list[tuple[str, str]]:
    return [(name, about) for name, about in _FILES.items() if (folder / name).is_file()]


def _size_and_hash(path: Path) -> tuple[int, str]:
    with open_regular(path) as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: value if isinstance(value, Markup) else _plain(value),
    )
    made.filters |= {
        "code": lambda value: Markup(f"`{_line(value).replace('`', chr(39)).replace('|', chr(92) + '|')}`"),
        "literal": lambda value: Markup(json.dumps(value)),
        "fenced": lambda value: Markup(printable(str(value)).replace("```", "'''").strip()),
    }
    return made


def _line(value: object) -> str:
    return printable(" ".join(str(value).split()))


def _plain(value: object) -> str:
    """Return a value as one line of Markdown that shows it as it is. A recipe may come from anybody."""
    text = _line(value)
    for mark in "\\`*[]<|":
        text = text.replace(mark, f"\\{mark}")
    return text
