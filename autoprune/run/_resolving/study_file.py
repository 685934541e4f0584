"""Files that all trials of a study are scored with, such as its supernet.

The file lies in the output folder, and the study stores its hash, so that every process uses the same bytes.

Example:
    SUPERNET = StudyFile("supernet", "weights")
    path = SUPERNET.path(spec, facts)                # runs/digits/supernet-3fa1c0d2b4e59687.safetensors
    note = SUPERNET.note_once(study, path)           # of several processes, the first note is valid for all
    SUPERNET.find(note, spec)                        # a file on this machine with this hash, or None
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoprune.errors import CheckpointError, StudyError
from autoprune.run._resolving.spec import RunSpec
from autoprune.study import SearchStudy
from autoprune.support.schema import Strict, read_as
from autoprune.zoo import checkpoint_hash


class FileNote(Strict):
    """The note of a study on one file.

    Attributes:
        path: the path of the file on the machine that wrote it.
        sha256: the hash of its bytes.
        host: the name of that machine.
    """

    path: str
    sha256: str
    host: str = "another machine"


@dataclass(frozen=True)
class StudyFile:
    """One kind of file that trials are scored with.

    Attributes:
        name: the first word of the file's name, of messages, and of the note in the study.
        content: the content of the file in one word, for messages.
    """

    name: str
    content: str

    def path(self, spec: RunSpec, facts: Mapping[str, Any]) -> Path:
        """Return the path of the file. Its name includes a hash of the facts that determine its content."""
        fingerprint = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return spec.folder / f"{self.name}-{fingerprint[:16]}.safetensors"

    def noted(self, study: SearchStudy) -> FileNote | None:
        """Return the note of a study on its file, or None if there is none yet.

        Raises:
            StudyError: the note is damaged.
        """
        note = study.note(self._key)
        return None if note is None else self._read(note, study)

    def note_once(self, study: SearchStudy, path: Path) -> FileNote:
        """Store the note on a file unless another process was faster, and return the stored note.

        Raises:
            CheckpointError: the file cannot be read.
            StudyError: the note is damaged.
        """
        own = FileNote(path=str(path), sha256=checkpoint_hash(path), host=socket.gethostname())
        return self._read(study.store_note_once(self._key, own.model_dump()), study)

    def find(self, note: FileNote, spec: RunSpec) -> Path | None:
        """Return the file with the noted hash, from the output folder or the noted path, or None.

        Raises:
            CheckpointError: a file there cannot be read.
        """
        there = (path for path in self._places(note, spec) if path.is_file())
        return next((path for path in there if checkpoint_hash(path) == note.sha256), None)

    def require(self, note: FileNote, study: SearchStudy, spec: RunSpec) -> Path:
        """Return the file with the noted hash, as `find` does.

        Raises:
            CheckpointError: the file is missing, or has other content.
        """
        found = self.find(note, spec)
        if found is not None:
            return found
        moved, _ = places = self._places(note, spec)
        other = next((path for path in places if path.is_file()), None)
        if other is None:
            raise CheckpointError(
                f"{self.name} {moved}: no such file, but the trials of {study.name} were scored "
                f"with its {self.content}. {self.recovery_advice(note)}"
            )
        raise CheckpointError(
            f"{self.name} {other}: the file holds other {self.content} than those that the trials of "
            f"{study.name} were scored with. {self.recovery_advice(note)}"
        )

    def recovery_advice(self, note: FileNote) -> str:
        """Return the end of a message, which explains how to restore the noted file."""
        return (
            f"Copy {note.path} from {note.host}, share its folder with this machine, or begin another search."
        )

    @property
    def _key(self) -> str:
        return f"autoprune:{self.name}"

    def _read(self, note: Any, study: SearchStudy) -> FileNote:
        where = f"{study.name}: its note on the {self.name} is damaged"
        advice = "Restore the storage from a copy."
        return read_as(FileNote, note, where=where, error=StudyError, advice=advice)

    def _places(self, note: FileNote, spec: RunSpec) -> tuple[Path, Path]:
        written = Path(note.path)
        return spec.folder / written.name, written
