"""Files that trials are scored with: the first note counts, and the file is found by its hash."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from autoprune.config.settings import OutputSettings
from autoprune.errors import CheckpointError, StudyError
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._resolving.study_file import StudyFile
from tests.engines.toy import new_study

KIND = StudyFile("moments", "moments")


def config_in(folder: Path) -> RunSpec:
    return dataclasses.replace(RunSpec.of("digits"), output=OutputSettings(str(folder)))


@pytest.mark.parametrize("note", [[], "text", {}, {"path": "a"}, {"path": 1, "sha256": "b"}])
@pytest.mark.parametrize("name", ["supernet", "moments"])
def test_a_damaged_note_is_one_line(name: str, note: Any, tmp_path: Path) -> None:
    study = new_study(f"journal:///{tmp_path}/study.log")
    study.store_note(f"autoprune:{name}", note)
    with pytest.raises(StudyError, match=rf"^toy: its note on the {name} is damaged: .*\. Restore"):
        StudyFile(name, "weights").noted(study)


def test_the_name_holds_all_facts_in_any_order(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    path = KIND.path(config, {"a": 1, "b": [2]})
    assert path == KIND.path(config, {"b": [2], "a": 1}) != KIND.path(config, {"a": 1, "b": [3]})
    assert path.parent == tmp_path
    assert path.name.startswith("moments-")


def test_the_first_note_counts_and_its_file_is_found_by_its_hash(tmp_path: Path) -> None:
    study = new_study(f"journal:///{tmp_path}/study.log")
    here, elsewhere = config_in(tmp_path / "here"), config_in(tmp_path / "elsewhere")
    first, second = (KIND.path(each, {}) for each in (here, elsewhere))
    for path, content in ((first, "one"), (second, "two")):
        path.parent.mkdir()
        path.write_text(content)
    note = KIND.note_once(study, first)
    assert KIND.note_once(study, second) == note == KIND.noted(study)
    # In the output folder lies another file of this name, but the noted one is where it was written.
    assert KIND.find(note, elsewhere) == first
    second.write_text("one")
    assert KIND.find(note, elsewhere) == second
    for path in (first, second):
        path.write_text("three")
    with pytest.raises(CheckpointError, match=rf"^moments {second}: the file holds other moments .* of toy"):
        KIND.require(note, study, elsewhere)
    for path in (first, second):
        path.unlink()
    with pytest.raises(CheckpointError, match=rf"^moments {second}: no such file, .*Copy {first} from"):
        KIND.require(note, study, elsewhere)
