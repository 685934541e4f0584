"""The next step that the command line prints for each kind of study."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path

import pytest

from autoprune.cli import main
from autoprune.cli._results import show_search
from autoprune.cli._resumable import same_command
from autoprune.reporting import StudySummary, next_command
from autoprune.run import SearchResult
from tests.reporting.test_tables import RECORD, SUMMARY


def last_line(summary: StudySummary, capsys: pytest.CaptureFixture[str], storage: str) -> str:
    step = f"Next: {next_command(summary, storage)}"
    show_search(SearchResult("s", storage, Path("runs"), summary, step))
    return capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("rungs", "command"),
    [
        (("calibrate", "50 steps"), "Next: autoprune finetune s --storage sqlite:///s.db"),
        (
            ("supernet",),
            "Next: autoprune export s --storage sqlite:///s.db --format onnx (or finetune it before)",
        ),
    ],
)
def test_a_search_ends_with_the_next_step(
    rungs: tuple[str, ...], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = dataclasses.replace(SUMMARY, rungs=rungs)
    assert last_line(summary, capsys, "sqlite:///s.db") == command


@pytest.mark.parametrize(
    ("objectives", "rungs", "option"),
    [
        (("score", "macs"), ("calibrate",), "--flops"),
        (("score", "latency_ms", "macs"), ("calibrate",), "--latency"),
        (("score", "peak_memory_bytes"), ("supernet",), "--peak-memory"),
    ],
)
def test_a_front_is_picked_from_by_a_limit_that_half_of_it_keeps(
    objectives: tuple[str, ...],
    rungs: tuple[str, ...],
    option: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    costs = dict.fromkeys(objectives[1:], 0.0)
    front = tuple(
        dataclasses.replace(RECORD, number=number, costs={cost: 100 * share for cost in costs})
        for number, share in enumerate((0.2, 0.414, 0.8))
    )
    summary = dataclasses.replace(
        SUMMARY, objectives=objectives, rungs=rungs, front=front, dense_costs=dict.fromkeys(costs, 100.0)
    )
    line = last_line(summary, capsys, "sqlite:////my runs/s [1].db")
    words = shlex.split(line.removeprefix("Next: "))
    assert words == ["autoprune", "best", "s", "--storage", "sqlite:////my runs/s [1].db", option, "42%"]


def test_the_next_step_and_the_same_command_hide_the_password(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "postgresql://user:secret@host/db"
    shown = "'postgresql://user:***@host/db'"
    assert last_line(SUMMARY, capsys, url) == f"Next: autoprune finetune s --storage {shown}"
    assert "secret" not in repr(SearchResult("s", url, Path("runs"), SUMMARY))
    for words, hidden in (
        (["resume", "s", "--storage", url], f"resume s --storage {shown}"),
        (
            ["search", "digits", "--set", f"search.storage={url}"],
            "--set 'search.storage=postgresql://user:***@",
        ),
    ):
        monkeypatch.setattr(sys, "argv", ["autoprune", *words])
        assert hidden in same_command()
        assert "secret" not in same_command()


def typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str]:
    """Run a command line in this process; return its exit code and standard error."""
    monkeypatch.setattr(sys, "argv", ["autoprune", *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert isinstance(left.value.code, int)
    return left.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["serch", "digits"],
            "No such command 'serch'. Did you mean 'search', 'bench'? See `autoprune",
        ),
        (
            ["search", "digits", "more"],
            "(more). See `autoprune search --help`.",
        ),
        (["search", "digits", "--sett", "a.b=1"], "No such option: --sett"),
        (["search", "digits", "--set"], "Option '--set' requires an argument."),
        (["finetune", "s", "--trial", "9" * 5000], "Invalid value for '--trial': "),
        (["search", "digits\0"], r"'digits\x00': this argument holds a NUL character"),
        (["report", "a\udcff"], r"'a\udcff': this argument is not UTF-8."),
        (["search", "x\x1b[31m.toml"], r"x\x1b[31m.toml: no such config file."),
        (["search", "x" * 10_000], "xxx"),
        (
            ["report", "s", "--storage", "://a:" * 20_000],
            "...: got a storage of 100,000 characters",
        ),
        (["report", "s", "--storage", "x" * 4000], "xxx: File name too long."),
        (["report", "y" * 10_000], 'study "yyy'),
        (["inspect", "digits", "--errors", "--sensitivity"], "--sensitivity: got both, expected at most one"),
        (
            ["best", "s", "-o", "a.png"],
            "--output: best reads it with --budget alone. Add that, or leave it out",
        ),
        (["best", "s", "--trust"], "--trust: best reads it with --budget alone"),
        (["best", "s", "--config", "digits"], "--config: best reads it with --budget alone"),
        (["search", "digits", "--trust"], "--trust: the code that your own CONFIG names is trusted"),
        (["search", "digits", "--if-exists", "resum"], 'unknown action "resum". Did you mean "resume"?'),
        (["train", "digits", "--if-exists", "x"], 'unknown action "x". Known: error, resume, overwrite.'),
        (["inspect", "digits", "-o", "a.png"], "--output: inspect writes files of --errors or"),
        (["inspect", "digits", "--errors", "-o", "a.txt"], "a name that ends in .png, .svg, .pdf, .csv."),
        (["inspect", "digits", "--sensitivity", "--limit", "0"], "--limit: got 0, expected more than 0"),
        (["inspect", "digits", "--errors"], "runs/digits/dense.safetensors"),
        (["search", "digits", "--set", "search.trails=4"], 'Did you mean "trials"?'),
        (
            ["search", "digits", "--set", "search.trials=4", "--set", "search.trials=5"],
            "the key is set twice",
        ),
        (
            ["bench", "a.onnx", "--limit", "inf"],
            "--limit: got inf, expected more than 0 seconds and at",
        ),
        (["export", "s", "--images", "8"], "--images: export reads it with --int8 alone. Add that, or leave"),
        (["export", "s", "--full-range"], "--reduce-range: export reads it with --int8 alone"),
        (["bench", "a.onnx", "--batch", str(2**70)], "--batch: got 1180591620717411303424, expected"),
        (["bench", "a.onnx", "--shape", f"1x{'9' * 5000}"], '--shape: got "1x999'),
        (["bench", "a.onnx", "--shape", "x".join(["1000000"] * 4)], "values are more than memory holds"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_bad_command_line_is_one_line_and_exit_code_2(
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, err = typed(monkeypatch, capsys, *words)
    assert code == 2
    assert err.startswith("autoprune: ")
    assert message in err
    assert err.count("\n") == 1
    assert len(err) < 2000
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("latency", ["0 ms", "0%", "101%"])
@pytest.mark.parametrize("verb", ["search", "inspect", "train"])
def test_a_latency_that_cannot_be_is_refused_before_anything_is_loaded(
    verb: str,
    latency: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "autoprune.run._resolving.dense.load", lambda *arguments, **options: pytest.fail("data were loaded")
    )
    code, err = typed(monkeypatch, capsys, verb, "digits", "--set", f"budget.latency={latency}")
    assert code == 2
    assert f"budget.latency: got '{latency}', expected more than 0 and less than the dense model's own" in err


def test_no_command_shows_the_help_and_is_a_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["autoprune"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "resume" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "search: expected CONFIG or --from STUDY, got neither"),
        (["digits", "--from", "half"], "search: expected CONFIG or --from STUDY, got both"),
        (
            ["digits", "--storage", "x.db"],
            "--storage: got it without --from, whose study it holds. Set search.storage",
        ),
        (["--from", "half"], 'study "half": no storage in runs/'),
    ],
)
def test_a_search_takes_a_config_or_a_study(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["autoprune", "search", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "message"),
    [
        ("search", "search: torchrun started 2 processes. Run it without torchrun: for 2 trials at once set"),
        ("resume", "search.workers = 2 and search.engine ="),
        (
            "report",
            "report: torchrun started 2 processes. Run it without torchrun: torchrun serves",
        ),
        ("-q report", "report: torchrun started 2 processes"),
        ("--json -q train", "no such config"),
    ],
)
def test_torchrun_serves_trainings_only_and_its_first_process_prints(
    verb: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(sys, "argv", ["autoprune", *verb.split(), "unknown"])
    monkeypatch.chdir(tmp_path)
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert (message in captured.err) if rank == "0" else (captured.err == "")


def test_help_is_printed_under_torchrun_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    variables = {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "WORLD_SIZE": "2"}
    for name, value in {**variables, "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert typed(monkeypatch, capsys, "search", "--help") == (0, "")


def test_help_fits_80_columns_and_names_each_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    def shown(*words: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["autoprune", *words, "--help"])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 0
        return capsys.readouterr().out.splitlines()

    of_all = shown()
    assert [line for line in of_all[1:] if line.endswith("...")] == []
    for verb in (line.split()[0] for line in of_all[of_all.index("Commands:") + 1 :] if line):
        options = [line for line in shown(verb) if line.lstrip().startswith("-")]
        assert [line for line in options if " <" in line] == []
        assert not any("default: 0]" in line for line in options)
