"""The template writes at any widths what a real export at these widths gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]  # the package ships no types
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import autoprune
from autoprune.errors import LatencyError
from autoprune.exporting import onnx_feed
from autoprune.graph import Prunable
from autoprune.latency import LatencySetting
from autoprune.latency.probes.onnx_runtime import export_for_timing
from autoprune.latency.table import narrowed
from autoprune.latency.table._onnx_template import _moving, _require_one_graph, make_template
from autoprune.latency.table._operator_sizes import observe
from autoprune.latency.timing import random_inputs
from tests.models import CASES

SETTING = LatencySetting("onnx", batch=2)

SLOW = (
    "flatten",
    "transposed",
    "residual",
    "concat",
    "depthwise",
    "squeeze_excite",
    "chunked",
    "split",
    "stages",
)
"""Weights whose inputs come first, a linear layer over a map, and others."""

NETS = ("shuffled", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW))
"""The fast one has a reshape with a width in it."""


def drawn(prunable: Prunable, seed: int) -> np.ndarray:
    """Return widths from 2 on: at width 1 exporters leave nodes out, which take no time in the template."""
    rng = np.random.default_rng(seed)
    widths = np.array([group.width for group in prunable.groups], dtype=np.int64)
    for group in prunable.searchable:
        widths[prunable.position[group.name]] = rng.integers(min(2, group.width), group.width + 1)
    return widths


def attributes(model: Any) -> list[tuple[object, ...]]:
    return [
        (node.op_type, node.name, *node.input, *node.output, *sorted(map(str, node.attribute)))
        for node in model.graph.node
    ]


def arrays(model: Any) -> dict[str, np.ndarray]:
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}


def outputs(model: Any, inputs: Any) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, onnx_feed(session, inputs))
    return found


@pytest.mark.parametrize("name", NETS)
def test_a_written_file_is_what_an_export_gives(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    case = CASES[name]
    prunable = autoprune.trace(case.make().eval(), case.inputs)
    template = make_template(prunable, observe(prunable), SETTING)
    inputs = random_inputs(prunable.example_inputs, SETTING)
    full = np.array([group.width for group in prunable.groups], dtype=np.int64)
    for widths in (full, drawn(prunable, 1)):
        template.write(widths, tmp_path / "template.onnx")
        model = narrowed(prunable, widths)
        export_for_timing(model, prunable.example_inputs, SETTING, tmp_path / "real.onnx", free_batch=True)
        written, real = (onnx.load_model(tmp_path / f"{which}.onnx") for which in ("template", "real"))
        assert attributes(written) == attributes(real)
        mine, exported = arrays(written), arrays(real)
        assert {key: each.shape for key, each in mine.items()} == {
            key: each.shape for key, each in exported.items()
        }
        for key, each in exported.items():
            if each.dtype.kind in "iub":
                np.testing.assert_array_equal(mine[key], each)
        assert all(np.isfinite(output).all() for output in outputs(written, inputs))
        # Which channels' weights the file holds is nothing to a latency; with the real ones it is the model.
        for tensor in written.graph.initializer:
            tensor.CopyFrom(numpy_helper.from_array(exported[tensor.name], tensor.name))
        for found, expected in zip(outputs(written, inputs), outputs(real, inputs), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_what_follows_no_width_is_refused_with_advice() -> None:
    prunable = autoprune.trace(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 5, 1)), torch.zeros(1, 3, 6, 6))
    sizes = observe(prunable)
    seen = [{"pads": (1000 + number,)} for number in range(len(sizes.widths))]
    with pytest.raises(LatencyError, match=r"Net: pads .* is \[1000\] in .* Freeze the layer, or"):
        list(_moving("Net", sizes, seen))


def test_graphs_that_differ_are_refused_with_advice() -> None:
    def file(*operators: str) -> onnx.ModelProto:
        nodes = [onnx.helper.make_node(name, ["x"], ["y"]) for name in operators]
        return onnx.helper.make_model(onnx.helper.make_graph(nodes, "graph", [], []))

    with pytest.raises(LatencyError, match=r"Net: the nodes of .* Freeze the layers .* latency\.probe"):
        _require_one_graph([file("Relu"), file("Relu", "Relu")], "Net")
