"""Predictions against what they promise: the fastest sizes from here on, of the kinds that were measured."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from autoprune.cost.polynomial import Size
from autoprune.graph import Block
from autoprune.graph.blocks import StandIn
from autoprune.latency import Fingerprint, LatencySetting
from autoprune.latency.table import LatencyPredictor, LatencyTable
from autoprune.latency.table._alignment import Alignment, aligned_axes
from autoprune.latency.table._latency_table import Calibration
from autoprune.latency.table._operators import Operator
from autoprune.latency.table._predictor import _inside
from autoprune.latency.table._profiles import make_profiler
from autoprune.latency.table._surfaces import Form, Readings, Surface, fit_surfaces
from autoprune.tracing import trace
from tests.residual import BLOCK_CASES

ALIGNMENT = Alignment(4, 16, 8)
LARGEST = 64
KINDS = list(itertools.product((0, 1), repeat=2))
ALL = np.ones((2, 2), dtype=bool)


def surface(axes: int, observed: np.ndarray, seed: int = 0) -> Surface:
    """Return a surface whose grids grow by random work_terms, the slower the less is aligned."""
    rng = np.random.default_rng(seed)
    knots = tuple(np.array([0.0, 16.0, 40.0, LARGEST]) if axis < axes else np.zeros(1) for axis in range(2))
    shape = (2, 2, len(knots[0]), len(knots[1]))
    ms = rng.uniform(0.1, 1, shape).cumsum(2).cumsum(3)
    ms *= np.array([[3.0, 2.0], [1.5, 1.0]])[..., None, None]
    return Surface((ALIGNMENT, ALIGNMENT), (knots[0], knots[1]), ms, observed)


def predictor(surface: Surface, axes: int) -> LatencyPredictor:
    """Return that of a model of one operator, whose sizes are the widths of two groups."""
    sizes = tuple(Size(0, tuple(int(place == axis) for place in range(2))) for axis in range(axes))
    table = LatencyTable(
        setting=LatencySetting(),
        device=Fingerprint({}),
        model="",
        groups=2,
        operators=(Operator("conv", "s", sizes),),
        surfaces={"s": surface},
        calibration=Calibration(0.25, 0.01, 64, 1.0),
        dense_ms=1.0,
    )
    return LatencyPredictor(table)


def brute_force(surface: Surface, sizes: np.ndarray, axes: int) -> np.ndarray:
    """Return the fastest of all sizes from each of [n, 2] on, up to one alignment past the largest."""
    fastest = []
    for size in sizes.tolist():
        ranges = [
            np.arange(start, LARGEST + 9) if axis < axes else np.zeros(1, np.int64)
            for axis, start in enumerate(size)
        ]
        onwards = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.int64)
        on = aligned_axes(surface.alignments, onwards).astype(np.int64)
        fastest.append(surface.at(onwards[surface.observed[on[:, 0], on[:, 1]]]).min())
    return 0.25 + np.array(fastest)


def random_widths(axes: int, count: int, seed: int = 0) -> np.ndarray:
    widths = np.random.default_rng(seed).integers(1, LARGEST + 1, (count, 2))
    widths[:, axes:] = 0
    return widths


def some_missing(axes: int) -> list[np.ndarray]:
    """Return every choice of kinds that may have been observed; an axis without a size is aligned."""
    possible = [kind for kind in KINDS if axes == 2 or kind[1]]
    chosen = itertools.chain.from_iterable(
        itertools.combinations(possible, count) for count in range(1, len(possible) + 1)
    )
    found = []
    for kinds in chosen:
        observed = np.zeros((2, 2), dtype=bool)
        for kind in kinds:
            observed[kind] = True
        found.append(observed)
    return found


CASES = [(axes, observed) for axes in (1, 2) for observed in some_missing(axes)]


@pytest.mark.parametrize(("axes", "observed"), CASES)
def test_the_fastest_sizes_from_here_on_count(axes: int, observed: np.ndarray) -> None:
    made = surface(axes, observed)
    widths = random_widths(axes, 60)
    np.testing.assert_allclose(predictor(made, axes)(widths), brute_force(made, widths, axes), rtol=1e-12)


@pytest.mark.parametrize(("axes", "observed"), CASES)
def test_predictions_never_fall_if_a_width_grows(axes: int, observed: np.ndarray) -> None:
    predict = predictor(surface(axes, observed), axes)
    widths = random_widths(axes, 500)
    wider = np.maximum(widths, random_widths(axes, 500, seed=1))
    assert (predict(wider) >= predict(widths) - 1e-12).all()


@pytest.mark.parametrize("axes", [1, 2])
def test_what_is_expected_is_the_surface_and_at_least_the_envelope(axes: int) -> None:
    made = surface(axes, ALL if axes == 2 else np.array([[0, 1], [0, 1]], dtype=bool))
    predict = predictor(made, axes)
    widths = random_widths(axes, 500)
    np.testing.assert_allclose(predict.expected(widths), 0.25 + made.at(widths))
    assert (predict(widths) <= predict.expected(widths) + 1e-12).all()
    aligned = widths // 16 * 16 + 16
    aligned[:, axes:] = 0
    np.testing.assert_allclose(predict(aligned), predict.expected(aligned))


def test_an_operator_of_one_size_is_rounded_in_the_envelope_too() -> None:
    """Its second size is 0, and has no other kind: 17 to 32 channels take what 32 take."""
    knots = np.array([0.0, float(LARGEST)])
    ms = np.broadcast_to(knots[:, None] / 10, (2, 2, 2, 1)).copy()
    ms[0] *= 2
    made = Surface((ALIGNMENT, ALIGNMENT), (knots, np.zeros(1)), ms, np.array([[0, 1], [0, 1]], dtype=bool))
    widths = np.array([[17, 0], [20, 0], [31, 0], [32, 0]])
    np.testing.assert_allclose(predictor(made, 1)(widths), 0.25 + 3.2)


def test_kinds_without_readings_are_not_taken_for_fast_ones() -> None:
    """The in size was seen unaligned only together with the out size, so it is as slow as both."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(9, LARGEST + 1, (600, 1, 2))
    on = aligned_axes((ALIGNMENT, ALIGNMENT), sizes[:, 0])
    sizes, on = sizes[on[:, 0] == on[:, 1]], on[on[:, 0] == on[:, 1]]
    ms = 0.1 + 1e-3 * sizes.prod(axis=2).astype(float) * np.where(on[:, :1], 1.0, 3.0)
    form = Form((Alignment(align=4, free=8), Alignment(align=4, free=8)))
    (found,) = fit_surfaces(Readings(sizes, ms, ms[:, 0] + 1, np.array([0])), [form])
    np.testing.assert_array_equal(found.observed, [[True, False], [False, True]])
    unseen = np.array([[33, 32], [32, 33], [21, 60]])
    np.testing.assert_allclose(found.at(unseen), 0.1 + 3e-3 * unseen.prod(axis=1), rtol=0.02)


def test_dropped_blocks_take_no_time() -> None:
    """The operators of the layers of a block, and those without a weight between them."""
    names = ("stem", "block.conv1", "softmax 2", "block.conv2", "project", "add 5")
    sizes = (Size(0, (1, 0)),)
    table = LatencyTable(
        setting=LatencySetting(),
        device=Fingerprint({}),
        model="",
        groups=2,
        operators=tuple(Operator(name, f"s{place % 2}", sizes) for place, name in enumerate(names)),
        surfaces={f"s{place}": surface(1, ALL, place) for place in range(2)},
        calibration=Calibration(0.25, 0.01, 64, 1.0),
        dense_ms=1.0,
    )
    stand_ins = (StandIn("block.conv1", "zero"), StandIn("block.conv2", "nothing"))
    block = Block("block:branch", stand_ins, (), frozenset(), frozenset(), {})
    predict = LatencyPredictor(table, [block])
    widths = np.array([[20, 7], [33, 7]])
    kept, dropped = (np.column_stack([widths, np.full(2, value)]) for value in (1, 0))
    for latency in (predict, predict.expected):
        np.testing.assert_array_equal(latency(kept), latency(widths))
        alone = [LatencyPredictor(replace(table, operators=(each,))) for each in table.operators]
        each_ms = np.array([(one if latency == predict else one.expected)(widths) - 0.25 for one in alone])
        np.testing.assert_allclose(latency(widths), 0.25 + each_ms.sum(axis=0))
        np.testing.assert_allclose(latency(dropped), 0.25 + each_ms[[0, 4, 5]].sum(axis=0))


@pytest.mark.parametrize("probe", ["eager", "onnx"])
def test_the_operators_of_each_runtime_belong_to_their_blocks(probe: str) -> None:
    """Those of linear layers too, whose weights the ONNX exporter renames."""
    case = BLOCK_CASES["encoder"]
    prunable = trace(case.make().eval(), case.inputs)
    operators = make_profiler(prunable, LatencySetting(probe)).found.operators
    attention, mlp = _inside(operators, prunable.blocks).T
    names = np.array([operator.name for operator in operators])
    assert {*names[mlp]} == {"blocks.0.mlp.0", "blocks.0.mlp.2"}
    assert all(name.startswith(("blocks.0.attention", "MatMul")) for name in names[attention])
    assert {*names[~attention & ~mlp]} == {"stem.0", "head"}
