"""Opens the study that a command goes on with, once it is trusted, and the settings that it goes on under.

with open_run("digits", overrides=["search.trials=100"]) as stored:
    run = resolve_stored(stored.study, stored.running, None, watch)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from autoprune.run._paths import find_storage
from autoprune.run._spec import ConfigSource, RunSpec
from autoprune.run._stored_config import change_spec, stored_setting, stored_spec
from autoprune.run._trust import Consent, consent_of, require_own_paths, trusted
from autoprune.study import SearchStudy, open_study


@dataclass(frozen=True)
class StoredRun:
    """A study that a command goes on with.

    Attributes:
        study: as it is stored.
        spec: its settings, with those that the command changes.
        consent: how far the command trusts the study.
    """

    study: SearchStudy
    spec: RunSpec
    consent: Consent

    @cached_property
    def running(self) -> RunSpec:
        """The settings with the device of the study's trials, whatever "auto" would be here."""
        return self.spec.with_search(device=stored_setting(self.study).device)


@contextlib.contextmanager
def open_run(
    study: str,
    storage: str | None,
    overrides: Sequence[str] = (),
    *,
    trust: bool = False,
    config: ConfigSource | None = None,
) -> Iterator[StoredRun]:
    """Give a block in which a study can go on: code that it names may be imported there.

    Args:
        study: its name.
        storage: its URL; default runs/STUDY.db.
        overrides: "section.key=value" of what may change.
        trust: whether code that the study names may run although no config of this user's own named it here.
        config: a config of the user's own, whose names are trusted.

    Raises:
        StudyError: there is no such study, or it names code or places that are not trusted.
        ConfigError: a key that may not change, or a wrong value.
    """
    url = find_storage(study, storage)
    consent = consent_of(trust, config, overrides)
    found = open_study(url, study)
    spec = change_spec(stored_spec(found), overrides)
    with trusted(found, spec, consent):
        require_own_paths(found, spec, consent)
        yield StoredRun(found, spec, consent)
