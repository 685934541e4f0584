"""Decides which code and paths of a study or a saved model may be used. See `autoprune guide trust`.

The code that a user's own config names is trusted. A study or a saved model may come from somebody else. So
the code that it names is imported only if a config of this user named it, or if the command permits it.

Example:
    sign_names(study, spec)                   # in `search`, whose config is this user's own
    with trusted(study, spec, Consent()):     # in `resume`: StudyError if another user's study names code
        dense = load_dense(spec)
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from autoprune.config import parse_override
from autoprune.data import DATASETS
from autoprune.engines import ENGINES
from autoprune.errors import CheckpointError, ConfigError, StudyError
from autoprune.run._checks.choices import FLOW_TABLES, OPEN_TABLES
from autoprune.run._resolving.paths import settle
from autoprune.run._resolving.spec import ConfigSource, RunSpec
from autoprune.study import SearchStudy
from autoprune.support.signature import key_name, sign, verifies
from autoprune.support.userfunction import Imports, current_imports, importing

NO_IMPORT = ("latency.command", "search.ray.address")
"""Keys that run code without an import: a shell command, and a cluster whose answers are unpickled."""

_NOTE = "autoprune:own:"
_MOST_SHOWN = 100


@dataclass(frozen=True)
class Consent:
    """How far a command trusts the study or the saved model that it opens.

    Attributes:
        trust: whether code may run that no config of this user named.
        own: settings of a config of this user. The code that they name is trusted.
        given: keys that the command line sets, such as "output.folder".
    """

    trust: bool = False
    own: RunSpec | None = None
    given: tuple[str, ...] = ()


def consent_of(trust: bool, config: ConfigSource | None, overrides: Sequence[str] = ()) -> Consent:
    """Return the consent that the arguments of a command express."""
    own = None if config is None else settle(config, named=False)
    given = tuple(parse_override(override)[0] for override in overrides)
    return Consent(trust, own, given)


UNTRUSTED = Consent()
"""The consent of a command without such arguments: only names in this user's own configs are trusted."""


@dataclass(frozen=True)
class _SignedNames:
    """The code and paths that this user's own configs and command lines have named for one study.

    Attributes:
        code: {key of the config: the code that it names}.
        folder: the folder from which that code is imported, the current one when the config was read.
        places: folders and files that may be written.
    """

    code: Mapping[str, str] = dataclasses.field(default_factory=dict)
    folder: str = ""
    places: tuple[str, ...] = ()

    def for_purpose(self, purpose: str, name: str) -> dict[str, Any]:
        """Return the values to sign, for the study or the flow of this name."""
        return {
            "purpose": purpose,
            "study": name,
            "code": dict(self.code),
            "folder": self.folder,
            "places": list(self.places),
        }


def code_of(spec: RunSpec) -> dict[str, str]:
    """Return {key: text} of all settings that run code: functions, a command, and a cluster's address."""
    functions = {
        "model.name": spec.model.name,
        "model.factory": spec.model.factory,
        "data.name": spec.data.name,
        "data.loaders": spec.data.loaders,
        "data.validation": spec.data.validation,
        "task.loss": spec.task.loss,
        "task.metric": spec.task.metric,
        "task.train_step": spec.task.train_step,
        "task.evaluate": spec.task.evaluate,
        "task.prepare": spec.task.prepare,
        "latency.probe": spec.latency.probe,
        **{key: _own_names(attrgetter(key)(spec)) for key in (*OPEN_TABLES, *FLOW_TABLES)},
    }
    code = {key: name for key, name in functions.items() if name is not None and ":" in name}
    if spec.latency.command is not None:
        code["latency.command"] = spec.latency.command
    address = spec.search.ray.address
    engine = ENGINES.get(spec.search.engine)  # None for a user's own engine, which may join a cluster
    if (engine is None or engine.joins_cluster) and address not in (None, "auto", "local"):
        code["search.ray.address"] = str(address)  # the answers of a cluster are unpickled
    return code


def _own_names(named: str | Sequence[str] | None) -> str:
    """Return those names of a key that are functions rather than rows, separated by commas."""
    names = (named,) if isinstance(named, str) else named or ()
    return ", ".join(name for name in names if ":" in name)


def written_paths(spec: RunSpec) -> dict[str, str]:
    """Return {key: path} of all folders and files that a run with these settings may write."""
    named = DATASETS.get(spec.data.name or "")
    downloads = named is not None and named.downloads
    places = {
        "output.folder": spec.output.folder,
        "latency.table": spec.latency.table,
        "data.folder": spec.data.folder if downloads else None,
    }
    return {key: path for key, path in places.items() if path is not None}


def sign_names(
    study: SearchStudy, spec: RunSpec, keys: Sequence[str] | None = None, *, folder: str = ""
) -> None:
    """Add the code and paths that this user has named to a signed note in the study.

    Args:
        study: the study, which stores one note per user and machine.
        spec: the settings of a config of this user.
        keys: the keys that this user has set, or None for all.
        folder: the folder from which the code is imported, the current one by default.
    """
    name = key_name()
    if name is None:
        return  # without a signing key, every later command needs --trust
    before = _signed_names(study)
    code = {key: text for key, text in code_of(spec).items() if keys is None or key in keys}
    places = [path for key, path in written_paths(spec).items() if keys is None or key in keys]
    statement = _SignedNames(
        {**before.code, **code},
        # Only functions are imported from the folder.
        folder or os.getcwd() if set(code) - set(NO_IMPORT) else before.folder,
        tuple(dict.fromkeys([*before.places, *places])),
    )
    if statement != before:
        values = statement.for_purpose("study", study.name)
        study.store_note(f"{_NOTE}{name}", {"values": values, "signature": sign(values)})


def sign_derived(study: SearchStudy, spec: RunSpec, consent: Consent) -> None:
    """Sign the names of a study that was made from another one, inside the `trusted` block of that one.

    Code that only `consent.trust` permits stays unsigned, since no config of this user names it.
    """
    folder = current_imports().folder
    if folder is None:
        sign_names(study, spec, consent.given)
    else:
        sign_names(study, spec, folder=folder)


@contextlib.contextmanager
def trusted(study: SearchStudy, spec: RunSpec, consent: Consent) -> Iterator[None]:
    """Allow the import of the code that a study names, inside the `with` block.

    Code that a config of this user names is imported from the current folder, or from the folder in which the
    search began. Other trusted code is imported only from installed packages.

    Args:
        study: the opened study.
        spec: the settings that will be used.
        consent: the consent of the command.

    Raises:
        StudyError: the study names code that neither a config of this user nor the command trusts.
    """
    with importing(_imports(study, spec, consent)):
        yield


def signed_flow(spec: RunSpec) -> dict[str, Any]:
    """Return a signed note of the code and paths of a config of this user, for the record of a flow."""
    statement = _SignedNames(code_of(spec), os.getcwd(), tuple(written_paths(spec).values()))
    values = statement.for_purpose("flow", str(spec.search.study))
    return {"values": values, "signature": sign(values)}


@contextlib.contextmanager
def trusted_flow(folder: Path, spec: RunSpec, noted: object, consent: Consent) -> Iterator[None]:
    """Allow the import of the code that the record of a flow names, as `trusted` does for a study.

    Args:
        folder: the folder of the flow.
        spec: the recorded settings.
        noted: the note of `signed_flow` in the record.
        consent: the consent of the command.

    Raises:
        StudyError: the record names code that is not trusted, or data would be downloaded to another place
            than the current folder and those that this user has named.
    """
    statement = _read_statement(noted, "flow", str(spec.search.study))
    downloads = written_paths(spec).get("data.folder")
    if downloads is not None and not _is_own_place(downloads, statement, "data.folder", consent):
        raise StudyError(
            f"{folder}: the flow wants to write to {_quoted(downloads)}, outside the current folder. Give "
            "--config CONFIG.toml that names another data.folder."
        )
    with importing(_allowed(f"{folder}: the flow", statement, spec, consent)):
        yield


def _imports(study: SearchStudy, spec: RunSpec, consent: Consent) -> Imports:
    return _allowed(f"{study.name}: the study", _signed_names(study), spec, consent)


def _allowed(who: str, statement: _SignedNames, spec: RunSpec, consent: Consent) -> Imports:
    code = {key: text for key, text in code_of(spec).items() if key not in consent.given}
    own = {} if consent.own is None else code_of(consent.own)
    unknown = {k: text for k, text in code.items() if text not in (own.get(k), statement.code.get(k))}
    if not unknown:
        # A config of this command refers to the current folder, the study to the folder of its search.
        return Imports() if own else Imports(statement.folder)
    if consent.trust:
        return Imports(None, barred=os.getcwd())
    listed = ", ".join(f"{key} = {_quoted(text)}" for key, text in unknown.items())
    raise StudyError(
        f"{who} names code: {listed}. Give --trust to run it, or --config CONFIG.toml that names it."
    )


def require_own_path(
    study: SearchStudy,
    key: str,
    path: str | os.PathLike[str],
    consent: Consent,
    *,
    remedy: str | None = None,
) -> None:
    """Refuse to write to a path that a study names, unless it is in the current folder or this user's own.

    Args:
        study: the opened study.
        key: the key or option that names the path, for the message.
        path: the path that will be written.
        consent: the consent of the command.
        remedy: the last sentence of the message, for a command without `--set`.

    Raises:
        StudyError: the path lies elsewhere, and neither the command line nor a config of this user names it.
    """
    if not _is_own_place(path, _signed_names(study), key, consent):
        option = "-o PATH" if key == "--output" else f"--set {key}=PATH"
        raise StudyError(
            f"{study.name}: the study wants to write to {_quoted(str(path))}, outside the current folder. "
            f"{remedy or f'Choose a path with {option}.'}"
        )


def _is_own_place(path: str | os.PathLike[str], statement: _SignedNames, key: str, consent: Consent) -> bool:
    own = [] if consent.own is None else written_paths(consent.own).values()
    allowed = (os.getcwd(), *own, *statement.places)
    wanted = Path(path).resolve()
    return key in consent.given or any(wanted.is_relative_to(Path(place).resolve()) for place in allowed)


def require_own_paths(study: SearchStudy, spec: RunSpec, consent: Consent) -> None:
    """Check all paths that a run with these settings may write, as `require_own_path` does."""
    for key, path in written_paths(spec).items():
        require_own_path(study, key, path, consent)


def store_consent(study: SearchStudy, spec: RunSpec, consent: Consent) -> None:
    """Store in the study the code and paths that the command line or a config of this user has added."""
    if consent.own is not None:
        same = {**code_of(consent.own), **written_paths(consent.own)}
        names = {**code_of(spec), **written_paths(spec)}
        sign_names(study, spec, [*consent.given, *(key for key in names if names[key] == same.get(key))])
    elif consent.given:
        sign_names(study, spec, consent.given)


def signed_architecture(study: SearchStudy, spec: RunSpec, consent: Consent) -> dict[str, Any]:
    """Return a signed note for a recipe if a config of this user named its architecture, else {}."""
    if spec.model.factory is None:
        return {}
    imports = _imports(study, spec, consent)
    return {} if imports.folder is None else own_architecture(spec, imports.folder)


def own_architecture(spec: RunSpec, folder: str = "") -> dict[str, Any]:
    """Return a signed note for a recipe of an architecture that a config of this user names, or {}.

    Args:
        spec: the settings.
        folder: the folder from which the architecture is imported, the current one by default.
    """
    if spec.model.factory is None:
        return {}
    values = _architecture_values(spec.model.factory, os.path.abspath(folder))
    return {"own": {"values": values, "signature": sign(values)}}


@contextlib.contextmanager
def trusted_architecture(
    folder: str | os.PathLike[str], name: str, noted: object, *, trust: bool
) -> Iterator[None]:
    """Allow the import of the architecture that a recipe names, inside the `with` block.

    Args:
        folder: the folder of the saved model.
        name: a name in the zoo, or a function.
        noted: the note of `signed_architecture` in the recipe.
        trust: whether code may run that no config of this user named.

    Raises:
        CheckpointError: the architecture is code that neither a config of this user nor `trust` permits.
    """
    imports = Imports()
    if ":" in name:
        values = noted.get("values") if isinstance(noted, dict) else None
        home = values.get("folder") if isinstance(values, dict) else None
        if isinstance(home, str) and _is_signed(noted, _architecture_values(name, home)):
            imports = Imports(home)
        elif trust:
            imports = Imports(None, barred=os.getcwd())
        else:
            raise CheckpointError(
                f"{folder}: the recipe names code: architecture = {_quoted(name)}. Give --trust to run "
                "it, or load the model in Python with autoprune.load_pruned(folder, make_model)."
            )
    with importing(imports):
        yield


def require_trusted_file(path: Path, *, trust: bool) -> None:
    """Refuse a .pt2 file unless it is trusted, because it may hold pickled objects.

    Raises:
        ConfigError: the file is not trusted.
    """
    if path.suffix == ".pt2" and not trust:
        raise ConfigError(
            f"{path}: loading a .pt2 file runs any code that is pickled in it. Give --trust if you know who "
            "made it, or time the model as .onnx."
        )


def _quoted(text: str) -> str:
    """Quote a text from a received file, which may contain control characters and be of any length."""
    return json.dumps(text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}...")


def _architecture_values(name: str, folder: str) -> dict[str, Any]:
    return {"purpose": "recipe", "name": name, "folder": folder}


def _is_signed(noted: object, values: Mapping[str, Any]) -> bool:
    return (
        isinstance(noted, dict) and noted.get("values") == values and verifies(values, noted.get("signature"))
    )


def _signed_names(study: SearchStudy) -> _SignedNames:
    """Return the code and paths that this user has named for a study, or none without a valid note."""
    name = key_name()
    noted = None if name is None else study.note(f"{_NOTE}{name}")
    return _read_statement(noted, "study", study.name)


def _read_statement(noted: object, purpose: str, name: str) -> _SignedNames:
    values = noted.get("values") if isinstance(noted, dict) else None
    if not isinstance(noted, dict) or not isinstance(values, dict):
        return _SignedNames()
    if values.get("study") != name or values.get("purpose") != purpose:
        return _SignedNames()
    if not verifies(values, noted.get("signature")):
        return _SignedNames()
    # Their types need no check: this code signed them.
    return _SignedNames(values["code"], values["folder"], tuple(values["places"]))
