"""All tests that are marked gpu, with their outcomes and seconds.

python -m experiments.gpu.marked [--device cuda]
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from experiments.gpu.common import Bench, bench_of

TESTS = Path(__file__).parents[2] / "tests"
TINY = "latency"
"""The folder whose tests run in a tiny run, where all of them skip."""


def main() -> None:
    bench = bench_of("marked")
    report = bench.output / "marked.xml"
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-m", "gpu", f"--junitxml={report}", "-rA"),
                *("-p", "no:cacheprovider", f"--basetemp={folder}/pytest"),
                # In place of the project's options, which start a process for each core.
                *("-o", "addopts=--strict-markers --import-mode=importlib"),
                *map(str, files(bench)),
            ],
            check=False,
            timeout=bench.left,
        )
    write_outcomes(bench, report)


def files(bench: Bench) -> list[Path]:
    """Return the files with such tests, because collecting all others takes long."""
    root = TESTS / TINY if bench.tiny else TESTS
    return sorted(path for path in root.rglob("test_*.py") if "mark.gpu" in path.read_text("utf-8"))


def write_outcomes(bench: Bench, report: Path) -> None:
    """Write a row for each test of pytest's report."""
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        found = next((each for each in case if each.tag in ("failure", "error", "skipped")), None)
        outcome = "passed" if found is None else {"failure": "failed"}.get(found.tag, found.tag)
        message = "" if found is None else re.sub(r"\s+", " ", found.get("message") or "")[:300]
        bench.write(
            {
                "test": f"{case.get('classname')}::{case.get('name')}",
                "outcome": outcome,
                "seconds": case.get("time"),
                "message": message,
            }
        )


if __name__ == "__main__":
    main()
