"""Finds the folder of a saved model, and the data of the search or the flow that made it.

Example:
    found = find_data("digits", None, UNTRUSTED, silent, is_written=True)
    found.folder, found.dense.data
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autoprune.config import parse_settings
from autoprune.errors import ConfigError, StudyError
from autoprune.exporting import RECIPE, read_recipe
from autoprune.flow import FlowRecord
from autoprune.run._checks.trust import Consent, require_own_path, trusted, trusted_flow, written_paths
from autoprune.run._export import saved_model_folder
from autoprune.run._resolving.dense import Dense, given_dense, load_dense
from autoprune.run._resolving.paths import find_storage, protected_files
from autoprune.run._resolving.session import Session, StudyResult, of_study
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._resolving.stored_config import stored_spec, with_objects
from autoprune.run._results.finetune_result import FinetuneResult, noted_folders
from autoprune.run._results.flow_result import FlowResult
from autoprune.run._results.next_step import exported_folders
from autoprune.study import SearchStudy, open_study
from autoprune.support.events import Watcher


@dataclass(frozen=True)
class ModelData:
    """A saved model and its data.

    Attributes:
        folder: the folder of the model.
        dense: the data and the task. The dense weights are loaded only if the task compares with them.
        spec: the settings of the run.
        session: the objects that a caller has passed.
        kept: {file: description} of files that no output may replace.
    """

    folder: Path
    dense: Dense
    spec: RunSpec
    session: Session
    kept: Mapping[Path, str]


def find_data(
    target: str | os.PathLike[str] | StudyResult | FlowResult,
    storage: str | None,
    consent: Consent,
    watch: Watcher,
    *,
    is_written: bool,
) -> ModelData:
    """Find the model and the data of a target. Only a task that compares reads the dense weights.

    Args:
        target: as `export_int8` accepts it.
        storage: URL of the study's storage, if it is not in runs/.
        consent: the consent of the command.
        watch: called with events if a model is trained or saved first.
        is_written: whether a file will be written into the folder.

    Raises:
        ConfigError: nothing names the data, or they cannot be loaded.
        StudyError: the study or the flow names code that is not trusted.
    """
    if isinstance(target, FlowResult):
        record = FlowRecord.open(target.folder)
        if record is None:
            raise ConfigError(
                f"--int8: {target.folder} holds no record of the flow. Restore it, or run the flow again."
            )
        spec = with_objects(_recorded_spec(record), consent.own)
        return _of_folder(target.folder, target.session, spec)
    if not isinstance(target, StudyResult) and Path(target).is_dir():
        return _of_place(Path(target), storage, consent)
    name, url, session = of_study(target if isinstance(target, StudyResult) else str(target), storage)
    study = open_study(find_storage(name, url), name)
    if isinstance(target, FinetuneResult):
        folder = target.folder
    else:
        folder = saved_model_folder(study, consent, session, is_written=is_written, watch=watch)
    return _of_study(study, folder, session, consent)


def _of_study(study: SearchStudy, folder: Path, session: Session, consent: Consent) -> ModelData:
    spec = with_objects(stored_spec(study), consent.own)
    downloads = written_paths(spec).get("data.folder")
    if downloads is not None:
        remedy = "Name it in data.folder of a config of yours, and add --config CONFIG.toml."
        require_own_path(study, "data.folder", downloads, consent, remedy=remedy)
    with trusted(study, spec, consent):
        dense = _dense(spec, session)
    return ModelData(folder, dense, spec, session, protected_files(study.url, spec))


def _of_folder(folder: Path, session: Session, spec: RunSpec) -> ModelData:
    kept = {folder / RECIPE: "the recipe of the model"}
    return ModelData(folder, _dense(spec, session), spec, session, kept)


def _of_place(folder: Path, storage: str | None, consent: Consent) -> ModelData:
    """Find the data of a folder: in the config of the command, the record of its flow, or its study."""
    if consent.own is not None:
        return _of_folder(folder, Session(), consent.own)
    record = FlowRecord.open(folder)
    if record is not None:
        spec = _recorded_spec(record)
        if spec.data.name or spec.data.loaders:
            with trusted_flow(folder, spec, record.own, consent):
                return _of_folder(folder, Session(), spec)
    study = _study_of(folder, storage)
    if study is not None:
        return _of_study(study, folder, Session(), consent)
    raise ConfigError(
        f"--int8: {folder} names no data to calibrate with. Add --config CONFIG.toml, which names them "
        "in [data], or name the study."
    )


def _recorded_spec(record: FlowRecord) -> RunSpec:
    """Return the settings of a flow."""
    return RunSpec.of(parse_settings(record.config, where=str(record.folder)))


def _study_of(folder: Path, storage: str | None) -> SearchStudy | None:
    """Return the study that has made the model in a folder, or None if no storage holds it.

    Raises:
        StudyError: the study is damaged, or its storage cannot be read.
    """
    name = read_recipe(folder).extra.get("study")
    if name is None:
        return None
    try:
        url = find_storage(str(name), storage)
    except StudyError:
        return None
    study = open_study(url, str(name))
    own = [*noted_folders(study), *exported_folders(study)]
    return study if folder.resolve() in [each.resolve() for each in own] else None


def _dense(spec: RunSpec, session: Session) -> Dense:
    given = given_dense(session.model, session.data, spec)
    return given or load_dense(spec, trained=spec.loss_and_metric.compares)
