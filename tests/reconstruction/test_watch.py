"""Contractions are seen as a model makes them, those inside attention too, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autoprune.reconstruction._contractions import Contraction
from autoprune.reconstruction._watch import ContractionWatch

WIDTH = 8


class Attends(nn.Module):
    """Attention among tokens, or from them to others; with projections in one weight or in three."""

    def __init__(self, *, crossed: bool = False, separate: bool = False, masked: bool = False) -> None:
        super().__init__()
        sizes = {"kdim": 6, "vdim": 6} if separate else {}
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=not masked, **sizes)
        self.others = nn.Linear(WIDTH, 6 if separate else WIDTH)
        self.crossed, self.masked = crossed or separate, masked

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the mixed tokens and the weights."""
        others = self.others(tokens)
        if not self.crossed:
            others = tokens
        mask = torch.ones(tokens.shape[0], tokens.shape[0]).triu(1).bool() if self.masked else None
        attended: tuple[Tensor, Tensor | None] = self.attention(tokens, others, others, attn_mask=mask)
        return attended


PROJECTIONS = ["attention.in_proj_weight", "attention.out_proj.weight"]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["others.weight", *PROJECTIONS]),
        ({"masked": True}, ["others.weight", *PROJECTIONS]),
        ({"crossed": True}, ["others.weight", PROJECTIONS[1]]),
        (
            {"separate": True},
            ["others.weight", *(f"attention.{letter}_proj_weight" for letter in "qkv"), PROJECTIONS[1]],
        ),
    ],
    ids=["self", "masked", "crossed", "separate weights"],
)
def test_projections_of_attention_are_seen(options: dict[str, bool], names: list[str]) -> None:
    torch.manual_seed(0)
    model = Attends(**options).double().eval()
    tokens = torch.randn(5, 4, WIDTH, dtype=torch.float64)
    seen: list[str] = []

    def note(name: str, contraction: Contraction, output: Tensor) -> None:
        seen.append(name)
        bias = 0 if contraction.bias is None else contraction.bias
        torch.testing.assert_close(output, contraction.input @ contraction.weight.T + bias)

    with torch.no_grad():
        expected = model(tokens)
        with ContractionWatch(model, note):
            given = model(tokens)
    assert seen == names
    for one, other in zip(given, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
