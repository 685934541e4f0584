"""Works: what an operator computes and moves, by hand; and latencies that follow from it, found again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import autoprune
from autoprune.latency import LatencySetting
from autoprune.latency.table import Call
from autoprune.latency.table._alignment import Alignment
from autoprune.latency.table._fits import fit_passes
from autoprune.latency.table._operator_work import TERMS, fit_operator_work, kind_of, work_terms
from autoprune.latency.table._operators import Number, Share, sizes_of
from autoprune.latency.table._profiles import make_profiler
from autoprune.latency.table._surfaces import Form, Readings, sum_surfaces
from tests.latency.nets import four_layers

IN, OUT = Share(1.0, 0), Share(1.0, 1)

CONV = Call(
    "aten.convolution.default",
    ((1, 8, 10, 10), (16, 8, 3, 3), (16,), (1, 16, 10, 10)),
    (),
    {1: "conv.weight", 2: "conv.bias"},
)
CONV_NUMBERS = (1, IN, 10, 10, OUT, IN, 3, 3, OUT, 1, OUT, 10, 10)
RELU = Call("aten.relu.default", ((1, 16, 10, 10), (1, 16, 10, 10)), (), {})
RELU_NUMBERS = (1, OUT, 10, 10, 1, OUT, 10, 10)
LINEAR = Call("aten.addmm.default", ((5,), (2, 32), (32, 5), (2, 5)), (), {0: "fc.bias", 2: "fc.weight"})
LINEAR_NUMBERS = (5, 2, IN, IN, 5, 2, 5)


def terms(row: np.ndarray) -> dict[object, float]:
    """Return the terms of one candidate that are not 0."""
    return {term: value for term, value in zip(TERMS, row.tolist(), strict=True) if value}


def test_what_a_convolution_and_its_relu_compute_and_move() -> None:
    sizes = np.array([[8.0, 16.0], [4.0, 6.0]])
    off = np.array([[False, False], [False, True]])
    dense, narrow = work_terms([(CONV, CONV_NUMBERS), (RELU, RELU_NUMBERS)], sizes, off)
    assert terms(dense) == {
        "weights": 16 * 8 * 9 + 16,
        "activations": 2 * 16 * 100,
        ("spatial", "macs"): 16 * 8 * 9 * 100,
        ("spatial", "activations"): (8 + 16) * 100,
    }
    assert terms(narrow) == {
        "weights": 6 * 4 * 9 + 6,
        "activations": 2 * 6 * 100,
        ("spatial", "macs"): 6 * 4 * 9 * 100,
        ("spatial", "activations"): (4 + 6) * 100,
        ("spatial", "macs, output off"): 6 * 4 * 9 * 100,
    }


def test_operators_have_kinds() -> None:
    pointwise = Call(CONV.kind, ((1, 8, 10, 10), (16, 8, 1, 1), (1, 16, 10, 10)), (), {1: "conv.weight"})
    assert kind_of([(CONV, CONV_NUMBERS), (RELU, RELU_NUMBERS)]) == "spatial"
    assert (
        kind_of([(RELU, RELU_NUMBERS), (pointwise, (1, IN, 10, 10, OUT, IN, 1, 1, 1, OUT, 10, 10))])
        == "pointwise"
    )
    assert kind_of([(LINEAR, LINEAR_NUMBERS)]) == "single"
    assert kind_of([(RELU, RELU_NUMBERS)]) == "other"


def test_what_the_last_layer_computes_and_moves() -> None:
    (row,) = work_terms([(LINEAR, LINEAR_NUMBERS)], np.array([[32.0, 0.0]]), np.array([[True, False]]))
    assert terms(row) == {
        "weights": 32 * 5 + 5,
        ("single", "macs"): pytest.approx(2 * 32 * 5),
        ("single", "activations"): 2 * 32 + 2 * 5,
        ("single", "macs, input off"): pytest.approx(2 * 32 * 5),
    }


@pytest.mark.parametrize(
    ("per_mac", "per_parameter"), [pytest.param(1e-6, 0.0, marks=pytest.mark.slow), (1e-6, 2e-5)]
)
def test_a_latency_of_macs_and_parameters_is_found(per_mac: float, per_parameter: float) -> None:
    prunable = autoprune.trace(four_layers(), torch.zeros(1, 1, 8, 8))
    found = make_profiler(prunable, LatencySetting()).found
    signatures = list(found.work)
    rng = np.random.default_rng(0)

    def readings(count: int) -> Readings:
        widths = np.array([[group.width for group in prunable.groups]] * count, dtype=np.int64)
        for group in prunable.searchable:
            widths[:, prunable.position[group.name]] = rng.integers(1, group.width + 1, count)
        cost = prunable.cost(widths)
        whole_ms = 0.1 + per_mac * np.asarray(cost.macs) + per_parameter * np.asarray(cost.params)
        return Readings(
            sizes=sizes_of(found.operators, widths.shape[1])(widths),
            ms=np.zeros((count, len(found.operators))),
            whole_ms=whole_ms,
            signature=np.array([signatures.index(each.signature) for each in found.operators]),
        )

    works = list(found.work.values())
    fit = fit_passes(readings(40), works)
    unseen = readings(20)
    predicted = fit.constant_ms + sum_surfaces(fit.surfaces, unseen.sizes, unseen.signature)
    # MACs of BatchNorms and what a linear layer adds for its bias are counted with the activations.
    np.testing.assert_allclose(predicted, unseen.whole_ms, rtol=0.01)
    assert fit.error < 0.01


def test_a_runtime_that_rounds_up_is_seen_to() -> None:
    """Widths count as multiples of 8: the fit that knows it errs less than the one that does not."""
    sizes = np.random.default_rng(0).integers(8, 65, (40, 1, 2))
    work = [(CONV, CONV_NUMBERS)]
    effective = (-(-sizes[:, 0] // 8) * 8).astype(np.float64)
    total = work_terms(work, effective, np.zeros((40, 2), dtype=bool))
    whole_ms = 0.05 + 1e-7 * total[:, TERMS.index(("spatial", "macs"))]
    readings = Readings(sizes, np.zeros((40, 1)), whole_ms, np.array([0]))
    errors = {}
    for step in (1, 8):
        (surface,) = fit_operator_work(readings, [Form((Alignment(step=step), Alignment(step=step)))], [work])
        # In addition to the operators, only a constant is fitted.
        rest = whole_ms - surface.at(sizes[:, 0])
        errors[step] = float(np.ptp(rest))
    assert errors[8] < 1e-9
    assert errors[1] > 1e-4


@pytest.mark.parametrize(
    ("name", "shapes", "numbers", "kind"),
    [
        # Depthwise: one size, whatever its kernel; the first layer and the last have one too.
        ("aten.convolution.default", ((1, 8, 9, 9), (8, 1, 3, 3)), (1, IN, 9, 9, IN, 1, 3, 3), "single"),
        ("aten.convolution.default", ((1, 3, 9, 9), (8, 3, 3, 3)), (1, 3, 9, 9, OUT, 3, 3, 3), "single"),
        ("aten.convolution.default", ((1, 8, 9, 9), (8, 8, 1, 1)), (1, IN, 9, 9, OUT, IN, 1, 1), "pointwise"),
        ("Conv", ((1, 8, 9, 9), (8, 8, 1, 5)), (1, IN, 9, 9, OUT, IN, 1, 5), "spatial"),
        ("Gemm", ((2, 8), (8, 8)), (2, IN, OUT, IN), "pointwise"),
        (
            "aten.upsample_bilinear2d.vec",
            ((1, 8, 9, 9), (1, 8, 18, 18)),
            (1, IN, 9, 9, 1, IN, 18, 18),
            "other",
        ),
    ],
)
def test_the_kind_of_an_operator_is_that_of_its_contraction(
    name: str, shapes: tuple[tuple[int, ...], ...], numbers: tuple[Number, ...], kind: str
) -> None:
    assert kind_of([(RELU, RELU_NUMBERS[:0]), (Call(name, shapes, (), {1: "weight"}), numbers)]) == kind
