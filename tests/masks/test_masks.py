"""Masks as values: wrong masks are refused, and masks read back from their file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from autoprune.errors import CheckpointError, MaskError
from autoprune.masks import Masks, load_masks, make_masks, save_masks
from autoprune.training import weights_hash
from tests.masks.nets import net


def test_a_file_keeps_masks(tmp_path: Path) -> None:
    masks = make_masks(net(), 0.7)
    save_masks(masks, tmp_path / "masks.safetensors")
    again = load_masks(tmp_path / "masks.safetensors")
    assert again == masks
    assert again != make_masks(net(), 0.6)


def test_files_without_masks_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"masks .*none.safetensors: cannot be read"):
        load_masks(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"garbage")
    with pytest.raises(CheckpointError, match=r"bad.safetensors: expected masks written by save_masks"):
        load_masks(tmp_path / "bad.safetensors")


def test_masks_of_another_model_change_nothing() -> None:
    model = net()
    before = weights_hash(model)
    other = {"stem.weight": torch.zeros(8, 1, 3, 3, dtype=torch.bool), "inner1.weight": torch.tensor([True])}
    with pytest.raises(MaskError, match=r"inner1.weight: the masks are of another model: Net has no such"):
        Masks(other).apply(model)
    assert weights_hash(model) == before


def test_numbers_are_no_mask() -> None:
    with pytest.raises(MaskError, match="a: got a mask that is not a bool tensor"):
        Masks({"a": torch.ones(3)})


def test_zeros_of_both_are_zero() -> None:
    first, second = torch.tensor([True, True, False]), torch.tensor([False, True, True])
    both = Masks({"a": first}).also({"a": second, "b": second})
    assert both["a"].tolist() == [False, True, False]
    assert both["b"].tolist() == second.tolist()
