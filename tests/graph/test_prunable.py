"""A traced model prints one line, whatever it holds."""

from __future__ import annotations

from autoprune.tracing import trace
from tests.models import CASES, Residual, image


def test_a_traced_model_prints_one_line() -> None:
    prunable = trace(Residual(), image())
    cost = prunable.cost()
    assert str(prunable) == (
        f"<Prunable Residual: {len(prunable.groups)} channel groups, 2 of them frozen; "
        f"dense cost {cost.macs:,} MACs, {cost.params:,} params>"
    )
    assert repr(prunable.group("inner1")) == "<ChannelGroup inner1: width 6, 3 members, free>"
    assert repr(prunable.group("inner1").members[0]) == "<Member inner1.weight, axis 0: 6 channels>"


def test_a_group_prints_why_it_is_frozen_and_what_it_crosses() -> None:
    prunable = trace(CASES["norms"].make(), image())
    assert ", crosses ln (layer_norm), free>" in repr(prunable.group("fc"))
    frozen = next(group for group in prunable.groups if group.frozen)
    assert repr(frozen).endswith(f", frozen: {frozen.frozen}>")
