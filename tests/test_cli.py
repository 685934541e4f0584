"""The command line as a user runs it, in processes of its own, on scikit-learn's digits."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parents[1]
QUICK = ("search.trials=4", "score.rungs=['calibrate', '2 steps']", "train.epochs=2", "finetune.epochs=2")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "140"}


def sets(*overrides: str) -> list[str]:
    return [word for override in (*QUICK, *overrides) for word in ("--set", override)]


def autoprune(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "autoprune", *arguments],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the dense digits model is trained already."""
    folder = tmp_path_factory.mktemp("workplace")
    run = autoprune("train", "digits", *sets(), cwd=folder)
    assert run.returncode == 0, run.stderr
    assert (folder / "runs" / "digits" / "dense.safetensors").is_file()
    return folder


def assert_refused(run: subprocess.CompletedProcess[str], message: str) -> None:
    assert run.returncode == 2, run.stdout + run.stderr
    assert "Traceback" not in run.stderr
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1, run.stderr
    assert lines[0].startswith("autoprune: ")
    assert message in lines[0]


def write_npz_loaders(folder: Path, body: str) -> None:
    """Write a module `mine` whose `make` returns loaders of 8 x 8 images; `body` may spoil them."""
    (folder / "mine.py").write_text(
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
