"""An engine and a pruner of the user's own, as the docstring of `autoprune.engines` shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autoprune import engines
from autoprune.engines import TrialRunner, run_search
from autoprune.errors import ConfigError
from tests.engines.toy import make_toy, new_study, toy_space
from tests.own_rows import install_example, tiny_search


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return install_example(engines, tmp_path, monkeypatch)


def test_an_engine_runs_the_same_trials_as_the_serial_one(
    module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found: list[list[Any]] = []
    for engine in ("serial", f"{module}:verbose"):
        study = new_study(f"journal:///{tmp_path}/{len(found)}.log")
        runner = TrialRunner(study, toy_space(), sampler="random", trials=6, rungs=2, seed=1)
        run_search(engine, runner, make_toy)
        found.append([(record.widths, record.score, record.state) for record in study.records()])
    assert found[0] == found[1]
    assert capsys.readouterr().out.count("trial ") == 6


def test_a_config_names_both(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The pruner stops every trial whose accuracy on the first rung is below a half."""
    result = tiny_search(engine=f"{module}:verbose", pruner=f"{module}:floor", rungs=["calibrate", "1 step"])
    assert capsys.readouterr().out.count("trial ") == 2
    for record in result.summary.records:
        assert record.pruned == (record.scores[0].score < 0.5)


BROKEN = """
from optuna.pruners import BasePruner

def number(*given): return 3
def fails(runner, make_scorer, workers): raise ValueError("no idea")

class Fails(BasePruner):
    def prune(self, study, trial): raise ValueError("no idea")

def pruner(rungs): return Fails()
"""


@pytest.mark.parametrize(
    ("key", "name", "message"),
    [
        ("pruner", "number", "number\" failed: TypeError: it gave an int, expected a pruner of Optuna's"),
        ("pruner", "pruner", 'search.pruner: "broken_engines:pruner" failed: ValueError: no idea'),
        ("pruner", "missing", 'module "broken_engines" has no "missing"'),
        ("engine", "fails", 'search.engine: "broken_engines:fails" failed: ValueError: no idea'),
        ("engine", "missing", 'module "broken_engines" has no "missing"'),
    ],
)
def test_errors_are_one_line_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, name: str, message: str
) -> None:
    (tmp_path / "broken_engines.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    chosen = {"engine": "serial", "pruner": "none", key: f"broken_engines:{name}"}
    study = new_study(f"journal:///{tmp_path}/study.log")

    def run() -> None:
        pruner = chosen["pruner"]
        runner = TrialRunner(study, toy_space(), sampler="random", pruner=pruner, trials=2, rungs=2)
        run_search(chosen["engine"], runner, make_toy)

    with pytest.raises(ConfigError, match=message):
        run()
