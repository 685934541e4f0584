"""Opens an existing study for a command, after a check that the code and paths it names are trusted.

Example:
    with open_run("digits", None, overrides=["search.trials=100"]) as stored:
        run = resolve_stored(stored.study, stored.running, None, watch)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from autoprune.run._checks.trust import Consent, consent_of, require_own_paths, trusted
from autoprune.run._resolving.paths import find_storage, settle
from autoprune.run._resolving.spec import ConfigSource, RunSpec
from autoprune.run._resolving.stored_config import (
    change_spec,
    derived_spec,
    stored_setting,
    stored_spec,
    with_objects,
)
from autoprune.study import SearchStudy, open_study


@dataclass(frozen=True)
class StoredRun:
    """An opened study with the settings under which a command continues it.

    Attributes:
        study: the stored study.
        spec: its settings, with the changes that the command makes.
        consent: how far the command trusts the study.
    """

    study: SearchStudy
    spec: RunSpec
    consent: Consent

    @cached_property
    def running(self) -> RunSpec:
        """The settings with the device of the study's trials, even if "auto" means another device here."""
        return self.spec.with_search(device=stored_setting(self.study).device)


def earlier_settings(study: str, storage: str | None, overrides: Sequence[str] = ()) -> RunSpec:
    """Return the settled settings of a new search that takes them from a study. No code is imported."""
    return settle(derived_spec(open_study(find_storage(study, storage), study), overrides), named=False)


@contextlib.contextmanager
def open_earlier(
    study: str,
    storage: str | None,
    overrides: Sequence[str] = (),
    *,
    trust: bool = False,
    config: ConfigSource | None = None,
) -> Iterator[StoredRun]:
    """Open a study for a new one with its settings. Inside the block the code that it names can be imported.

    Args:
        study: name of the study.
        storage: URL of its storage, runs/STUDY.db by default.
        overrides: changes of any settings as "section.key=value".
        trust: whether code that the study names may run although no config of this user named it here.
        config: a config of the user's own. The code that it names is trusted, and its objects are used.

    Raises:
        StudyError: the study does not exist, or it names code or paths that are not trusted.
        ConfigError: an override has a wrong value.
    """
    found = open_study(find_storage(study, storage), study)
    consent = consent_of(trust, config, overrides)
    with _trusted_run(found, derived_spec(found, overrides), consent) as stored:
        yield stored


@contextlib.contextmanager
def open_run(
    study: str,
    storage: str | None,
    overrides: Sequence[str] = (),
    *,
    trust: bool = False,
    config: ConfigSource | None = None,
) -> Iterator[StoredRun]:
    """Open a study. Inside the `with` block the code that it names can be imported.

    Args:
        study: name of the study.
        storage: URL of its storage, runs/STUDY.db by default.
        overrides: changes of settings as "section.key=value".
        trust: whether code that the study names may run although no config of this user named it here.
        config: a config of the user's own. The code that it names is trusted, and its objects are used.

    Raises:
        StudyError: the study does not exist, or it names code or paths that are not trusted.
        ConfigError: an override has a wrong value, or its key may not change.
    """
    url = find_storage(study, storage)
    consent = consent_of(trust, config, overrides)
    found = open_study(url, study)
    with _trusted_run(found, change_spec(stored_spec(found), overrides), consent) as stored:
        yield stored


@contextlib.contextmanager
def _trusted_run(study: SearchStudy, spec: RunSpec, consent: Consent) -> Iterator[StoredRun]:
    """Put the user's own objects into the settings, and open the study if its code and paths are trusted."""
    spec = with_objects(spec, consent.own)
    with trusted(study, spec, consent):
        require_own_paths(study, spec, consent)
        yield StoredRun(study, spec, consent)
