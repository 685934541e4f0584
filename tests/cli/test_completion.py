"""Completion of words, in a real bash and by its functions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from autoprune.cli import _completion
from autoprune.cli._completion import complete_config, complete_format, complete_override, complete_study
from autoprune.config import presets, profiles
from autoprune.exporting import EXPORTERS, FOLDER
from autoprune.run import choices
from autoprune.run._checks.choices import TABLES
from autoprune.run._export import ARTEFACT

ROOT = Path(__file__).parents[2]


def test_the_names_of_each_key_are_those_that_it_accepts() -> None:
    """The page of the guide is the source, so that no heavy module is imported."""
    for key, names in choices().items():
        assert _completion._keys()[key].choices == list(names), key
    assert set(TABLES) <= choices().keys()
    assert _completion._keys()["flow.method"].choices == list(presets())
    assert sorted(_completion._keys()["search.profile"].choices) == sorted(profiles())


def test_the_formats_are_those_of_export() -> None:
    assert complete_format("") == [*EXPORTERS, FOLDER, ARTEFACT]


def test_keys_are_completed_and_then_their_values() -> None:
    assert complete_override("search.se") == [
        "search.seed=",
        "search.setting=",
        "search.sensitivity_evaluations=",
        "search.sensitivity_images=",
        "search.sensitivity_batches=",
    ]
    assert complete_override("search.sampler=t") == ["search.sampler=tpe"]
    assert complete_override("search.tria") == ["search.trials=60"]
    assert complete_override("search.ray.add") == ["search.ray.address="]
    assert complete_override("score.rungs=") == []  # a list, which has to be quoted
    assert complete_override("serch.x=") == []


def test_configs_are_files_and_embedded_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    for name in ("different.toml", "own/run.toml", "own/notes.txt"):
        (tmp_path / name).write_text("", "utf-8")
    assert complete_config("di") == ["different.toml", "digits"]
    assert complete_config("own/") == ["own/run.toml"]
    assert complete_config(f"{tmp_path}/own/r") == [f"{tmp_path}/own/run.toml"]
    assert complete_config("nowhere/x") == []


def test_studies_are_read_from_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert complete_study("") == []
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "broken.db").write_text("no database", "utf-8")
    for name in ("night", "noon"):
        optuna.create_study(storage=f"sqlite:///runs/{name}.db", study_name=f"{name}-1")
    assert complete_study("") == ["night-1", "noon-1"]
    assert complete_study("ni") == ["night-1"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is missing")
def test_bash_completes_verbs_options_and_the_values_of_keys(tmp_path: Path) -> None:
    shim = tmp_path / "autoprune"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m autoprune "$@"\n', "utf-8")
    shim.chmod(0o755)
    script = """
        eval "$(autoprune --show-completion)"
        complete_words() {
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
            _autoprune_completion autoprune
            echo "${COMPREPLY[*]}"
        }
        complete_words autoprune ini
        complete_words autoprune search --prof
        complete_words autoprune search digits --set search.sampler = t
        complete_words autoprune search digits --set search.trials=3 --profile th
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    run = subprocess.run(
        ["bash", "--norc", "-c", script],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.splitlines() == ["init", "--profile", "tpe", "thorough"], run.stderr


def test_a_completion_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from autoprune.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print('loaded', *{'torch', 'numpy', 'optuna', 'sklearn'} & sys.modules.keys())"
    )
    words = "autoprune search digits --set search.trials=3 --set search.samp"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
        _completion.VARIABLE: "complete_bash",
    }
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "search.sampler=tpe" in run.stdout
    assert run.stdout.splitlines()[-1] == "loaded"
