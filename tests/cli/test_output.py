"""The options -q, -v, --no-color and --json, before and after the verb."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest

from autoprune.cli import main
from autoprune.cli._documents import schema
from autoprune.cli._output import output, progress_console, show
from autoprune.cli.commands import app
from autoprune.run import TrainResult

NET = """\
import torch
from torch import nn


def make(classes):
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(),
                         nn.Linear(8 * 16, classes))
"""
WORDS = ["inspect", "net.toml"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_net.py").write_text(NET)
    (tmp_path / "net.toml").write_text(
        '[model]\nfactory = "own_net:make"\n[data]\nname = "digits"\n[budget]\nflops = "50%"\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    return tmp_path


def typed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run a command line in this process. Return exit code, standard output and standard error."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["autoprune", *words])
        with pytest.raises(SystemExit) as left:
            main()
    out, err = capsys.readouterr()
    assert isinstance(left.value.code, int)
    return left.value.code, out, err


@pytest.mark.parametrize("words", [["--json", *WORDS], [*WORDS, "--json"]])
def test_json_is_all_of_standard_output(
    words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = typed(capsys, *words)
    assert code == 0, err
    found = json.loads(out)
    assert found.keys() == json.loads(schema())["$defs"]["InspectDocument"]["properties"].keys()
    assert found["document"] == "inspect"
    assert [group["width"] for group in found["groups"]][:2] == [8, 8]
    assert any("distinct plans" in note for note in found["sentences"])


def test_progress_of_a_verb_with_json_is_on_standard_error(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("train", "net.toml", "--set", "train.epochs=1", "--set", "model.checkpoint=d.safetensors")
    code, out, err = typed(capsys, *words, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["checkpoint"].endswith("d.safetensors")
    assert "epoch   1/1" in err
    assert f"score {found['val_score']:.4f}" in err


def test_mistakes_with_json_are_one_line_and_no_document(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = typed(capsys, "--json", "inspect", "none.toml")
    assert (code, out) == (2, "")
    assert err == "autoprune: none.toml: no such config file. Embedded configs: digits.\n"


def test_quiet_prints_results_alone_and_twice_quiet_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("train", "net.toml", "--set", "train.epochs=1", "--set")
    code, out, err = typed(capsys, *words, "model.checkpoint=a.safetensors", "-q")
    assert (code, err) == (0, "")
    (line,) = out.splitlines()
    assert line.startswith("Validation score ")
    assert typed(capsys, "-q", *words, "model.checkpoint=b.safetensors", "--quiet") == (0, "", "")
    code, out, err = typed(capsys, "-qq", "inspect", "none.toml")
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_verbose_prints_messages_that_are_silent_otherwise_and_only_then(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from autoprune import run

    logger = logging.getLogger("autoprune.engines")

    def inspect(*given: object, **named: object) -> None:
        logger.info("worker %d is ready", 1)
        raise SystemExit(0)

    monkeypatch.setattr(run, "inspect", inspect)
    assert typed(capsys, "-v", *WORDS)[1] == "autoprune.engines: worker 1 is ready\n"
    assert typed(capsys, *WORDS, "--verbose", "--json")[2] == "autoprune.engines: worker 1 is ready\n"
    assert typed(capsys, *WORDS) == (0, "", "")


@pytest.mark.parametrize(
    ("words", "variables", "colours"),
    [
        ([], {"FORCE_COLOR": "1"}, True),
        (["--no-color"], {"FORCE_COLOR": "1"}, False),
        ([], {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ([], {}, False),
    ],
)
def test_colours_are_forced_and_forbidden(
    words: list[str],
    variables: dict[str, str],
    colours: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code, _, err = typed(capsys, *words, "inspect", "none.toml")
    assert code == 2
    assert ("\x1b[31m" in err) is colours


def test_every_verb_takes_the_options() -> None:
    from typer.main import get_command

    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"-q", "--quiet", "-v", "--verbose", "--no-color", "--json"} <= options, name


def test_the_schema_is_printed_and_other_pages_have_none(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = typed(capsys, "guide", "json", "--json")
    assert (code, json.loads(out)) == (0, json.loads(schema()))
    code, out, err = typed(capsys, "guide", "start", "--json")
    assert (code, out) == (2, "")
    assert err.startswith("autoprune: --json: got another page than json, the only one")


def test_a_second_command_in_one_process_has_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert typed(capsys, "methods", "--json")[1].startswith("{")
    assert not typed(capsys, "methods")[1].startswith("{")
    assert typed(capsys, "methods", "-qq")[1] == ""
    assert typed(capsys, "methods")[1] != ""


def test_of_several_processes_the_first_alone_prints_a_document_and_progress(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(output, "json", True)
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        show(TrainResult(Path("dense.safetensors"), 0.9))
        progress_console().print("epoch 1")
        printed = capsys.readouterr()
        assert (printed.out.count('"train"'), printed.err.count("epoch")) == (
            (1, 1) if rank == "0" else (0, 0)
        )
