"""Output that reaches the terminal: no control characters, and nothing at all if nobody reads."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from autoprune.cli._console import end_with
from autoprune.support.printing import PrintableConsole

ROOT = Path(__file__).parents[2]
HOSTILE = "net\x1b[31m\x00\x07\u202e.db"
SHOWN = r"net\x1b[31m\x00\x07\u202e.db"


def test_names_from_files_cannot_steer_the_terminal() -> None:
    console = PrintableConsole(file=io.StringIO(), width=100)
    table = Table(title=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    console.print(table)
    console.print(HOSTILE, highlight=False)
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    assert printed.count(SHOWN) == 4
    assert all(each.isprintable() or each == "\n" for each in printed)


@pytest.mark.parametrize("text", ["[/red]", "[bold]x[/bold]", "a :smile: b", "[link=file:///x]y", "\\[x]"])
def test_texts_from_files_are_no_markup(text: str) -> None:
    console = PrintableConsole(file=io.StringIO(), width=100)
    table = Table(text, title=text)
    table.add_row(text)
    console.print(table)
    console.print(text)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().count(text) == 4


def test_a_mistake_is_one_line_whatever_it_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        end_with(f"{HOSTILE}\nsecond line {'x' * 3_000_000}: rename it.")
    assert left.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith(f"autoprune: {SHOWN} second line xxx")
    assert err.endswith("x: rename it.\n")
    assert err.count("\n") == 1
    assert len(err) < 2000


def run(code: str, stdout: int, encoding: str = "") -> subprocess.CompletedProcess[bytes]:
    """Run what `main` would with another function in the place of its command."""
    whole = (
        "from autoprune import cli\nfrom autoprune.cli import commands\n"
        f"def run_command():\n    {code}\n    return 0\n"
        "commands.run_command = run_command\ncli.main()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding}
    return subprocess.run(
        [sys.executable, "-c", whole],
        env=environment,
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
    )


PRINT = "[commands.console.print('line', n) for n in range(100_000)]"


def test_a_reader_that_leaves_ends_the_command_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = run(PRINT, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs the device")
def test_an_output_that_is_full_is_one_line() -> None:
    with open("/dev/full", "wb") as full:
        done = run(PRINT, stdout=full.fileno())
    assert done.returncode == 2
    assert done.stderr == b"autoprune: standard output: No space left on device.\n"


def test_a_terminal_without_the_characters_gets_them_escaped() -> None:
    done = run("commands.console.print('10 µs \\udcff')", subprocess.PIPE, "ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == rb"10 \xb5s \udcff" + b"\n"
