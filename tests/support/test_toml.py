"""Reading TOML: whatever a file holds is its content or one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autoprune.errors import ConfigError
from autoprune.support.toml import parse_toml, read_toml, write_toml


@pytest.mark.parametrize("content", [b"a = 1\n", b"\xef\xbb\xbfa = 1\n", b"a = 1\r\n"])
def test_a_file_is_read_with_or_without_a_byte_order_mark(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.toml").write_bytes(content)
    assert read_toml(tmp_path / "run.toml", "a config file") == {"a": 1}


def test_an_empty_file_has_no_keys(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_bytes(b"")
    assert read_toml(tmp_path / "run.toml", "a config file") == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name = '\xff\xfe'", r"cannot be read as a config file \('utf-8' codec can't decode byte 0xff"),
        ("name = 1".encode("utf-16"), r"cannot be read as a config file \('utf-8' codec"),
        (b"\x00" * 100, r"not valid TOML: "),
        (b"a = " + b"[" * 100_000, r"not valid TOML: its lists or tables are nested too deeply"),
        (b"a = " + b"{b=" * 5000, r"not valid TOML: its lists or tables are nested too deeply"),
        (b"a." * 20_000 + b"b = 1", r"not valid TOML: a key has more than 100 parts"),
        (b'x = 1\n["a" . ' + b"'b'." * 200 + b"c]", r"not valid TOML: a key has more than 100 parts"),
        (b"a = " + b"9" * 5000, r"not valid TOML: Exceeds the limit"),
        (b"a = 2020-13-45", r"not valid TOML: "),
        (b"x" * 1_000_000, r"not valid TOML: "),
        (b"# " + b"x" * 2**20, r"cannot be read as a config file \(.*more than 1 MB\)"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "run.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_toml(tmp_path / "run.toml", "a config file")
    assert "\n" not in str(caught.value)


def test_texts_with_dots_are_no_keys_with_parts() -> None:
    dotted = "m." * 200
    text = f'# {dotted}x\na = \'{"../" * 100}\'\nb = 1.5\nc = """\n{dotted}"""\nd = "\\"{dotted}" # \'x'
    assert parse_toml(text) == {"a": "../" * 100, "b": 1.5, "c": dotted, "d": f'"{dotted}'}


@pytest.mark.parametrize("path", ["nowhere.toml", "a\0b", "x" * 5000, "/dev/zero", "."])
def test_what_is_no_file_is_refused_at_once(path: str) -> None:
    with pytest.raises((ConfigError, FileNotFoundError)):
        read_toml(path, "a config file")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_that_nobody_writes_to_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="it is a named pipe, expected a regular file"):
        read_toml(tmp_path / "pipe", "a config file")


def test_values_are_written_as_toml_that_gives_them_back() -> None:
    values = {
        "plain": True,
        "a": {
            "n": 3,
            "x": 1e-05,
            "text": 'quote " back \\ line\n \x7f \x01 \U0001f600 é',
            "list": [1, [2.5, "b"], []],
            "tables": [{"a key": 1}, {"b.c": [False]}],
            "none": None,
            "inner table": {"k": "v", "deep": {"z": 0}},
        },
    }
    read = parse_toml(write_toml(values))
    expected = {**values, "a": {key: value for key, value in values["a"].items() if value is not None}}  # type: ignore[attr-defined]
    assert read == expected
