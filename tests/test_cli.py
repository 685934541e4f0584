"""The command line as a user runs it, on scikit-learn's digits: the main job, kills, and every kind of mistake.

What is killed runs in processes of its own; mistakes are made in this one, through the same `main`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import autoprune
from autoprune.cli import main
from autoprune.study import TrialRecord, open_study
from autoprune.zoo import make_model

ROOT = Path(__file__).parents[1]
QUICK = (
    "search.trials=4",
    "search.setting=float32 contiguous",
    "score.rungs=['calibrate', '2 steps']",
    "train.epochs=2",
    "finetune.epochs=2",
)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "140"}


def sets(*overrides: str) -> list[str]:
    return [word for override in (*QUICK, *overrides) for word in ("--set", override)]


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """Begin a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "autoprune", *arguments],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_until(line_start: str, *arguments: str, cwd: Path, then: signal.Signals) -> str:
    """Run a command until it prints a line that begins so, then send it a signal; return all that it printed."""
    process = start(*arguments, cwd=cwd)
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if line.startswith(line_start):
            process.send_signal(then)
            break
    printed += process.communicate(timeout=60)[0]
    expected = -signal.SIGKILL if then == signal.SIGKILL else 130
    assert process.returncode == expected, printed
    return printed


class Command:
    """Runs the command line in this process, in a folder of the test's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: str, cwd: Path) -> tuple[int, str, str]:
        """Return exit code, standard output and standard error."""
        self._monkeypatch.chdir(cwd)
        self._monkeypatch.setenv("COLUMNS", "140")
        self._monkeypatch.setattr(sys, "argv", ["autoprune", *arguments])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        printed = self._capsys.readouterr()
        code = left.value.code
        return code if isinstance(code, int) else 0, printed.out, printed.err


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `autoprune train` has trained the dense digits model, killed once on the way."""
    folder = tmp_path_factory.mktemp("workplace")
    arguments = ("train", "digits", *sets("train.epochs=3"))
    run_until("epoch   1/3", *arguments, cwd=folder, then=signal.SIGKILL)
    process = start(*arguments, cwd=folder)
    printed = process.communicate(timeout=120)[0]
    assert process.returncode == 0, printed
    assert "epoch   1/3" not in printed
    assert "epoch   3/3" in printed
    assert (folder / "runs" / "digits" / "dense.safetensors").is_file()
    return folder


def assert_refused(result: tuple[int, str, str], message: str) -> None:
    code, out, err = result
    assert code == 2, out + err
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("autoprune: ")
    assert message in lines[0]


def write_loaders(folder: Path, module: str, body: str) -> None:
    """Write a module whose `make` should return loaders of 8 x 8 images; `body` may spoil them."""
    (folder / f"{module}.py").write_text(
        "import torch\n"
        "from torch.utils.data import DataLoader, TensorDataset\n"
        "def part(count):\n"
        "    generator = torch.Generator().manual_seed(count)\n"
        "    return torch.rand(count, 1, 8, 8, generator=generator), torch.arange(count) % 10\n"
        "def loader(images, labels):\n"
        "    return DataLoader(TensorDataset(images, labels), batch_size=16)\n"
        f"{body}\n"
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.trails=3", 'unknown key search.trails. Did you mean "trials"?'),
        ("search.trials=few", "search.trials: got 'few', expected an integer >= 1"),
        ("search.sampler=tpee", 'Did you mean "tpe"?'),
        ("search.engine=seriel", 'Did you mean "serial"?'),
        ("search.pruner=medain", 'Did you mean "median"?'),
        ("search.criterion=l7", "search.criterion"),
        ("score.rungs=['5 stepps']", "score.rungs"),
        ("model.name=digits_resnett", 'Did you mean "digits_resnet"?'),
        ("data.name=digit", 'Did you mean "digits"?'),
        ("task.metric=acuracy", 'Did you mean "accuracy"?'),
        ("budget.flops=0.1%", "is the smallest reachable"),
        ("budget.flops=150%", "less than the dense model's"),
        ("budget.latency=4 ms", "latency budgets are not available"),
        ("data.val_fraction=0.0001", "data.val_fraction"),
        ("search.space=nowhere.toml", "cannot be read as a search space"),
        ("search.device=tpu", "device"),
        ("output.folder=/proc/here", "output.folder: /proc/here cannot be written"),
        ("search.storage=sqlite:////proc/here/a.db", "search.storage: /proc/here cannot be written"),
        ("model.checkpoint=nowhere.safetensors", "nowhere.safetensors"),
    ],
)
def test_bad_input_gets_one_line_and_leaves_no_study(
    workplace: Path, tmp_path: Path, override: str, message: str
) -> None:
    checkpoint = f"model.checkpoint={workplace}/runs/digits/dense.safetensors"
    run = autoprune("search", "digits", *sets("train.when_missing=false", checkpoint, override), cwd=tmp_path)
    assert_refused(run, message)
    assert list(tmp_path.rglob("*.db")) == []


def test_a_checkpoint_of_another_shape_is_named_with_both_shapes(workplace: Path, tmp_path: Path) -> None:
    state = load_file(workplace / "runs" / "digits" / "dense.safetensors")
    state["fc.weight"] = torch.zeros(7, state["fc.weight"].shape[1])
    save_file(state, tmp_path / "other.safetensors")
    run = autoprune("search", "digits", *sets("model.checkpoint=other.safetensors"), cwd=tmp_path)
    assert_refused(run, "fc.weight")
    assert "(7, 32)" in run.stderr
    assert "(10, 32)" in run.stderr


def test_a_corrupt_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"no weights at all")
    (tmp_path / "broken.pt").write_bytes(b"no weights at all")
    for name in ("broken.safetensors", "broken.pt"):
        run = autoprune("search", "digits", *sets(f"model.checkpoint={name}"), cwd=tmp_path)
        assert_refused(run, "corrupt")
    assert list(tmp_path.rglob("*.db")) == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "def make():\n    x, y = part(64)\n    x[3, 0, 2, 2] = float('nan')\n"
            "    return loader(x, y), loader(*part(32))",
            "finite",
        ),
        ("def make():\n    return loader(*part(64)), loader(*part(0))", "data"),
        ("def made():\n    return None", 'has no "make"'),
        ("raise ValueError('broken on import')", "broken on import"),
    ],
)
def test_bad_loaders_of_the_users_own_are_refused(tmp_path: Path, body: str, message: str) -> None:
    write_npz_loaders(tmp_path, body)
    (tmp_path / "run.toml").write_text(
        '[model]\nname = "digits_resnet"\n[data]\nloaders = "mine:make"\n[budget]\nflops = "50%"\n'
        "[train]\nwhen_missing = true\nepochs = 1\n"
    )
    run = autoprune("search", "run.toml", cwd=tmp_path)
    assert_refused(run, message)
    assert list(tmp_path.rglob("*.db")) == []


def test_a_config_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert_refused(autoprune("search", "nowhere.toml", cwd=tmp_path), "no such config file")
    assert_refused(autoprune("resume", "nothing", cwd=tmp_path), "no storage in runs/")


def test_help_answers_and_a_missing_argument_is_a_mistake(tmp_path: Path) -> None:
    helped = autoprune("--help", cwd=tmp_path)
    assert helped.returncode == 0
    verbs = ("search", "resume", "finetune", "export", "inspect", "train", "report")
    assert all(verb in helped.stdout for verb in verbs)
    missing = autoprune("search", cwd=tmp_path)
    assert missing.returncode == 2
    assert "CONFIG" in missing.stderr


def test_inspect_shows_groups_costs_and_memory(tmp_path: Path) -> None:
    run = autoprune("inspect", "digits", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    for word in (
        "layer1.0.conv1",
        "the model's output",
        "smallest reachable",
        "keep ratios are searched",
        "MB",
    ):
        assert word in run.stdout
    assert list(tmp_path.iterdir()) == []
