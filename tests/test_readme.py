"""The README keeps its word: commands exist, the Python runs, links lead somewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

from autoprune.config import load_config
from autoprune.config._loading import embedded_configs
from autoprune.config.rungs import RUNGS
from autoprune.engines import ENGINES, PRUNERS
from autoprune.guide import TOPICS
from autoprune.samplers import SAMPLERS
from tests.guide.markdown import COMMANDS, blocks, commands, links, overrides, unknown_words

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def set_up_lines() -> list[str]:
    return [line for block in blocks(README, "sh") for line in block.splitlines() if "-m venv" in line]


def table_commands() -> list[str]:
    """Return the commands in the first column of the README's tables."""
    return re.findall(r"^\| `(autoprune [^`]+)` \|", README, flags=re.MULTILINE)


@pytest.mark.parametrize("line", [*commands(README), *table_commands()])
def test_every_command_exists_with_its_options(line: str) -> None:
    assert unknown_words(line) == []


def test_the_table_of_commands_leaves_none_out() -> None:
    assert {line.split()[1] for line in table_commands()} == set(COMMANDS)


def test_the_table_of_pages_leaves_none_out() -> None:
    pages = re.findall(r"^\| \[(\w+)\]\(autoprune/guide/(\w+)\.md\)", README, flags=re.MULTILINE)
    assert pages == [(topic, topic) for topic in TOPICS]


def test_overrides_in_the_readme_are_valid_keys() -> None:
    assert overrides(README)
    load_config("digits", overrides(README))


def test_the_two_set_up_lines_need_only_python_and_pip() -> None:
    search_line, test_line = set_up_lines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert search_line.endswith(".venv/bin/autoprune search digits")
    assert "digits" in embedded_configs()
    assert project["scripts"]["autoprune"] == "autoprune.cli:main"
    assert "'.[test]'" in test_line
    assert test_line.endswith("-m pytest -q")
    assert "test" in project["optional-dependencies"]


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    taken = re.search(r"tests=\$\((.*)\)", script)
    assert taken is not None
    found = subprocess.run(["bash", "-c", taken[1]], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == set_up_lines()[1]


def test_ci_makes_the_environment_of_the_readme_with_its_own_interpreter(tmp_path: Path) -> None:
    """Every program is a stub that notes how it was called; the README says python3, which is another one."""
    log, programs = tmp_path / "log", tmp_path / "programs"
    programs.mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    installed = [tmp_path / ".venv" / "bin" / name for name in ("pip", "ruff", "mypy", "python")]
    for path in (*installed, programs / "python3", programs / "python3.11"):
        path.write_text(f'#!/bin/sh\necho "{path.name} $*" >> "{log}"\n')
        path.chmod(0o755)
    for name in ("bash", "dirname", "grep"):
        (programs / name).symlink_to(str(shutil.which(name)))
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    shutil.copy(ROOT / "README.md", tmp_path)
    subprocess.run([str(programs / "bash"), ".ci/run"], cwd=tmp_path, env={"PATH": str(programs)}, check=True)
    calls = log.read_text("utf-8").splitlines()
    assert [call for call in calls if "venv" in call] == ["python3.11 -m venv .venv"] * 2
    tested = [call for call in calls if "pytest" in call]
    assert tested[0] == "python -m pytest -q"
    assert all(call.startswith("python -m pytest -q tests/") for call in tested[1:])


@pytest.mark.parametrize(
    ("heading", "table"),
    [
        ("- Samplers:", SAMPLERS),
        ("- Engines:", ENGINES),
        ("- Pruners:", PRUNERS),
        ("- Rungs:", RUNGS),
    ],
)
def test_lists_of_choices_leave_none_out(heading: str, table: Iterable[str]) -> None:
    (item,) = re.findall(
        rf"^{re.escape(heading)}.*?(?=^- |^$)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M | re.S
    )
    assert [name for name in table if not re.search(rf"\b{name}\b", item)] == []


def test_the_python_runs(tmp_path: Path) -> None:
    (block,) = blocks(README, "python")
    run = subprocess.run(
        [sys.executable, "-c", block],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert run.returncode == 0, run.stderr
    dense, small, verdict = run.stdout.split(maxsplit=2)
    assert int(small) < int(dense)
    assert verdict.startswith("exact: ")
    assert (tmp_path / "small" / "recipe.json").is_file()


def test_links_lead_somewhere() -> None:
    assert [target for target in links(README) if not (ROOT / target).exists()] == []


def test_the_files_that_contributors_are_shown_exist() -> None:
    page = (ROOT / ".github" / "CONTRIBUTING.md").read_text("utf-8")
    paths = re.findall(r"`((?:python3 )?[.\w]+/[./\w]+)`", page)
    assert len(paths) >= 5
    assert [path for path in paths if not (ROOT / path.removeprefix("python3 ")).exists()] == []
