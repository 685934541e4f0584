"""Decides which code and which folders of a study or a saved model may be used: see `autoprune guide trust`.

A config and what it names is its author's code. A study and a recipe may have been received, and are data:
the code that they name is imported only if this user's own config named it, or the command says so.

    sign_names(study, spec)                        # by `search`, whose config is this user's own
    with trusted(study, spec, Consent()):     # by `resume`: StudyError if somebody else's study names code
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
from autoprune.run._choices import OPEN_TABLES
from autoprune.run._paths import settle
from autoprune.run._spec import ConfigSource, RunSpec
from autoprune.study import SearchStudy
from autoprune.support.signature import key_name, sign, verifies
from autoprune.support.userfunction import Imports, importing

NO_IMPORT = ("latency.command", "search.ray.address")
"""Keys of code that is no function to import."""

_NOTE = "autoprune:own:"
_MOST_SHOWN = 100


@dataclass(frozen=True)
class Consent:
    """How far a command trusts the study or the saved model that it is given.

    Attributes:
        trust: whether code may run that it names and that this user's own config did not name.
        own: settings of this user's own config, whose names are trusted.
        given: keys that the command line sets, such as "output.folder".
    """

    trust: bool = False
    own: RunSpec | None = None
    given: tuple[str, ...] = ()


def consent_of(trust: bool, config: ConfigSource | None, overrides: Sequence[str] = ()) -> Consent:
    """Return how far a command trusts a study, by its arguments of these names."""
    own = None if config is None else settle(config, named=False)
    given = tuple(parse_override(override)[0] for override in overrides)
    return Consent(trust, own, given)


UNTRUSTED = Consent()
"""The consent of a command that gives none: it uses only names of this user's own configs."""


@dataclass(frozen=True)
class _SignedNames:
    """What this user's own configs and command lines have named for one study.

    Attributes:
        code: {key of the config: the code that it names}.
        folder: the current folder as the config was read, from which that code is imported.
        places: folders and files that may be written.
    """

    code: Mapping[str, str] = dataclasses.field(default_factory=dict)
    folder: str = ""
    places: tuple[str, ...] = ()

    def of_study(self, name: str) -> dict[str, Any]:
        """Return the values that are signed."""
        return {
            "purpose": "study",
            "study": name,
            "code": dict(self.code),
            "folder": self.folder,
            "places": list(self.places),
        }


def code_of(spec: RunSpec) -> dict[str, str]:
    """Return {key: text} of all that runs as code if the config is used: functions, a command, a cluster."""
    functions = {
        "model.name": spec.model.name,
        "model.factory": spec.model.factory,
        "data.name": spec.data.name,
        "data.loaders": spec.data.loaders,
        "data.validation": spec.data.validation,
        "task.loss": spec.task.loss,
        "task.metric": spec.task.metric,
        "latency.probe": spec.latency.probe,
        **{key: _own_names(attrgetter(key)(spec)) for key in OPEN_TABLES},
    }
    code = {key: name for key, name in functions.items() if name is not None and ":" in name}
    if spec.latency.command is not None:
        code["latency.command"] = spec.latency.command
    address = spec.search.ray.address
    engine = ENGINES.get(spec.search.engine)  # a user's own, not imported here, may join a cluster too
    if (engine is None or engine.joins_cluster) and address not in (None, "auto", "local"):
        code["search.ray.address"] = str(address)  # the answers of a cluster are unpickled
    return code


def _own_names(named: str | Sequence[str]) -> str:
    """Return the names among those of a key that are functions of the user's own."""
    names = (named,) if isinstance(named, str) else named
    return ", ".join(name for name in names if ":" in name)


def written_paths(spec: RunSpec) -> dict[str, str]:
    """Return {key: path} of all that may be written if a study with this config goes on."""
    named = DATASETS.get(spec.data.name or "")
    downloads = named is not None and named.downloads
    places = {
        "output.folder": spec.output.folder,
        "latency.table": spec.latency.table,
        "data.folder": spec.data.folder if downloads else None,
    }
    return {key: path for key, path in places.items() if path is not None}


def sign_names(study: SearchStudy, spec: RunSpec, keys: Sequence[str] | None = None) -> None:
    """Note in a study, signed, the code and places that this user has named, with those named before.

    Args:
        study: it keeps one such note for each user and machine.
        spec: the settings of this user's own config.
        keys: those that are the user's own; None for all.
    """
    name = key_name()
    if name is None:
        return  # no key can be kept here: the study needs --trust, as one that was received does
    before = _signed_names(study)
    code = {key: text for key, text in code_of(spec).items() if keys is None or key in keys}
    places = [path for key, path in written_paths(spec).items() if keys is None or key in keys]
    statement = _SignedNames(
        {**before.code, **code},
        os.getcwd() if set(code) - set(NO_IMPORT) else before.folder,  # only functions are imported from it
        tuple(dict.fromkeys([*before.places, *places])),
    )
    if statement != before:
        values = statement.of_study(study.name)
        study.store_note(f"{_NOTE}{name}", {"values": values, "signature": sign(values)})


@contextlib.contextmanager
def trusted(study: SearchStudy, spec: RunSpec, consent: Consent) -> Iterator[None]:
    """Give a block in which the code that a study names may be imported.

    Code of this user's own config is imported from the current folder, or from the folder in which the search
    began. Code that is merely trusted is imported from installed packages alone.

    Args:
        study: as it was opened.
        spec: the study's settings, as they are about to be used.
        consent: of the command.

    Raises:
        StudyError: the study names code that neither this user's own config nor the command covers.
    """
    with importing(_imports(study, spec, consent)):
        yield


def _imports(study: SearchStudy, spec: RunSpec, consent: Consent) -> Imports:
    code = {key: text for key, text in code_of(spec).items() if key not in consent.given}
    own = {} if consent.own is None else code_of(consent.own)
    statement = _signed_names(study)
    unknown = {k: text for k, text in code.items() if text not in (own.get(k), statement.code.get(k))}
    if not unknown:
        # A config that is given now is at home in the current folder, the study where its search began.
        return Imports() if own else Imports(statement.folder)
    if consent.trust:
        return Imports(None, barred=os.getcwd())
    listed = ", ".join(f"{key} = {_quoted(text)}" for key, text in unknown.items())
    raise StudyError(
        f"{study.name}: the study names code: {listed}; give --trust to run it, or --config CONFIG.toml that "
        "names it."
    )


def require_own_path(study: SearchStudy, key: str, path: str | os.PathLike[str], consent: Consent) -> None:
    """Refuse a place that a study names outside the current folder, unless this user named it.

    Raises:
        StudyError: neither the command line nor this user's config names the place.
    """
    if key in consent.given:
        return
    wanted = Path(path).resolve()
    own = [] if consent.own is None else written_paths(consent.own).values()
    allowed = (os.getcwd(), *own, *_signed_names(study).places)
    if not any(wanted.is_relative_to(Path(place).resolve()) for place in allowed):
        option = "-o PATH" if key == "--output" else f"--set {key}=PATH"
        raise StudyError(
            f"{study.name}: the study wants to write to {_quoted(str(path))}, outside the current folder; "
            f"say where with {option}."
        )


def require_own_paths(study: SearchStudy, spec: RunSpec, consent: Consent) -> None:
    """Refuse places of a study's config that this user has not named: see `require_own_path`."""
    for key, path in written_paths(spec).items():
        require_own_path(study, key, path, consent)


def store_consent(study: SearchStudy, spec: RunSpec, consent: Consent) -> None:
    """Note in the study the names that a command line or a config of this user's own has added."""
    if consent.own is not None:
        same = {**code_of(consent.own), **written_paths(consent.own)}
        names = {**code_of(spec), **written_paths(spec)}
        sign_names(study, spec, [*consent.given, *(key for key in names if names[key] == same.get(key))])
    elif consent.given:
        sign_names(study, spec, consent.given)


def signed_architecture(study: SearchStudy, spec: RunSpec, consent: Consent) -> dict[str, Any]:
    """Return a signed note for a recipe, if its architecture is code that this user's own config named."""
    name = spec.model.factory
    if name is None:
        return {}
    imports = _imports(study, spec, consent)
    if imports.folder is None:
        return {}
    values = _architecture_values(name, os.path.abspath(imports.folder))
    return {"own": {"values": values, "signature": sign(values)}}


@contextlib.contextmanager
def trusted_architecture(
    folder: str | os.PathLike[str], name: str, noted: object, *, trust: bool
) -> Iterator[None]:
    """Give a block in which the architecture that a recipe names may be made.

    Args:
        folder: of the saved model.
        name: of the zoo or of a function.
        noted: the note of `signed_architecture` in the recipe.
        trust: whether code may run that this user's own config did not name.

    Raises:
        CheckpointError: it names code that neither this user's own config nor `trust` covers.
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
                f"{folder}: the recipe names code: architecture = {_quoted(name)}; give --trust to run "
                "it, or load the model in Python with autoprune.load_pruned(folder, make_model)."
            )
    with importing(imports):
        yield


def require_trusted_file(path: Path, *, trust: bool) -> None:
    """Refuse a .pt2 file, which may hold pickled objects, unless it is trusted.

    Raises:
        ConfigError: it is not.
    """
    if path.suffix == ".pt2" and not trust:
        raise ConfigError(
            f"{path}: to load a .pt2 file runs any code that is pickled in it; give --trust if you know who "
            "made it, or time the model as .onnx."
        )


def _quoted(text: str) -> str:
    """Quote a text of a received file: it may have control characters and any length."""
    return json.dumps(text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}...")


def _architecture_values(name: str, folder: str) -> dict[str, Any]:
    return {"purpose": "recipe", "name": name, "folder": folder}


def _is_signed(noted: object, values: Mapping[str, Any]) -> bool:
    return (
        isinstance(noted, dict) and noted.get("values") == values and verifies(values, noted.get("signature"))
    )


def _signed_names(study: SearchStudy) -> _SignedNames:
    """Return the code and places that this user has named for a study, none if no note verifies."""
    name = key_name()
    noted = None if name is None else study.note(f"{_NOTE}{name}")
    values = noted.get("values") if isinstance(noted, dict) else None
    if not isinstance(noted, dict) or not isinstance(values, dict):
        return _SignedNames()
    if values.get("study") != study.name or values.get("purpose") != "study":
        return _SignedNames()
    if not verifies(values, noted.get("signature")):
        return _SignedNames()
    return _SignedNames(values["code"], values["folder"], tuple(values["places"]))  # as it was signed here
