"""Suggests the next command for a study, such as a finetune or an export that has not been done yet.

Example:
    note_export(study, folder, path)      # `export` wrote the model of that folder
    next_step(study, summary)             # "Next: autoprune finetune digits"
"""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

from autoprune.errors import StudyError
from autoprune.exporting import CARD, EXPORTERS
from autoprune.reporting import StudySummary, next_command
from autoprune.run._results.artefact import exported_file
from autoprune.run._results.finetune_result import BEST, FinetuneResult, is_current, known_results
from autoprune.study import SearchStudy, study_command

_EXPORTED = "autoprune:exported"


def note_export(study: SearchStudy, folder: Path, path: Path) -> None:
    """Store in a study that the model in `folder` was exported to the file `path`."""
    folders = [str(each) for each in exported_folders(study)]
    if path.is_dir():
        folders.append(str(path.absolute()))
    note = {
        "folder": str(folder.absolute()),
        "path": str(path.absolute()),
        "folders": list(dict.fromkeys(folders)),
    }
    with contextlib.suppress(StudyError):  # a read-only storage must not stop the export
        study.store_note(_EXPORTED, note)


def exported_folders(study: SearchStudy) -> list[Path]:
    """Return the folders to which models of a study were exported, whether they exist or not."""
    noted = study.note(_EXPORTED)
    folders = noted.get("folders") if isinstance(noted, dict) else None
    return [Path(str(each)) for each in folders] if isinstance(folders, list) else []


def next_step(study: SearchStudy, summary: StudySummary, *, anywhere: bool = False) -> str:
    """Return a line with the next command for a study, or one that nothing is left to do.

    Args:
        study: the stored study.
        summary: its summary.
        anywhere: whether the line is read later, perhaps in another folder. See `study_command`.

    Returns:
        The line, or "" if the study has no complete trial.
    """
    if summary.best is None:
        return ""
    best = [each for each in known_results(study) if each.trial == summary.best.number]
    tuned = [each for each in best if is_current(study, each)]
    if summary.front or not tuned:
        return f"Next: {next_command(summary, study.url, anywhere=anywhere)}"
    exported = _exported(study, tuned)
    if exported is None:
        command = export_command(study.name, study.url, tuned[0].folder, anywhere=anywhere)
        return f"Next: {command}"
    return f"Nothing is left to do: trial {tuned[0].trial} is finetuned and exported to {exported}."


def export_command(study: str, url: str, folder: Path, *, anywhere: bool = False) -> str:
    """Return the command that exports the finetuned model in a study's folder."""
    as_onnx = ("--format", "onnx")
    if folder.name == BEST:
        return study_command("export", study, url, *as_onnx, anywhere=anywhere)
    return shlex.join(["autoprune", "export", str(folder), *as_onnx])


def after_saving(folder: Path, command: str) -> str:
    """Return a line on the folder of a model: its README if it has an exported file, else the command."""
    if any((folder / exported_file(name)).exists() for name in EXPORTERS):
        return f"Saved in {folder}. {CARD} there shows how to load the model."
    return f"Saved in {folder}. Next: {command}"


def _exported(study: SearchStudy, results: list[FinetuneResult]) -> Path | None:
    """Return an existing file to which one of these models was exported, or None."""
    return next((path for result in results for path in exported_files(study, result)), None)


def exported_files(study: SearchStudy, result: FinetuneResult) -> list[Path]:
    """Return the existing files to which a finetuned model was exported."""
    usual = [result.folder / exported_file(name) for name in EXPORTERS]
    noted = study.note(_EXPORTED)
    if isinstance(noted, dict) and noted.get("folder") == str(result.folder.absolute()):
        usual.append(Path(str(noted.get("path"))))
    return [path for path in dict.fromkeys(usual) if path.exists()]
