"""The verb prune: the stages and the result as tables, mistakes in one line, and the saved folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from autoprune import run
from autoprune.cli import main
from autoprune.zoo import make_model

OVERRIDES = (
    "budget.flops=none",
    "train.epochs=1",
    "train.when_missing=true",
    "search.setting=float32 contiguous",
    "finetune.epochs=1",
    "select.share=0.3",
)


def typed(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Type `autoprune prune` with a config of a model of one's own, and return the exit code."""
    (folder / "flow.toml").write_text(
        '[model]\nfactory = "tests.flow.nets:residual"\ncheckpoint = "dense.safetensors"\n'
        '[data]\nname = "digits"\n[budget]\nflops = "50%"\n'
    )
    sets = [word for override in OVERRIDES for word in ("--set", override)]
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "argv", ["autoprune", "prune", "flow.toml", *sets, *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_a_flow_is_printed_by_stages_and_its_folder_can_be_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(tmp_path, monkeypatch, "--method", "standard") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    stages = [row[:2] for row in rows if row[:1] in (["1"], ["2"], ["3"])]
    assert stages == [[number, name] for number in "123" for name in ("select", "rebuild", "finetune")]
    assert [row[1] for row in rows if row[:1] == ["\u2502"]] == ["dense", "pruned"]
    assert rows[-1][-3:-1] == ["autoprune", "export"]
    exported = run.export_saved(rows[-1][-1], "safetensors", output=tmp_path / "exported")
    assert exported.max_difference == 0
    dense = make_model("tests.flow.nets:residual", 10, 1)
    small = run.load_saved(exported.path)
    assert sum(each.numel() for each in small.parameters()) < 0.5 * sum(
        each.numel() for each in dense.parameters()
    )


def test_a_flow_of_masks_prints_what_is_left_and_refuses_widths_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = ("--set", "flow.stages=['mask']", "--set", "mask.granularity=2:4")
    assert typed(tmp_path, monkeypatch, *masks) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert 'granularity "2:4": the number of inputs must divide by 4' in said
    assert [path.name for path in tmp_path.iterdir()] == ["flow.toml"]
    assert typed(tmp_path, monkeypatch, *masks, "--set", "mask.skip=['stem']") == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Masks leave")]
    assert "weights (" in line
    assert "in theory: zeros alone do not run faster" in line


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--method", "slimming"), 'flow.method: unknown method "slimming"'),
        (("--set", "select.by=global"), "select.by: unknown"),
        (
            ("--method", "network-slimming", "--set", "sparsify.strength=[0.1, 0.1]"),
            "sparsify.strength: got (0.1, 0.1), expected",
        ),
        (("--set", "flow.passes=0"), "flow.passes: got 0, expected an integer >= 1"),
        (("--set", "select.floor=2.5"), "select.floor: got 2.5, expected channels"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    words: tuple[str, ...],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert typed(tmp_path, monkeypatch, *words) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert line in said
    assert [path.name for path in tmp_path.iterdir()] == ["flow.toml"]
