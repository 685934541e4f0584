"""Completes the folder of a saved model with exported files, the report and a model card.

A model that cannot be exported still gets its folder. The card then states the reason.

Example:
    begin_artefact(folder)                          # removes files of an earlier model
    save_pruned(small, plan, folder, extra={"card": facts.model_dump(mode="json")})
    export_formats(folder, small, spec.output.formats)
    complete_artefact(folder, page)
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from autoprune.errors import CheckpointError, ExportError
from autoprune.exporting import (
    CARD,
    EXPORTERS,
    INT8,
    PAGE,
    RECIPE,
    WEIGHTS,
    export,
    find_exporter,
    is_own_card,
    read_facts,
    read_recipe,
    update_extra,
    write_card,
)
from autoprune.graph.attached import example_of
from autoprune.support.atomic import saving
from autoprune.support.events import Stage, Watcher, silent

DEFAULT_FORMATS: tuple[str, ...] = ("onnx",)
"""The formats that follow the weights unless output.formats names others."""


def begin_artefact(folder: Path) -> None:
    """Remove the files that were made from an earlier model in the folder, before its weights change."""
    for path in derived_files(folder):
        with contextlib.suppress(OSError):
            path.unlink()


def require_free(folder: Path, source: Path, *, is_whole: bool) -> None:
    """Refuse to replace another model in a folder, and files that this package has not written.

    Args:
        folder: the folder to write to.
        source: the folder of the model that would be written.
        is_whole: whether the files that are made from the model will be written too.

    Raises:
        ExportError: the folder holds another model, or no model and a file with the name of one that would be
            written. The message names it.
    """
    try:
        held = read_recipe(folder)
    except CheckpointError:
        for path in (folder / WEIGHTS, *(derived_files(folder) if is_whole else ())):
            if path.exists() or path.is_symlink():
                raise ExportError(
                    f"--output: {path} exists, and autoprune did not write it (no {RECIPE} next to it). Name "
                    "another folder, or remove the file."
                ) from None
        return
    if held.digest != read_recipe(source).digest:
        raise ExportError(
            f"--output: {folder} holds another model, and its {WEIGHTS} would be lost. Name another folder, "
            "or remove that one."
        )


def derived_files(folder: Path) -> list[Path]:
    """Return the files that may have been made from the model in a folder, without a user's README.md."""
    names = (*(exported_file(each) for each in EXPORTERS), INT8, PAGE)
    card = [folder / CARD] if is_own_card(folder / CARD) else []
    return [*card, *(folder / name for name in names)]


def exported_file(format_name: str) -> str:
    """Return the usual name of a file of a format next to the weights: "model.onnx"."""
    return f"model{find_exporter(format_name).suffix}"


def present_formats(folder: Path) -> tuple[str, ...]:
    """Return the default formats, and those whose files lie in the folder of a saved model."""
    present = [name for name in EXPORTERS if (folder / exported_file(name)).is_file()]
    return tuple(dict.fromkeys([*DEFAULT_FORMATS, *present]))


def export_formats(
    folder: Path,
    small: nn.Module,
    formats: Sequence[str] | None,
    example_inputs: object = None,
    *,
    watch: Watcher = silent,
) -> None:
    """Export a model to files next to its weights. The recipe keeps the reason if a format does not work.

    Args:
        folder: folder that `save_pruned` wrote.
        small: the model in it.
        formats: rows of EXPORTERS, or None for `DEFAULT_FORMATS`.
        example_inputs: of a model that does not know them.
        watch: called with the progress and with warnings.
    """
    failed = {}
    for name in DEFAULT_FORMATS if formats is None else formats:
        path = folder / exported_file(name)
        watch(Stage(f"export to {path.name}"))
        try:
            export(small, path, name, example_inputs if example_of(small) is None else None)
        except ExportError as error:
            failed[path.name] = str(error).removeprefix(f"{path}: ")
            watch(Stage(f"warning: no {path.name}: {failed[path.name]}"))
    facts = read_facts(read_recipe(folder), folder / RECIPE)
    if failed != facts.failed:
        update_extra(folder, {"card": facts.model_copy(update={"failed": failed}).model_dump(mode="json")})


def complete_artefact(folder: Path, page: Path | None = None, *, watch: Watcher = silent) -> None:
    """Write the card of a saved model, and a copy of the HTML report.

    Args:
        folder: folder that `save_pruned` wrote.
        page: the report, or None if there is none.
        watch: called with a warning if the folder holds a README.md of the user's own.
    """
    if page is not None and page.resolve() != (folder / PAGE).resolve():
        with saving(folder / PAGE, "report", ExportError) as partial:
            shutil.copyfile(page, partial)
    if write_card(folder) is None:
        watch(Stage(f"warning: {folder / CARD} is yours, so no model card is written"))
