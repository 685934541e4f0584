"""The real dashboard of a real study in a real browser: names, note, attributes and artifacts appear."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autoprune import run
from autoprune.run import SearchResult
from autoprune.run._results.dashboard import artifact_folder, dashboard_command
from autoprune.study import open_study

webdriver = pytest.importorskip("selenium.webdriver")
pytest.importorskip("optuna_dashboard")
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None or DRIVER is None, reason="chromium and chromium-driver are missing"),
]

CONFIG: dict[str, dict[str, Any]] = {
    "model": {"name": "digits_resnet", "checkpoint": "dense.safetensors"},
    "data": {"name": "digits"},
    "train": {"when_missing": True, "epochs": 1},
    "budget": {"flops": "50%"},
    "search": {"trials": 4, "study": "digits", "setting": "float32 contiguous", "warm_starts": ["uniform"]},
    "score": {"rungs": ["calibrate", "2 steps"], "calibration_batches": 2},
    "race": {"entrants": 1},
    "finetune": {"epochs": 1},
}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchResult]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("dashboard"))
        searched = run.search(config=CONFIG)
        run.finetune(searched.name, searched.storage)
        run.export(searched.name, storage=searched.storage)
        yield searched


@pytest.fixture(scope="module")
def page(result: SearchResult) -> Iterator[Any]:
    """Return a function from a path of the dashboard to the text of that page."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    _, storage, option, folder = dashboard_command(open_study(result.storage, result.name)).split()
    program = str(Path(sys.executable).with_name("optuna-dashboard"))
    server = subprocess.Popen([program, storage, option, folder, "--port", str(port)])
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,3000"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))

    def read(path: str, *expected: str) -> str:
        text = ""
        for _ in range(60):
            driver.get(f"http://127.0.0.1:{port}{path}") if not text else None
            text = driver.execute_script("return document.body ? document.body.innerText : ''")
            if all(each in text for each in expected):
                break
            time.sleep(0.5)
        return text

    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies").close()
                break
            except OSError:
                time.sleep(0.5)
        yield read
    finally:
        driver.quit()
        server.terminate()
        server.wait()


@pytest.mark.parametrize("trial", ["best", "first"])
def test_a_trial_shows_its_parameters_costs_widths_and_files(
    page: Any, result: SearchResult, trial: str
) -> None:
    summary = result.summary
    record = result.best if trial == "best" else summary.records[0]
    expected = [
        f"Trial {record.number} ",
        *(f"{name} {ratio}"[:12] for name, ratio in record.ratios.items()),
        f"origin {record.origin}",
        f"MACs, % of dense {100 * summary.macs_share(record):.2f}".rstrip("0"),
        ", ".join(f"{name} {record.widths[name]}/{dense}" for name, dense in summary.dense_widths.items()),
    ]
    if trial == "best":
        expected += ["recipe.json", "model.safetensors", "model.onnx", "README.md"]
    text = page(f"/dashboard/studies/1/trials?numbers={record.number}", *expected)
    assert [each for each in expected if each not in text] == []
    assert "autoprune" not in text


def test_the_study_names_its_objective_and_has_the_report(page: Any, result: SearchResult) -> None:
    expected = [
        "score",
        "report.html",
        "no race has ended",
        f"trial {result.best.number} (",
        *(name for name in result.summary.records[0].ratios),
    ]
    text = page("/dashboard/studies/1", *expected)
    assert [each for each in expected if each not in text] == []


def test_the_note_has_the_budget_the_best_trial_and_the_commands(page: Any, result: SearchResult) -> None:
    limit = result.summary.limits["macs"] / result.summary.dense_costs["macs"]
    expected = [
        f"Budget: at most {limit:.1%} of the dense MACs",
        f"Best: trial {result.best.number} ({result.best.origin})",
        f"Finetuned: trial {result.best.number}, test score",
        "step 1 is calibrate, step 3 is 2 steps",
        "autoprune resume digits",
        "optuna-dashboard sqlite:",
    ]
    text = page("/dashboard/studies/1/note", *expected)
    assert [each for each in expected if each not in text] == []


def test_the_files_are_those_that_were_written(result: SearchResult) -> None:
    study = open_study(result.storage, result.name)
    kept = {path.read_bytes() for path in artifact_folder(study).iterdir()}
    written = [result.page, *(result.output / "best").iterdir()]
    assert {path.read_bytes() for path in written if path is not None} <= kept
