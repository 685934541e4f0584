"""The built wheel: it holds every file of the package, pages, templates and configs too."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_wheel_holds_all_files_of_the_package(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "autoprune", copy / "autoprune", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "wheel"]
    subprocess.run([*build, "."], cwd=copy, check=True, capture_output=True)
    (wheel,) = (copy / "wheel").iterdir()
    held = set(zipfile.ZipFile(wheel).namelist())
    files = {str(path.relative_to(copy)) for path in (copy / "autoprune").rglob("*") if path.is_file()}
    assert {"autoprune/reporting/templates/page.html", "autoprune/guide/report.md"} <= files
    assert files - held == set()
