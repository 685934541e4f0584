"""The objects of a Python session that a study cannot store: the caller's model, data and functions.

A result carries them, so that its methods and later verbs need not receive them again.

Example:
    found = of_study(result)
    found.name, found.storage, found.session.model
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

from torch import nn

from autoprune.data import UserLoaders, VisionData
from autoprune.run._resolving.spec import ConfigSource


@dataclass(frozen=True)
class Session:
    """The objects that a caller has passed to a verb.

    Attributes:
        model: the dense model, or None if the config names it.
        data: the data, or None if the config names them.
        config: a config of the caller, or the sections of one that hold functions and objects.
    """

    model: nn.Module | None = None
    data: VisionData | UserLoaders | None = None
    config: ConfigSource | None = None

    def completed(self, other: Session) -> Session:
        """Return this session, with the objects of another one in place of missing ones."""
        return Session(
            other.model if self.model is None else self.model,
            other.data if self.data is None else self.data,
            other.config if self.config is None else self.config,
        )


@runtime_checkable
class StudyResult(Protocol):
    """A result that belongs to a study, such as that of a search or a finetune."""

    @property
    def place(self) -> tuple[str, str]:
        """The name of the study and the URL of its storage."""

    @property
    def session(self) -> Session:
        """The objects that the caller has passed."""


StudyRef: TypeAlias = str | StudyResult
"""The name of a study, or a result that belongs to it."""

STUDY = (str, StudyResult)
"""The classes of an argument `study`."""


class FoundStudy(NamedTuple):
    """The name of a study, the URL of its storage if it is known, and the objects of the caller."""

    name: str
    storage: str | None
    session: Session


def of_study(study: StudyRef, storage: str | None = None, session: Session | None = None) -> FoundStudy:
    """Find the study that a caller's reference stands for.

    Args:
        study: the name of the study, or a result.
        storage: URL of the storage, which a result knows itself.
        session: the objects of this call, which go before those of the result.
    """
    session = session or Session()
    if isinstance(study, str):
        return FoundStudy(study, storage, session)
    name, known = study.place
    return FoundStudy(name, storage or known, session.completed(study.session))
