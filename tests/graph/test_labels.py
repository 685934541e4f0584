"""Labels: ties join, fixed partners freeze, first reasons win."""

from __future__ import annotations

import numpy as np

from autoprune.graph.labels import FIXED, STRUCTURAL, LabelStore


def test_ties_make_components() -> None:
    store = LabelStore()
    a, b, c = store.fresh(3), store.fresh(3), store.fresh(2)
    store.tie(a, b, "")
    store.tie(b[:2], c, "")
    of_label = store.components().of_label
    assert of_label[a[0]] == of_label[b[0]] == of_label[c[0]]
    assert of_label[a[2]] == of_label[b[2]]
    assert len(np.unique(of_label)) == 3


def test_a_fixed_partner_freezes() -> None:
    store = LabelStore()
    a, b, c = store.fresh(3), store.fresh(2), store.fresh(1)
    store.tie(a, np.array([FIXED, c[0], FIXED]), "meets the input")
    store.tie(b, None, "meets the input")
    components = store.components()
    frozen = {
        int(label) for label in range(store.count) if int(components.of_label[label]) in components.frozen
    }
    assert frozen == {a[0], a[2], *b.tolist()}
    assert set(components.frozen.values()) == {"meets the input"}


def test_the_first_reason_wins_over_later_ones_and_any_over_structural() -> None:
    store = LabelStore()
    a, b = store.fresh(1), store.fresh(1)
    store.freeze(a, STRUCTURAL)
    store.freeze(b, "first")
    store.freeze(b, "second")
    store.tie(a, b, "")
    assert list(store.components().frozen.values()) == ["first"]
