"""Exports a finetuned model to another format, or as a folder that `load_pruned` reads.

Example:
    export_saved("digits", "onnx")                  # the finetuned model of a study in runs/
    export_saved("digits", "onnx", dense=True)      # the dense model of the study, for a comparison
    export_saved("runs/digits/best", "pt2", output="small.pt2")
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from autoprune.config.rungs import scores_the_export
from autoprune.errors import ExportError, unknown
from autoprune.exporting import (
    CARD,
    EXPORTERS,
    FOLDER,
    INT8,
    ONNX,
    PAGE,
    RECIPE,
    WEIGHTS,
    ExportReport,
    find_exporter,
    read_recipe,
    save_pruned,
)
from autoprune.exporting import export as export_model
from autoprune.graph.attached import target_of
from autoprune.graph.capture import inputs_of_part
from autoprune.progress import Watch, watching
from autoprune.reporting import summarise
from autoprune.run._checks.trust import Consent, consent_of, require_own_path, trusted
from autoprune.run._finetune import finetune
from autoprune.run._resolving.dense import given_dense, load_dense
from autoprune.run._resolving.identity import require_weights
from autoprune.run._resolving.paths import find_storage, protected_files, require_unprotected
from autoprune.run._resolving.session import Session
from autoprune.run._resolving.spec import ConfigSource
from autoprune.run._resolving.stored_config import stored_spec, with_objects
from autoprune.run._results.artefact import (
    begin_artefact,
    complete_artefact,
    export_formats,
    exported_file,
    present_formats,
    require_free,
)
from autoprune.run._results.dashboard import keep_files
from autoprune.run._results.finetune_result import BEST, is_untrained, saved_folder, saved_trials
from autoprune.run._results.next_step import note_export
from autoprune.run._results.page import write_page
from autoprune.run._results.saved_model import load_saved, noted_architecture
from autoprune.run._trials.retraining import race_has_trained
from autoprune.study import SearchStudy, open_study, study_command
from autoprune.support.atomic import saving
from autoprune.support.events import Stage, Watcher, silent
from autoprune.support.usercode import entry

ARTEFACT = "folder"
"""Name of the format that is a folder with weights, recipe, ONNX file, report and model card."""


@dataclass(frozen=True)
class _Request:
    """The arguments of one export, checked.

    Attributes:
        target: the name of a study, or a folder that `save_pruned` wrote.
        format: name of the format.
        output: the file or folder to write, or None for the default.
        storage: URL of the study's storage, or None for the default.
        consent: whose code may run.
        session: the model and the data, if `search` received them.
        opset: version of ONNX's operators, or None for that of torch's exporter.
    """

    target: str
    format: str
    output: Path | None
    storage: str | None
    consent: Consent
    session: Session
    opset: int | None

    @property
    def is_folder(self) -> bool:
        """Return whether the format is a folder rather than a file."""
        return self.format in (FOLDER, ARTEFACT)

    def load(self, folder: Path) -> nn.Module:
        """Load a saved model as the consent allows."""
        return load_saved(folder, trust=self.consent.trust, model=self.session.model)


@entry()
def export_saved(
    target: str | os.PathLike[str],
    format_name: str = "onnx",
    *,
    output: str | os.PathLike[str] | None = None,
    storage: str | None = None,
    dense: bool = False,
    trust: bool = False,
    config: ConfigSource | None = None,
    session: Session | None = None,
    opset: int | None = None,
    watch: Watch = True,
) -> ExportReport:
    """Export the finetuned model of a study or a saved model, and check that the file computes the same.

    If the rungs of a study are "supernet" or "repair" and none of them trains, no finetune is needed. The
    best candidate so far is then saved first, as `finetune` does with finetune.epochs = 0. The winner of a
    race is trained already, so it is tested and saved first, as `finetune` does.

    Args:
        target: the name of a study, or a folder that `save_pruned` wrote.
        format_name: "onnx", "pt2", "safetensors" (a folder with weights and recipe), "folder" (the same with
            an ONNX file, the report and a model card), or an exporter of your own as
            "package.module:function".
        output: the file or the folder. By default it lies next to the saved model.
        storage: URL of the study's storage, if it is not in runs/.
        dense: export the dense model of the study instead of the finetuned one, as "onnx" or "pt2". By
            default it is written into the study's output folder.
        trust: whether code that the study or the saved model names may run although no config of yours
            named it here.
        config: a config of your own, as `search` accepts it. The code that it names is trusted.
        session: the model and the data, if `search` received them.
        opset: version of ONNX's operators for "onnx", by default that of torch's exporter.
        watch: called with events that report the progress. True shows them if there is a terminal or a
            notebook, and None or False shows nothing.

    Returns:
        The path, the format, and the largest difference to the outputs of the saved model.

    Raises:
        ExportError: the format is unknown, there is nothing to export yet, or the outputs differ.
        CheckpointError: the saved model cannot be loaded, or names code that is not trusted.
        StudyError: the study names code or paths that are not trusted.
        ConfigError: the model or the data that the study's config names cannot be loaded.
    """
    _check_format(format_name, opset)
    session = session or Session()
    consent = consent_of(trust, session.config if config is None else config)
    path = None if output is None else Path(output)
    request = _Request(str(target), format_name, path, storage, consent, session, opset)
    with watching(watch) as show:
        return (_export_dense if dense else _export_small)(request, show)


def _check_format(format_name: str, opset: int | None) -> None:
    """Refuse a format that does not exist, and an opset for one that is a folder."""
    formats = (*EXPORTERS, FOLDER, ARTEFACT)
    if format_name not in formats and ":" not in format_name:
        raise ExportError(unknown("--format", format_name, formats))
    is_folder = format_name in (FOLDER, ARTEFACT)
    if not is_folder:
        find_exporter(format_name, "--format")
    if opset is not None and is_folder:
        raise ExportError(f'opset: got {opset}, but a "{format_name}" has none. Use the format "onnx".')


def _export_small(request: _Request, watch: Watcher) -> ExportReport:
    """Export the model of a folder, or that of a study, which notes the file then."""
    folder, study = Path(request.target), None
    if not folder.is_dir():
        url = find_storage(request.target, request.storage, or_folder_of="a saved model")
        study = open_study(url, request.target)
        folder = saved_model_folder(
            study, request.consent, request.session, is_written=request.output is None, watch=watch
        )
    watch(Stage(f"exporting to {request.format}, and comparing the outputs"))
    kept = {} if study is None else protected_files(study.url, stored_spec(study))
    report = _export_folder_of(request, folder, kept)
    if request.format == ARTEFACT:
        _complete(request, report.path, folder, study, watch)
    elif request.output is None and (folder / CARD).exists():  # it lists the files
        complete_artefact(folder, watch=watch)
    if study is not None:
        note_export(study, folder, report.path)
        keep_files(study, silent)
    return report


def _export_folder_of(request: _Request, folder: Path, kept: Mapping[Path, str]) -> ExportReport:
    """Export the model of a folder, but never over a protected file or over the weights that are read."""
    own = (WEIGHTS, RECIPE)
    if request.is_folder:
        where = request.output or folder
        for name in own if request.format == FOLDER else (*own, ONNX, CARD, PAGE, INT8):
            require_unprotected(where / name, "--output", kept)
        return _export_folder(request, folder, where)
    path = request.output or folder / exported_file(request.format)
    require_unprotected(path, "--output", {**kept, **{folder / name: "the model to export" for name in own}})
    small = request.load(folder)
    example = _example(small, folder, request.session.model)
    return export_model(small, path, format=request.format, example_inputs=example, opset=request.opset)


def _example(small: nn.Module, folder: Path, model: nn.Module | None) -> Tensor | None:
    """Return example inputs, or None if the model knows the inputs of its trace.

    A model of a caller's own knows them, and so does one that was traced in a part.
    """
    knows = model is not None or target_of(small) or not noted_architecture(folder).input_shape
    return None if knows else torch.zeros(1, *noted_architecture(folder).input_shape)


def _complete(
    request: _Request, where: Path, folder: Path, study: SearchStudy | None, watch: Watcher
) -> None:
    """Add the exported files, the report and the card to the weights that were copied from another folder."""
    small = request.load(where)
    formats = present_formats(folder) if study is None else stored_spec(study).output.formats
    export_formats(where, small, formats, _example(small, where, request.session.model), watch=watch)
    if study is not None:
        write_page(study, summarise(study, with_importances=True), where / PAGE)
    for name in (PAGE, INT8):
        if (folder / name).is_file() and not (where / name).exists():
            with saving(where / name, "copy of the file", ExportError) as partial:
                shutil.copyfile(folder / name, partial)
    complete_artefact(where, watch=watch)


def _export_dense(request: _Request, watch: Watcher) -> ExportReport:
    """Export the dense model of a study."""
    watch(Stage(f"exporting the dense model to {request.format}, and comparing the outputs"))
    if request.is_folder or Path(request.target).is_dir():
        got = f"--format {request.format}" if request.is_folder else f"{request.target} is a folder"
        raise ExportError(f"--dense: {got}. Name a study, and one of {', '.join(EXPORTERS)}.")
    study = open_study(find_storage(request.target, request.storage), request.target)
    spec = with_objects(stored_spec(study), request.consent.own)
    path = request.output or spec.folder / f"dense{find_exporter(request.format).suffix}"
    if request.output is None:
        require_own_path(study, "--output", path, request.consent)
    require_unprotected(path, "--output", protected_files(study.url, spec))
    with trusted(study, spec, request.consent):
        dense = given_dense(request.session.model, request.session.data, spec) or load_dense(spec)
    require_weights(dense, study, spec)
    part, example = dense.model, dense.example_inputs
    if spec.model.target is not None:
        part = dense.model.get_submodule(spec.model.target)
        example = inputs_of_part(dense.model, example, spec.model.target)
    return export_model(part, path, format=request.format, example_inputs=example, opset=request.opset)


def saved_model_folder(
    study: SearchStudy,
    consent: Consent,
    session: Session,
    *,
    is_written: bool = False,
    watch: Watch = True,
) -> Path:
    """Return the folder of a study's trained model, which is saved first if the search has trained it.

    Args:
        study: the opened study.
        consent: the consent of the command.
        session: the model and the data, if `search` received them.
        is_written: whether a file will be written into the folder, which this user must have named then.
        watch: called with events that report the progress.

    Raises:
        ExportError: no model is trained yet.
    """
    spec = stored_spec(study)
    folder = saved_folder(study, spec)
    if scores_the_export(spec.score.rungs) and (not folder.is_dir() or is_untrained(study, folder)):
        untrained = ["finetune.epochs=0"]
        return _tuned_folder(study, consent, session, watch, untrained)
    is_known = session.model is not None or spec.model.name is not None or spec.model.factory is not None
    if not folder.is_dir() and is_known and race_has_trained(study, study.best(), spec):
        return _tuned_folder(study, consent, session, watch)
    if not folder.is_dir():
        raise ExportError(f"{study.name}: {_export_advice(study, folder.parent)}")
    if is_written:
        require_own_path(study, "--output", folder, consent)
    return folder


def _tuned_folder(
    study: SearchStudy, consent: Consent, session: Session, watch: Watch, overrides: Sequence[str] = ()
) -> Path:
    """Finetune the best trial, which trains nothing that the search has trained, and return its folder."""
    return finetune(
        study.name,
        study.url,
        model=session.model,
        data=session.data,
        overrides=overrides,
        trust=consent.trust,
        config=consent.own,
        watch=watch,
    ).folder


def _export_advice(study: SearchStudy, folder: Path) -> str:
    """Return the end of a message that names a command: the export of a finetuned trial, or the finetune."""
    saved = saved_trials(study)
    if not saved:
        return f"nothing to export yet. Run `{study_command('finetune', study.name, study.url)}` first."
    names = ", ".join(each.name for each in saved)
    command = shlex.join(["autoprune", "export", str(saved[-1])])
    return f"nothing in {folder / BEST} yet. Finetuned so far: {names}. Export one with `{command}`."


def _export_folder(request: _Request, folder: Path, output: Path) -> ExportReport:
    """Write weights and recipe to a folder, load them from it, and compare every tensor with the original."""
    recipe, small = read_recipe(folder), request.load(folder)
    if output.resolve() != folder.resolve():
        require_free(output, folder, is_whole=request.format == ARTEFACT)
        if request.format == ARTEFACT:
            begin_artefact(output)
        save_pruned(small, recipe.plan, output, extra=recipe.extra)
    loaded, saved = request.load(output).state_dict(), small.state_dict()
    differences = [
        float((loaded[name].double() - leaf.double()).abs().max())
        for name, leaf in saved.items()
        if leaf.numel()
    ]
    return ExportReport(output, request.format, max(differences, default=0.0))
