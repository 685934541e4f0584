"""A file that the trials of a study are scored with: kept beside the study's output, its hash in the study.

SUPERNET = StudyFile("supernet", "weights")
path = SUPERNET.path(spec, facts)                # runs/digits/supernet-3fa1c0d2b4e59687.safetensors
counts = SUPERNET.note_once(study, path)         # the first note counts, for all processes
SUPERNET.find(counts, spec)                      # the file here that has this hash, or None
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
from autoprune.run._spec import RunSpec
from autoprune.study import SearchStudy
from autoprune.support.schema import Strict, read_as
from autoprune.zoo import checkpoint_hash


class FileNote(Strict):
    """What a study notes of a file.

    Attributes:
        path: where it was written.
        sha256: of its bytes.
        host: name of the machine that wrote it.
    """

    path: str
    sha256: str
    host: str = "another machine"


@dataclass(frozen=True)
class StudyFile:
    """One kind of file that trials are scored with.

    Attributes:
        name: begins the file's name and messages, and names the note in the study.
        content: the word for what the file holds.
    """

    name: str
    content: str

    def path(self, spec: RunSpec, facts: Mapping[str, Any]) -> Path:
        """Return where the file belongs, under a name that holds the fingerprint of all that it rests on."""
        fingerprint = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return spec.folder / f"{self.name}-{fingerprint[:16]}.safetensors"

    def noted(self, study: SearchStudy) -> FileNote | None:
        """Return the note of a study on its file; None if there is none yet.

        Raises:
            StudyError: the note is damaged.
        """
        note = study.note(self._key)
        return None if note is None else self._read(note, study)

    def note_once(self, study: SearchStudy, path: Path) -> FileNote:
        """Note a file in a study unless another process was faster; return the note that counts.

        Raises:
            CheckpointError: the file cannot be read.
            StudyError: the note is damaged.
        """
        own = FileNote(path=str(path), sha256=checkpoint_hash(path), host=socket.gethostname())
        return self._read(study.store_note_once(self._key, own.model_dump()), study)

    def find(self, note: FileNote, spec: RunSpec) -> Path | None:
        """Return the file that a note is about: in the output folder, or else where it was written.

        Raises:
            CheckpointError: a file there cannot be read.
        """
        there = (path for path in self._places(note, spec) if path.is_file())
        return next((path for path in there if checkpoint_hash(path) == note.sha256), None)

    def require(self, note: FileNote, study: SearchStudy, spec: RunSpec) -> Path:
        """Return the file that a note is about, as `find` does.

        Raises:
            CheckpointError: it is gone, or holds something else.
        """
        found = self.find(note, spec)
        if found is not None:
            return found
        moved, _ = places = self._places(note, spec)
        other = next((path for path in places if path.is_file()), None)
        if other is None:
            raise CheckpointError(
                f"{self.name} {moved}: there is no such file, and the trials of {study.name} were scored "
                f"with its {self.content}; {self.recovery_advice(note)}"
            )
        raise CheckpointError(
            f"{self.name} {other}: it does not hold the {self.content} that the trials of {study.name} were "
            f"scored with; {self.recovery_advice(note)}"
        )

    def recovery_advice(self, note: FileNote) -> str:
        """Say how the file that a note is about can be had again."""
        return (
            f"put them back: {note.host} wrote them as {note.path}. Copy them from there, share that folder, "
            "or begin another search."
        )

    @property
    def _key(self) -> str:
        return f"autoprune:{self.name}"

    def _read(self, note: Any, study: SearchStudy) -> FileNote:
        where = f"{study.name}: its note on the {self.name} is damaged"
        advice = "restore the storage from a copy."
        return read_as(FileNote, note, where=where, error=StudyError, advice=advice)

    def _places(self, note: FileNote, spec: RunSpec) -> tuple[Path, Path]:
        written = Path(note.path)
        return spec.folder / written.name, written
