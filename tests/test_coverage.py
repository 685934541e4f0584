"""The fast part of experiments/coverage: a model a kind, measured by the functions of the experiment."""

from __future__ import annotations

import pytest

from experiments.coverage.models import MODELS
from experiments.coverage.run import measure

FAST = (
    "mobilenet_v3_small",
    "resnet18",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "timm/convnext_atto",
    "timm/deit_tiny_patch16_224",
    "timm/lcnet_050",
    "timm/resmlp_12_224",
    "timm/starnet_s1",
)
"""Each takes a few seconds at one plan a proof."""


@pytest.mark.parametrize("name", FAST)
def test_covered(name: str) -> None:
    _measure(name, plans=1)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [name for name in MODELS if name not in FAST])
def test_covered_slowly(name: str) -> None:
    _measure(name, plans=3)


def _measure(name: str, plans: int) -> None:
    if MODELS[name].library == "timm":
        pytest.importorskip("timm")
    row = measure(name, limit=600, plans=plans)
    assert row.error == ""
    assert row.untouched == "yes"
    assert row.free_groups
    assert (row.training, row.evaluation) == ("ok", "ok")
    assert row.other_size
