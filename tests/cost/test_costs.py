"""A cost is one row: the example of the package's docstring is limited, minimised, stored and shown."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import autoprune.cost
from autoprune.config.settings import SearchSettings
from autoprune.cost import BYTES, COSTS, CostKey, CostSpec
from autoprune.errors import ConfigError
from autoprune.run._resolving.objectives import objective_costs

SEARCHES = """
import sys
import torch
from torch.utils.data import DataLoader, TensorDataset
import autoprune
from autoprune.cli import main
from autoprune.zoo import make_model

torch.manual_seed(0)
model = make_model("digits_resnet", 10, 1)
images = TensorDataset(torch.randn(64, 1, 8, 8), torch.arange(64) % 10)
loaders = {"train": DataLoader(images, 32), "val": DataLoader(images, 32)}
groups = autoprune.trace(model, torch.zeros(1, 1, 8, 8)).groups
full = sum(group.width for group in groups)
storage = sys.argv[1]
settings = {"trials": 3, "sampler": "random", "setting": "float32 contiguous", "warm_starts": []}
summary = autoprune.search(model, loaders, {
    "budget": {"channels": "60%"},
    "search": {**settings, "storage": storage, "study": "own", "objectives": ["score", "channels"]},
    "score": {"rungs": ["calibrate"], "calibration_batches": 1},
}).summary
assert summary.dense_costs["channels"] == full
for record in summary.records:
    assert record.costs["channels"] == sum(record.widths.values()) <= 0.6 * full, record
for arguments in (["report", "own"], ["best", "own", "--channels", "60%"]):
    sys.argv = ["autoprune", *arguments, "--storage", storage]
    try:
        main()
    except SystemExit as end:
        assert not end.code, end.code
"""


@pytest.mark.slow
def test_the_example_of_a_new_cost_is_a_budget_and_an_objective(tmp_path: Path) -> None:
    """It runs in a process of its own: settings follow from the table when they are imported."""
    example = (inspect.getdoc(autoprune.cost) or "").partition("    from autoprune")[2].partition("\n\n`")[0]
    program = textwrap.dedent(f"    from autoprune{example}") + SEARCHES
    run = subprocess.run(
        [sys.executable, "-c", program, f"sqlite:///{tmp_path}/study.db"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    assert "channels" in run.stdout


def test_a_cost_may_be_no_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COSTS, "disk", CostSpec("disk", (CostKey("disk", BYTES),), is_objective=False))
    with pytest.raises(ConfigError, match=r'unknown name "disk"'):
        objective_costs(SearchSettings(objectives=("score", "disk")))
