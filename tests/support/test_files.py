"""Paths that are no regular file: every reader refuses them at once, because opening one may never end."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from autoprune.support import files
from autoprune.support.files import open_regular, read_json, read_text, require_regular


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


SPECIAL: dict[str, tuple[Callable[[Path], None], str]] = {
    "fifo": (a_fifo, "it is a named pipe, expected a regular file"),
    "socket": (a_socket, "it is a socket, expected a regular file"),
    "device": (a_device, "it is a device, expected a regular file"),
    "folder": (Path.mkdir, "it is a folder, expected a regular file"),
}


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("read", [require_regular, open_regular, read_text, read_json])
def test_what_is_no_regular_file_is_refused_at_once(
    kind: str, read: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket has to be short
    make, message = SPECIAL[kind]
    path = Path("special")
    make(path)
    with pytest.raises(OSError, match=message):
        read(path)


def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "require_regular", lambda path: None)
    a_fifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="it is a named pipe"):
        open_regular(tmp_path / "pipe")


def test_regular_files_and_links_to_them_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"é": 1}', "utf-8")
    (tmp_path / "link").symlink_to("a.json")
    assert read_json(tmp_path / "link") == {"é": 1}
    with open_regular(tmp_path / "link") as file:
        assert json.loads(file.read()) == {"é": 1}


def test_too_large_and_too_deep_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep.json").write_text("[" * 200_000, "utf-8")
    with pytest.raises(ValueError, match="nested too deep"):
        read_json(tmp_path / "deep.json")
    monkeypatch.setattr(files, "MOST_BYTES", 2**20)
    (tmp_path / "large.json").write_text(" " * (2**20 + 1), "utf-8")
    with pytest.raises(OSError, match="more than 1 MB"):
        read_json(tmp_path / "large.json")
