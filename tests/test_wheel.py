"""The built wheel: it holds every file of the package and runs outside the clone. The citation fits it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the package, so that no build folder is left in the clone."""
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "autoprune", copy / "autoprune", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "wheel"]
    subprocess.run([*build, "."], cwd=copy, check=True, capture_output=True)
    (path,) = (copy / "wheel").iterdir()
    return path


@pytest.mark.slow
def test_a_wheel_holds_all_files_of_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    copy = wheel.parents[1]
    files = {str(path.relative_to(copy)) for path in (copy / "autoprune").rglob("*") if path.is_file()}
    assert {"autoprune/reporting/templates/page.html", "autoprune/guide/report.md"} <= files
    assert files - held == set()


@pytest.mark.slow
def test_a_wheel_runs_outside_the_clone(wheel: Path, tmp_path: Path) -> None:
    """Pages, presets, an embedded config, the report and the model card are read from the installed files."""
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def autoprune(*arguments: str) -> str:
        code = "import autoprune.cli, sys; print(autoprune.__file__, file=sys.stderr); autoprune.cli.main()"
        command = [sys.executable, "-P", "-c", code, *arguments]
        run = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        assert run.stderr.startswith(str(site)), "the installed package, not the clone"
        return run.stdout

    assert "deploy" in autoprune("guide")
    assert "trtexec" in autoprune("guide", "deploy")
    assert "network-slimming" in autoprune("methods")
    quick = (
        "search.trials=2",
        "train.epochs=2",
        "finetune.epochs=1",
        "race.entrants=1",
        "score.rungs=['calibrate']",
    )
    autoprune("search", "digits", *(word for each in quick for word in ("--set", each)))
    autoprune("finetune", "digits")
    assert {file.name for file in (empty / "runs" / "digits" / "best").iterdir()} == {
        *("README.md", "model.onnx", "model.safetensors", "recipe.json", "report.html")
    }


def test_the_citation_names_version_and_licence_of_the_package() -> None:
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    for key in ("version", "license"):
        assert re.findall(rf"^{key}: (.+)$", citation, re.MULTILINE) == [PROJECT[key]]


def test_the_oldest_supported_python_is_the_first_of_the_classifiers() -> None:
    versions = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert PROJECT["requires-python"] == f">={versions[0]}"
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in versions
