"""The shared parts of experiments/methods: the training part, rows, and a table of rows worked by hand."""

from __future__ import annotations

from pathlib import Path

import torch

from autoprune.data import load, wrap_loaders
from experiments.common import append_row
from experiments.methods.data import Reshuffled
from experiments.methods.pruned_rows import Case, config_of, is_measured, table


def test_the_training_part_has_another_order_in_each_epoch_and_the_same_for_a_seed() -> None:
    digits = load("digits", augment=False)
    train = wrap_loaders((Reshuffled(digits.train), digits.val)).train
    first, again, later = (torch.cat([y for _, y in train.batches(3, epoch)]) for epoch in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    assert len(first) == len(digits.train) * 128


def test_a_table_has_means_and_differences_of_the_same_seed(tmp_path: Path) -> None:
    results = tmp_path / "results.csv"
    for variant, seed, test in (("l1", 0, 0.90), ("l1", 1, 0.94), ("lasso", 0, 0.91), ("lasso", 1, 0.97)):
        row = {"net": "vgg", "budget": "20%", "variant": variant, "seed": seed, "macs": 0.2, "params": 0.1}
        scores = {"before": 0.5 if seed else None, "val": test, "test": test, "dense_test": 0.95}
        append_row(results, row | scores, quiet=True)
    lines = table(results, "l1")
    assert lines[3] == "| vgg | 20% | 20.0% | 10.0% | l1 | 50.0 | 92.00 ± 2.83 (2) | -3.00 ± 2.83 (2) | 0 |"
    assert lines[4].endswith("| 94.00 ± 4.24 (2) | -1.00 ± 4.24 (2) | +2.00 ± 1.41 (2) |")
    assert is_measured(results, {"variant": "lasso", "seed": 1})
    assert not is_measured(results, {"variant": "lasso", "seed": 2})


def test_the_limits_of_a_case_take_the_place_of_its_share_of_the_flops() -> None:
    assert Case("resnet20", "66%", {}).settings().budget.flops == "66%"
    limited = Case("resnet20", "40% cut", {}, ("select.share=0.4",)).settings()
    assert (limited.budget.flops, limited.select.share) == (None, 0.4)
    digits = config_of("digits_vgg16_bn")
    assert (digits.model.name, digits.data.name) == ("vgg16_bn", "digits")
