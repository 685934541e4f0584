"""The README keeps its word: commands exist, the config is valid, the Python runs, links lead somewhere."""

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
from typer.main import get_command

from autoprune.cli.commands import app
from autoprune.config import load_config
from autoprune.config._loading import embedded_configs
from autoprune.engines import ENGINES, PRUNERS
from autoprune.latency import LatencySetting
from autoprune.latency.probes import PROBES
from autoprune.samplers import SAMPLERS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
COMMANDS = vars(get_command(app))["commands"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def verb_lines() -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line.split("&&")[-1].strip() for line in lines if re.search(r"(^|/)autoprune ", line)]


def set_up_lines() -> list[str]:
    return [line for block in blocks("sh") for line in block.splitlines() if "-m venv" in line]


@pytest.mark.parametrize("line", verb_lines())
def test_every_command_exists_with_its_options(line: str) -> None:
    _, verb, *rest = line.split()
    assert verb in COMMANDS
    options = {option for parameter in COMMANDS[verb].params for option in parameter.opts}
    assert {word for word in rest if word.startswith("-")} <= options


def test_a_pick_within_limits_follows_the_front_that_it_needs() -> None:
    """A search with one objective fills its budget: no trial of it is below."""
    config, *_ = blocks("toml")
    assert "objectives" not in config
    assert README.index("`objectives = [") < README.index("autoprune best")


def test_overrides_in_the_readme_are_valid_keys() -> None:
    overrides = re.findall(r"--set (\S+=\S+)", README)
    assert overrides
    load_config("digits", overrides)


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


def test_the_config_is_valid(tmp_path: Path) -> None:
    whole, *sections = blocks("toml")
    path = tmp_path / "run.toml"
    path.write_text(whole)
    assert load_config(path).budget.flops == "50%"
    probes = []
    for section in sections:
        path.write_text(f"{whole}\n{section}")
        asked = load_config(path).latency
        probes.append(LatencySetting(asked.probe, threads=asked.threads, command=asked.command).probe)
    assert probes == ["onnx", "command"]


@pytest.mark.parametrize(
    ("text", "heading", "table"),
    [
        ("README.md", "- **`sampler`:**", SAMPLERS),
        ("README.md", "- **`engine`:**", ENGINES),
        ("README.md", "- **`rungs` in", [name for name in PRUNERS if name != "none"]),
        ("README.md", 'probe = "onnx"', PROBES),
        ("CHANGELOG.md", "- Samplers:", SAMPLERS),
        ("CHANGELOG.md", "- Engines:", ENGINES),
        ("CHANGELOG.md", "- Rungs:", PRUNERS),
    ],
)
def test_lists_of_choices_leave_none_out(text: str, heading: str, table: Iterable[str]) -> None:
    (item,) = re.findall(
        rf"^{re.escape(heading)}.*?(?=^- |^$)", (ROOT / text).read_text("utf-8"), re.M | re.S
    )
    assert [name for name in table if not re.search(rf"\b{name}\b", item)] == []


def test_the_python_runs(tmp_path: Path) -> None:
    (block,) = blocks("python")
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
    targets = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
