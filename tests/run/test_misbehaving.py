"""User code that misbehaves, through the verbs that call it: one line, exit code 2, nothing half-written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.misbehaving import ANYWHERE, DATA, MODELS, WORKERS
from tests.test_cli import run_here

CONFIG = """
[model]
factory = "tests.misbehaving:net"
checkpoint = "dense.safetensors"
[data]
loaders = "tests.misbehaving:parts"
[budget]
flops = "60%"
[search]
study = "own"
trials = 2
sampler = "random"
setting = "float32 contiguous"
warm_starts = []
[score]
rungs = ["calibrate", "2 steps"]
[train]
when_missing = true
epochs = 2
[race]
entrants = 1

[finetune]
epochs = 1
"""

VERBS = {
    "model.factory": ("inspect",),
    "data.loaders": ("inspect",),
    "task.loss": ("train",),
    "task.metric": ("search",),
    "latency.probe": ("search", "budget.latency=60%"),
}
"""A verb, with what it needs, that calls the function which the key names."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run.toml").write_text(CONFIG, "utf-8")
    return tmp_path


def refused(folder: Path, verb: str, *overrides: str) -> str:
    """Run a verb that the user's code makes fail; return its one line, after a look that nothing is left."""
    sets = [word for override in overrides for word in ("--set", override)]
    code, _, said = run_here(verb, "run.toml", *sets, cwd=folder)
    assert code == 2
    assert said.count("\n") == 1, said
    assert len(said) < 800
    assert "Traceback" not in said
    assert not list(folder.glob("**/*.safetensors"))
    return said


@pytest.mark.parametrize("name", ANYWHERE)
@pytest.mark.parametrize("key", VERBS)
def test_a_function_that_misbehaves_is_named_with_its_key(folder: Path, key: str, name: str) -> None:
    verb, *needed = VERBS[key]
    said = refused(folder, verb, f"{key}=tests.misbehaving:{name}", *needed)
    assert (key.partition(".")[0]) in said
    assert f"tests.misbehaving:{name}" in said
    assert ANYWHERE[name] in said


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore:Full backward hook:UserWarning")
def test_a_model_that_misbehaves_is_refused_before_anything_is_trained(folder: Path, name: str) -> None:
    said = refused(folder, "search", f"model.factory=tests.misbehaving:{name}")
    assert MODELS[name] in said
    assert not (folder / "runs" / "own.db").exists()


@pytest.mark.parametrize("name", ["without_parameters", "leaves_in_forward", "cannot_be_copied", "lazy"])
def test_inspect_refuses_such_models_too(folder: Path, name: str) -> None:
    assert MODELS[name] in refused(folder, "inspect", f"model.factory=tests.misbehaving:{name}")


def test_a_training_that_diverges_names_epoch_loss_and_key(folder: Path) -> None:
    said = refused(folder, "train", "train.learning_rate=1e6")
    assert "train: epoch 1: diverged: " in said
    assert "Set train.learning_rate below 1e+06 and run the same command again." in said
    code, printed, _ = run_here("train", "run.toml", cwd=folder)
    assert code == 0, "a lower rate starts over"
    assert "epoch   2/2" in printed


def test_a_finetune_that_diverges_names_its_key_and_leaves_no_model(folder: Path) -> None:
    assert run_here("search", "run.toml", cwd=folder)[0] == 0
    code, _, said = run_here("finetune", "own", "--set", "finetune.learning_rate=1e6", cwd=folder)
    assert (code, said.count("\n")) == (2, 1)
    assert "finetune: epoch 1: diverged: " in said
    assert "Set finetune.learning_rate below 1e+06" in said
    assert not list(folder.glob("runs/own/best/*"))
    assert run_here("finetune", "own", cwd=folder)[0] == 0


@pytest.mark.parametrize("name", DATA)
def test_data_that_misbehave_are_refused(folder: Path, name: str) -> None:
    said = refused(folder, "train", f"data.loaders=tests.misbehaving:{name}")
    assert DATA[name] in said


@pytest.mark.slow
@pytest.mark.parametrize("name", WORKERS)
def test_workers_of_a_loader_that_misbehave_are_one_line(folder: Path, name: str) -> None:
    assert WORKERS[name] in refused(folder, "inspect", f"data.loaders=tests.misbehaving:{name}")


@pytest.mark.parametrize("name", ["only_seed", "by_position"])
def test_a_function_of_loaders_gets_what_it_has_parameters_for(folder: Path, name: str) -> None:
    code, printed, said = run_here(
        "inspect", "run.toml", "--set", f"data.loaders=tests.misbehaving:{name}", cwd=folder
    )
    assert (code, said) == (0, "")
    assert "MACs" in printed


def test_an_endless_test_part_ends_a_finetune_with_one_line(folder: Path) -> None:
    sets = ("--set", "data.loaders=tests.misbehaving:endless_test")
    assert run_here("search", "run.toml", *sets, cwd=folder)[0] == 0
    code, _, said = run_here("finetune", "own", cwd=folder)
    assert (code, said.count("\n")) == (2, 1)
    assert "test: expected 2 batches by its length, got more" in said


@pytest.mark.parametrize("engine", ["serial", pytest.param("processes", marks=pytest.mark.slow)])
def test_a_trial_whose_model_calls_sys_exit_fails_alone(folder: Path, engine: str) -> None:
    """The search ends with the reason why no trial has a score. At this budget there is one plan to try."""
    sets = (
        "--set",
        "model.factory=tests.misbehaving:leaves_once_it_is_narrowed",
        "--set",
        f"search.engine={engine}",
    )
    code, _, said = run_here("search", "run.toml", *sets, cwd=folder)
    assert code == 2
    assert (
        "none of 1 trials completed, 1 of them with: model: its forward pass failed in training mode" in said
    )
    assert said.rstrip().endswith("SystemExit: 0")


def test_ctrl_c_in_the_users_code_is_still_ctrl_c(folder: Path) -> None:
    sets = ("--set", "model.factory=tests.misbehaving:is_interrupted")
    assert run_here("train", "run.toml", *sets, cwd=folder)[0] == 130
