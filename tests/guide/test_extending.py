"""The examples of the page "extending", as the modules of one package that a script uses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from autoprune.guide import read_page
from tests.guide.markdown import blocks

ROOT = Path(__file__).parents[2]

PROGRAM = """
import mypkg.costs, mypkg.gain  # before the settings, which follow from the table of costs
import torch
from torch import nn
import autoprune
from autoprune.latency import LatencySetting, prepare
from autoprune.zoo import make_model
from tests.own_rows import tiny_search

found = tiny_search(
    trials=4,
    sampler="mypkg.search:wide",
    criterion="mypkg.ranking:spread",
    warm_starts=["mypkg.starts:late"],
)
origins = [record.origin for record in found.summary.records]
assert origins == ["mypkg.starts:late", "sampler", "sampler", "sampler"], origins
late = found.summary.records[0].widths
assert late["0"] / 16 > late["2"] / 16 > late["4"] / 8, late

front = tiny_search(study="front", sampler="mypkg.search:wide", objectives=["score", "channels"])
for record in front.summary.records:
    assert record.costs["channels"] == sum(record.widths.values()), record

model = make_model("mypkg.nets:make", classes=3, in_channels=1)
with prepare(model, torch.zeros(1, 1, 8, 8), LatencySetting("mypkg.board:time_it")) as timed:
    assert timed() > 0

net = nn.Sequential(nn.Linear(8, 16), mypkg.gain.Gain(16), nn.Linear(16, 4))
prunable = autoprune.trace(net, torch.zeros(2, 8))
(group,) = prunable.searchable
plan = autoprune.make_plan(prunable, 0.5)
small = autoprune.rebuild(prunable, plan)
assert small[1].width == 8
assert autoprune.verify(prunable, plan, small).right

loader = [(torch.randn(16, 1, 8, 8), torch.arange(16) % 3)]
flow = autoprune.prune(
    model,
    (loader, loader),
    {
        "search": {"setting": "float32 contiguous"},
        "flow": {"stages": ["select", "mypkg.flows:test_early", "finetune"]},
        "select": {"by": "mypkg.flows:every_second"},
        "finetune": {"epochs": 1},
    },
)
stages = [entry.stage for entry in flow.stages]
assert stages == ["select", "rebuild", "mypkg.flows:test_early", "finetune"], stages
assert flow.stages[2].score == flow.stages[1].score

prunable = autoprune.trace(model.eval(), torch.zeros(2, 1, 8, 8))
small = autoprune.rebuild(prunable, autoprune.make_plan(prunable, 0.5))
assert autoprune.export(small, "small.ts", format="mypkg.formats:script").max_difference < 1e-4
"""


@pytest.mark.slow
def test_the_examples_run_together(tmp_path: Path) -> None:
    """They run in a process of its own, since they add rows to tables."""
    for block in blocks(read_page("extending"), "python"):
        path = tmp_path / block.partition("\n")[0].removeprefix("# ")
        path.parent.mkdir(exist_ok=True)
        path.write_text(block)
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert run.returncode == 0, run.stderr
