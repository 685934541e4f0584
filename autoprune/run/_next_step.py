"""Names the step that comes after a study as it is: a finetune or an export that was done is not named again.

The command line prints it below a search and a report:

    note_export(study, folder, path)      # `export` wrote the model in that folder
    next_step(study, summary)             # "Next: autoprune finetune digits --storage sqlite:///runs/digits.db"
"""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

from autoprune.errors import StudyError
from autoprune.exporting import EXPORTERS, find_exporter
from autoprune.report import StudySummary, next_command
from autoprune.run._finetune_result import BEST, FinetuneResult, known_results
from autoprune.study import SearchStudy, study_command

_EXPORTED = "autoprune:exported"


def note_export(study: SearchStudy, folder: Path, path: Path) -> None:
    """Note in a study that the model in `folder` was exported to a file."""
    with contextlib.suppress(StudyError):  # a study that can only be read is exported all the same
        study.store_note(_EXPORTED, {"folder": str(folder.absolute()), "path": str(path.absolute())})


def next_step(study: SearchStudy, summary: StudySummary) -> str:
    """Return a line that names the next step with a study, or that none is left. "" without a best trial.

    Args:
        study: as it is stored.
        summary: of it.
    """
    if summary.best is None:
        return ""
    tuned = [each for each in known_results(study) if each.trial == summary.best.number]
    if summary.front or not tuned:
        return f"Next: {next_command(summary, study.url)}"
    exported = _exported(study, tuned)
    if exported is None:
        return f"Next: {export_command(study.name, study.url, tuned[0].folder)}"
    return f"Nothing is left to do: trial {tuned[0].trial} is finetuned and exported to {exported}."


def export_command(study: str, url: str, folder: Path) -> str:
    """Return the command that exports the finetuned model in a folder of a study."""
    as_onnx = ("--format", "onnx")
    if folder.name == BEST:
        return study_command("export", study, url, *as_onnx)
    return shlex.join(["autoprune", "export", str(folder), *as_onnx])


def _exported(study: SearchStudy, results: list[FinetuneResult]) -> Path | None:
    """Return a file that one of these models was exported to, if it is still there."""
    for result in results:
        for name in EXPORTERS:
            usual = result.folder / f"model{find_exporter(name).suffix}"
            if usual.is_file():
                return usual
    noted = study.note(_EXPORTED)
    folders = [str(each.folder.absolute()) for each in results]
    if not isinstance(noted, dict) or noted.get("folder") not in folders:
        return None
    path = Path(str(noted.get("path")))
    return path if path.exists() else None
