"""Scores of the user's own, as the docstring of `autoprune.masks` shows them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from autoprune import masks
from autoprune.errors import ConfigError, MaskError
from autoprune.masks import make_masks
from tests.masks.nets import net
from tests.own_rows import install_example


def test_a_function_and_a_spec_rank_as_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = install_example(masks, tmp_path, monkeypatch)
    expected = make_masks(net(), 0.5)
    for name in ("squares", "spec"):
        assert make_masks(net(), 0.5, score=f"{module}:{name}") == expected


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        (
            "raise ValueError('no idea')",
            ConfigError,
            r'mask.score: "own_scores:p" failed: ValueError: no idea',
        ),
        ("return {}", MaskError, r'score "own_scores:p": stem.weight needs a finite score of shape'),
        ("return 3", ConfigError, r'mask.score: "own_scores:p" failed: TypeError'),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, error: type[Exception], message: str
) -> None:
    (tmp_path / "own_scores.py").write_text(f"def p(given): {body}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_scores", raising=False)
    with pytest.raises(error, match=message):
        make_masks(net(), 0.5, score="own_scores:p")
    assert torch.is_grad_enabled()
