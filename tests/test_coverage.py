"""The fast part of experiments/coverage: a model a kind, measured by the functions of the experiment.

The whole is the experiment itself; here its table is held against the list of models.
"""

from __future__ import annotations

import pytest

from autoprune.rebuilding._proof import TOLERANCE
from experiments.common import rows_of
from experiments.coverage import pretrained, trained
from experiments.coverage.models import MODELS
from experiments.coverage.run import RESULTS, measure

FAST = ("squeezenet1_1", "timm/deit_tiny_patch16_224")
"""Concatenation and attention. A net that shuffles its channels is among those with trained statistics."""

HARD = (
    "mobilenet_v3_small",
    "shufflenet_v2_x0_5",
    "resnet18",
    "timm/convnext_atto",
    "timm/lcnet_050",
    "timm/resmlp_12_224",
    "timm/starnet_s1",
    "googlenet",
    "maxvit_t",
    "swin_v2_t",
    "detection/ssdlite320_mobilenet_v3_large",
    "segmentation/lraspp_mobilenet_v3_large",
    "video/s3d",
    "timm/coat_lite_tiny",
    "timm/ecaresnet26t",
    "timm/efficientvit_m0",
    "timm/mixnet_s",
    "timm/res2net50_14w_8s",
    "timm/resnest14d",
    "timm/volo_d1_224",
)
"""Gates, shuffled channels, and plain ones. Then auxiliary heads, windows, several outputs, and numbers of a
module in lists and shares."""


SLOW = [pytest.param(name, marks=[pytest.mark.slow, pytest.mark.timeout(600)]) for name in HARD]


@pytest.mark.parametrize("name", [*FAST, *SLOW])
def test_covered(name: str) -> None:
    if MODELS[name].library == "timm":
        pytest.importorskip("timm")
    row = measure(name, limit=600, plans=1)
    assert row.error == ""
    assert row.untouched == "yes"
    assert row.free_groups
    assert (row.training, row.evaluation) == ("ok", "ok")
    assert row.other_size


def test_the_proof_holds_on_trained_statistics() -> None:
    row = trained.measure("shufflenet_v2_x0_5", plans=1)
    assert row.layers == 56
    assert (row.right, row.error) == ("1 of 1", "")


def test_no_model_with_trained_statistics_is_wrong() -> None:
    rows = rows_of(trained.TRAINED)
    assert len(rows) > 100
    assert {row["model"] for row in rows} <= MODELS.keys()
    assert {(row["right"], row["error"]) for row in rows} == {("3 of 3", "")}
    assert all(float(row["kept_whole"]) <= TOLERANCE for row in rows)


def test_two_pretrained_networks_are_proved_exactly() -> None:
    rows = rows_of(pretrained.PRETRAINED)
    tried = {(row["model"], float(row["keep_ratio"])) for row in rows}
    assert tried == {(name, ratio) for name in pretrained.MODELS for ratio in pretrained.RATIOS}
    assert {row["verdict"] for row in rows} == {"exact"}
    assert all(float(row["difference"]) <= TOLERANCE for row in rows)


def test_the_table_holds_every_model_with_no_exemption() -> None:
    rows = {row["model"]: row for row in rows_of(RESULTS)}
    assert rows.keys() == MODELS.keys()
    assert [name for name, row in rows.items() if row["error"] or row["untouched"] != "yes"] == []
    assert [name for name, row in rows.items() if row["device"] == "cpu" and not row["all_difference"]] == []
    assert all(float(row["largest_difference"] or 0) <= TOLERANCE for row in rows.values())
    assert {row["costs_equal"] for row in rows.values()} == {"6 of 6"}
